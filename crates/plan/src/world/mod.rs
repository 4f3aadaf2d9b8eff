//! Everything that is known, as one value.

mod service;

pub use service::{FamilyPolicy, Ingress, Labels, Policy, Port, Service, ServiceType};
