//! `IPAddressPool`: addresses to give to Services.

use serde::{Deserialize, Serialize};

use crate::de::{is_default, is_true};
use crate::kind::kind;
use crate::meta::{LabelSelector, ObjectMeta};

/// A pool of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct IPAddressPool {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: IPAddressPoolSpec,
    /// What is.
    pub status: IPAddressPoolStatus,
}
kind!(
    IPAddressPool,
    "metallb.io",
    "v1beta1",
    "ipaddresspools",
    true,
    [spec, status]
);

/// IPAddressPoolSpec defines the desired state of IPAddressPool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "crds", schemars(extend("required" = ["addresses"])))]
#[serde(rename_all = "camelCase", default)]
pub struct IPAddressPoolSpec {
    /// Addresses of the pool. Each entry is a CIDR prefix, or a range written start-end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crds", schemars(length(min = 1)))]
    pub addresses: Vec<String>,
    /// False: addresses are given only to Services that ask for this pool or for one of its
    /// addresses.
    #[serde(skip_serializing_if = "is_true")]
    #[cfg_attr(feature = "crds", schemars(extend("x-default" = true)))]
    pub auto_assign: bool,
    /// True: IPv4 addresses that end in .0 or .255 are not used.
    #[serde(rename = "avoidBuggyIPs", skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "crds", schemars(extend("x-default" = false)))]
    pub avoid_buggy_ips: bool,
    /// Limits the pool to some Services; none means every Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_allocation: Option<ServiceAllocation>,
}

impl Default for IPAddressPoolSpec {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            auto_assign: true,
            avoid_buggy_ips: false,
            service_allocation: None,
        }
    }
}

/// The Services that a pool is for. Namespaces and selectors of namespaces are ORed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceAllocation {
    /// Order among the pools of a Service: a lower number goes first, 0 goes last.
    #[serde(skip_serializing_if = "is_default")]
    pub priority: i32,
    /// Namespaces whose Services may use the pool.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Selectors of such namespaces by label, an alternative to naming them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespace_selectors: Vec<LabelSelector>,
    /// Selectors of the Services by label.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_selectors: Vec<LabelSelector>,
}

/// IPAddressPoolStatus defines the observed state of IPAddressPool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "crds",
    schemars(extend(
        "required" = ["assignedIPv4", "assignedIPv6", "availableIPv4", "availableIPv6"]
    ))
)]
#[serde(default)]
pub struct IPAddressPoolStatus {
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
