//! The Service as the planner sees it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::name::{Name, ServiceKey};
use crate::net::{Family, Protocol};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// `spec.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceType {
    /// The default of Kubernetes.
    #[default]
    ClusterIP,
    /// Reachable on every node's address.
    NodePort,
    /// What Corten exists for.
    LoadBalancer,
    /// A DNS alias; nothing to forward.
    ExternalName,
}

/// `externalTrafficPolicy` or `internalTrafficPolicy`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum Policy {
    /// Any endpoint in the cluster.
    #[default]
    Cluster,
    /// Only endpoints on the node that the packet reached.
    Local,
}

/// `spec.ipFamilyPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FamilyPolicy {
    /// One family.
    #[default]
    SingleStack,
    /// Two where the cluster has two.
    PreferDualStack,
    /// Two or nothing.
    RequireDualStack,
}

/// One entry of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The port's name, empty when it has none; EndpointSlices refer to it.
    pub name: Name,
    /// Its protocol.
    pub protocol: Protocol,
    /// The number clients connect to.
    pub port: u16,
    /// `nodePort`, 0 when there is none.
    pub node_port: u16,
}

/// One entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingress {
    /// The address as written there; `None` for an entry with a host name only or a bad address.
    pub ip: Option<IpAddr>,
    /// `ipMode: Proxy`: traffic must go to the balancer itself and is not short-cut.
    pub proxy: bool,
}

/// The fields of a Service that some planner reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Namespace and name.
    pub key: ServiceKey,
    /// `metadata.uid`; events refer to it.
    pub uid: Name,
    /// `metadata.resourceVersion`; a status write is fenced by it.
    pub resource_version: Name,
    /// `metadata.creationTimestamp`, RFC 3339 in UTC: text order is time order.
    pub created: Name,
    /// Labels; advertisements and pools select by them.
    pub labels: Labels,
    /// `service.kubernetes.io/service-proxy-name`: another service proxy serves it.
    pub other_proxy: bool,
    /// Annotations with one of Corten's prefixes (`metallb.io/`, `metallb.universe.tf/`,
    /// `corten.dev/`), nothing else.
    pub annotations: BTreeMap<String, String>,
    /// `spec.type`.
    pub kind: ServiceType,
    /// `spec.loadBalancerClass`.
    pub class: Option<Name>,
    /// `spec.clusterIPs` (or `clusterIP`); empty for a headless Service.
    pub cluster_ips: Vec<IpAddr>,
    /// The families of the cluster IPs; where no API server assigns cluster IPs (a directory of
    /// manifests), `spec.ipFamilies` or IPv4. Empty: no family can be derived.
    pub families: Vec<Family>,
    /// `spec.ipFamilyPolicy`.
    pub family_policy: FamilyPolicy,
    /// `spec.loadBalancerIP` as written.
    pub load_balancer_ip: Option<Name>,
    /// `spec.externalIPs`, those that parse.
    pub external_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges` as written, trimmed.
    pub source_ranges: Vec<Name>,
    /// `spec.externalTrafficPolicy`.
    pub external_policy: Policy,
    /// `spec.internalTrafficPolicy`.
    pub internal_policy: Policy,
    /// `spec.healthCheckNodePort`, 0 when there is none.
    pub health_check_node_port: u16,
    /// `spec.sessionAffinity: ClientIP` with its timeout in seconds.
    pub affinity_seconds: Option<u32>,
    /// `spec.selector` in canonical text (`a=b,c=d`, sorted): the backend key of address sharing.
    pub selector: Name,
    /// `spec.ports`.
    pub ports: Vec<Port>,
    /// `status.loadBalancer.ingress`.
    pub ingress: Vec<Ingress>,
}

impl Service {
    /// The addresses in `status.loadBalancer.ingress`, in order.
    pub fn assigned(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.ingress.iter().filter_map(|entry| entry.ip)
    }
}
