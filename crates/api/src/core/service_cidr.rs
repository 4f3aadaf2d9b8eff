//! `networking.k8s.io/v1` ServiceCIDR.

use serde::{Deserialize, Serialize};

use crate::kind::kind;
use crate::meta::ObjectMeta;

/// Ranges that ClusterIPs come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServiceCIDR {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: ServiceCIDRSpec,
}
kind!(
    ServiceCIDR,
    "networking.k8s.io",
    "v1",
    "servicecidrs",
    false,
    [spec]
);

/// Spec of a ServiceCIDR.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceCIDRSpec {
    /// At most one range of each family.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cidrs: Vec<String>,
}
