//! The core kinds, slim: `Service`, `EndpointSlice`, `Node`, `Namespace`.

mod endpoints;
mod node;
mod service;

pub use endpoints::{
    AddressType, Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode,
    ForZone, LABEL_SERVICE_NAME,
};
pub use node::{Namespace, Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus, Taint};
pub use service::{
    ClientIpConfig, IntOrString, IpFamily, IpFamilyPolicy, LoadBalancerIngress, LoadBalancerStatus,
    Protocol, Service, ServicePort, ServiceSpec, ServiceStatus, ServiceType, SessionAffinity,
    SessionAffinityConfig, TrafficPolicy,
};
