//! Kinds that only say how things are: who announces a Service, and whether the configuration
//! is good.

use serde::{Deserialize, Serialize};

use crate::kind::kind;
use crate::meta::{Condition, ObjectMeta};

/// Which node announces a Service in layer 2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServiceL2Status {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is.
    pub status: ServiceL2StatusStatus,
}
kind!(
    ServiceL2Status,
    "metallb.io",
    "v1beta1",
    "servicel2statuses",
    true,
    [status]
);

/// MetalLBServiceL2Status defines the observed state of ServiceL2Status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceL2StatusStatus {
    /// Node that announces the Service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Name of the Service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_name: String,
    /// Namespace of the Service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_namespace: String,
    /// Interfaces that the Service is announced from; none means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<InterfaceInfo>,
}

/// An interface that a Service is announced from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct InterfaceInfo {
    /// Name of the interface.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// To which peers a node hands a Service's prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServiceBGPStatus {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is.
    pub status: ServiceBGPStatusStatus,
}
kind!(
    ServiceBGPStatus,
    "metallb.io",
    "v1beta1",
    "servicebgpstatuses",
    true,
    [status]
);

/// MetalLBServiceBGPStatus defines the observed state of ServiceBGPStatus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceBGPStatusStatus {
    /// Node that announces the Service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Name of the Service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_name: String,
    /// Namespace of the Service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_namespace: String,
    /// Names of the BGPPeer objects, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
}

/// Whether a component could use the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ConfigurationState {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is.
    pub status: ConfigurationStateStatus,
}
kind!(
    ConfigurationState,
    "metallb.io",
    "v1beta1",
    "configurationstates",
    true,
    [status]
);

/// ConfigurationStateStatus defines the observed state of ConfigurationState.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigurationStateStatus {
    /// Conditions, one for each reconciler.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(
        feature = "crds",
        schemars(extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = ["type"]
        ))
    )]
    pub conditions: Vec<Condition>,
    /// Sum of the conditions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<ConfigurationResult>,
    /// Messages of failing conditions, one a line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error_summary: String,
}

/// Sum of the conditions of a ConfigurationState.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
pub enum ConfigurationResult {
    /// Every condition is true.
    Valid,
    /// A condition is false because of the configuration.
    Invalid,
    /// Nothing is known yet.
    Unknown,
}
