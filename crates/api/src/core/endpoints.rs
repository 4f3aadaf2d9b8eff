//! `discovery.k8s.io/v1` EndpointSlice.

use serde::{Deserialize, Serialize};

use super::Protocol;
use crate::de::{is_default, null_default};
use crate::kind::kind;
use crate::meta::ObjectMeta;

/// Name of the label that names the slice's Service.
pub const LABEL_SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Some of a Service's endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What the addresses are.
    #[serde(rename = "addressType")]
    pub address_type: AddressType,
    /// Endpoints.
    #[serde(deserialize_with = "null_default")]
    pub endpoints: Vec<Endpoint>,
    /// Ports of every endpoint in the slice.
    #[serde(deserialize_with = "null_default")]
    pub ports: Vec<EndpointPort>,
}
kind!(
    EndpointSlice,
    "discovery.k8s.io",
    "v1",
    "endpointslices",
    true,
    [address_type = "addressType", endpoints, ports]
);

impl EndpointSlice {
    /// The Service that the slice belongs to, in the slice's namespace.
    pub fn service_name(&self) -> Option<&str> {
        self.metadata
            .labels
            .get(LABEL_SERVICE_NAME)
            .map(String::as_str)
    }
}

/// What the addresses of a slice are.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum AddressType {
    /// IPv4 addresses.
    #[default]
    IPv4,
    /// IPv6 addresses.
    IPv6,
    /// Names; not used for Services with addresses.
    FQDN,
}

/// One backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Its addresses; consumers use the first.
    #[serde(deserialize_with = "null_default")]
    pub addresses: Vec<String>,
    /// Its state.
    #[serde(skip_serializing_if = "is_default")]
    pub conditions: EndpointConditions,
    /// Node that it runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Zone that it runs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Who should use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hints: Option<EndpointHints>,
}

/// State of an endpoint; none means unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// Takes new connections; unknown counts as true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// As ready, also while terminating.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<bool>,
    /// On its way out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating: Option<bool>,
}

/// Who should use an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointHints {
    /// Zones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub for_zones: Vec<ForZone>,
    /// Nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub for_nodes: Vec<ForNode>,
}

/// A zone in a hint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ForZone {
    /// The zone's name.
    pub name: String,
}

/// A node in a hint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ForNode {
    /// The node's name.
    pub name: String,
}

/// A port of the endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    /// Name of the Service's port that it is for.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_default"
    )]
    pub name: String,
    /// Transport protocol.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_default")]
    pub protocol: Protocol,
    /// Number; none means every port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}
