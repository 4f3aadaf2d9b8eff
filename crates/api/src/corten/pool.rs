//! `AddressPool`: addresses to give to Services.

use serde::{Deserialize, Serialize};

use crate::kind::kind;
use crate::meta::{Condition, ObjectMeta};
use crate::metallb::IPAddressPoolSpec;

/// A pool of addresses. Its spec is that of `metallb.io`'s `IPAddressPool`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AddressPool {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: IPAddressPoolSpec,
    /// What is.
    pub status: AddressPoolStatus,
}
kind!(
    AddressPool,
    "corten.dev",
    "v1alpha1",
    "addresspools",
    true,
    [spec, status]
);

/// What is known of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct AddressPoolStatus {
    /// Whether the newest form is in force (type Accepted), and if not, why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(
        feature = "crds",
        schemars(extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = ["type"]
        ))
    )]
    pub conditions: Vec<Condition>,
    /// Number of assigned IPv4 addresses.
    #[serde(rename = "assignedIPv4")]
    pub assigned_ipv4: i64,
    /// Number of assigned IPv6 addresses.
    #[serde(rename = "assignedIPv6")]
    pub assigned_ipv6: i64,
    /// Number of free IPv4 addresses.
    #[serde(rename = "availableIPv4")]
    pub available_ipv4: i64,
    /// Number of free IPv6 addresses.
    #[serde(rename = "availableIPv6")]
    pub available_ipv6: i64,
}
