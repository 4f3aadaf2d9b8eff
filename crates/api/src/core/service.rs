//! `v1` Service.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::de::is_default;
use crate::kind::kind;
use crate::meta::{Condition, ObjectMeta};

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: ServiceSpec,
    /// What is.
    pub status: ServiceStatus,
}
kind!(Service, "", "v1", "services", true, [spec, status]);

/// Spec of a Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// How the Service is exposed.
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub type_: ServiceType,
    /// First of `clusterIPs`; `None` for a headless Service.
    #[serde(rename = "clusterIP", skip_serializing_if = "String::is_empty")]
    pub cluster_ip: String,
    /// Internal addresses, one a family, the primary first.
    #[serde(rename = "clusterIPs", skip_serializing_if = "Vec::is_empty")]
    pub cluster_ips: Vec<String>,
    /// Families, the primary first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip_families: Vec<IpFamily>,
    /// One family or two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_family_policy: Option<IpFamilyPolicy>,
    /// Ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ServicePort>,
    /// Labels of the pods behind the Service.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,
    /// Further addresses for which nodes take traffic.
    #[serde(rename = "externalIPs", skip_serializing_if = "Vec::is_empty")]
    pub external_ips: Vec<String>,
    /// Requested address; deprecated in Kubernetes, still honoured.
    #[serde(rename = "loadBalancerIP", skip_serializing_if = "String::is_empty")]
    pub load_balancer_ip: String,
    /// Which implementation the Service is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer_class: Option<String>,
    /// CIDRs that may reach the Service from outside; empty means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub load_balancer_source_ranges: Vec<String>,
    /// Whether traffic from outside may go to other nodes' endpoints.
    #[serde(skip_serializing_if = "is_default")]
    pub external_traffic_policy: TrafficPolicy,
    /// The same for traffic from inside.
    #[serde(skip_serializing_if = "is_default")]
    pub internal_traffic_policy: TrafficPolicy,
    /// Whether a client stays with its endpoint.
    #[serde(skip_serializing_if = "is_default")]
    pub session_affinity: SessionAffinity,
    /// Its settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_affinity_config: Option<SessionAffinityConfig>,
    /// Port that answers whether this node has endpoints; 0 is none.
    #[serde(skip_serializing_if = "is_default")]
    pub health_check_node_port: u16,
    /// False: a LoadBalancer without node ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocate_load_balancer_node_ports: Option<bool>,
    /// Whether endpoints that are not ready are published.
    #[serde(skip_serializing_if = "is_default")]
    pub publish_not_ready_addresses: bool,
}

/// One port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Name, unique in the Service; may be empty if there is one port only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Transport protocol.
    #[serde(skip_serializing_if = "is_default")]
    pub protocol: Protocol,
    /// Port on the Service's addresses.
    pub port: u16,
    /// Port on the pods; none means the same as `port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_port: Option<IntOrString>,
    /// Port on every node; 0 is none.
    #[serde(skip_serializing_if = "is_default")]
    pub node_port: u16,
}

/// A number, or the name of a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a port number or a port name")]
pub enum IntOrString {
    /// A number.
    Int(u16),
    /// A name.
    String(String),
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => write!(f, "{number}"),
            Self::String(name) => f.write_str(name),
        }
    }
}

/// How a Service is exposed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum ServiceType {
    /// Inside the cluster only.
    #[default]
    ClusterIP,
    /// And on a port of every node.
    NodePort,
    /// And on an external address.
    LoadBalancer,
    /// A DNS alias.
    ExternalName,
}

/// A transport protocol.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Protocol {
    /// TCP.
    #[default]
    TCP,
    /// UDP.
    UDP,
    /// SCTP.
    SCTP,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TCP => "TCP",
            Self::UDP => "UDP",
            Self::SCTP => "SCTP",
        })
    }
}

/// Where traffic may go: external or internal policy.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum TrafficPolicy {
    /// To endpoints on any node.
    #[default]
    Cluster,
    /// To endpoints on the receiving node only.
    Local,
}

/// Whether a client stays with its endpoint.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum SessionAffinity {
    /// No.
    #[default]
    None,
    /// By the client's address.
    ClientIP,
}

/// Settings of session affinity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionAffinityConfig {
    /// Settings of affinity by client address.
    #[serde(rename = "clientIP", skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<ClientIpConfig>,
}

/// Settings of affinity by client address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientIpConfig {
    /// Seconds; Kubernetes defaults to 10800.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum IpFamily {
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
}

/// One family or two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum IpFamilyPolicy {
    /// One family.
    SingleStack,
    /// Two if the cluster has two.
    PreferDualStack,
    /// Two or none.
    RequireDualStack,
}

/// Status of a Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// What the load balancer gave.
    #[serde(skip_serializing_if = "is_default")]
    pub load_balancer: LoadBalancerStatus,
    /// Conditions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// What the load balancer gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadBalancerStatus {
    /// Points of entry.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<LoadBalancerIngress>,
}

/// One point of entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerIngress {
    /// Its address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// `VIP` or `Proxy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_mode: Option<String>,
}
