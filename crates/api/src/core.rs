//! The core kinds, slim: `Service`, `EndpointSlice`, `Node`, `Namespace`, `Pod`,
//! `Secret`, `ServiceCIDR`.

mod endpoints;
mod node;
mod pod;
mod secret;
mod service;
mod service_cidr;

pub use endpoints::{
    AddressType, Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode,
    ForZone, LABEL_SERVICE_NAME,
};
pub use node::{Namespace, Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus, Taint};
pub use pod::{Container, Pod, PodCondition, PodSpec, PodStatus};
pub use secret::{BASIC_AUTH, Content, Secret};
pub use service::{
    ClientIpConfig, IntOrString, IpFamily, IpFamilyPolicy, LoadBalancerIngress, LoadBalancerStatus,
    Protocol, Service, ServicePort, ServiceSpec, ServiceStatus, ServiceType, SessionAffinity,
    SessionAffinityConfig, TrafficPolicy,
};
pub use service_cidr::{ServiceCIDR, ServiceCIDRSpec};
