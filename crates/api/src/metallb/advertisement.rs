//! `L2Advertisement`: which pools are answered for by ARP and NDP, and where.

use serde::{Deserialize, Serialize};

use crate::kind::kind;
use crate::meta::{LabelSelector, ObjectMeta};

/// An advertisement in layer 2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct L2Advertisement {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: L2AdvertisementSpec,
}
kind!(
    L2Advertisement,
    "metallb.io",
    "v1beta1",
    "l2advertisements",
    true,
    [spec]
);

/// L2AdvertisementSpec defines the desired state of L2Advertisement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct L2AdvertisementSpec {
    /// Pools to advertise, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip_address_pools: Vec<String>,
    /// Pools to advertise, by label. With neither names nor selectors every pool is meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip_address_pool_selectors: Vec<LabelSelector>,
    /// Nodes that may announce. When empty, all nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node_selectors: Vec<LabelSelector>,
    /// Interfaces to announce from. When empty, all interfaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
    /// Services to advertise. When empty, all Services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_selectors: Vec<LabelSelector>,
    /// Nodes that go first, by weight, among those that may announce.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preferred_node_selectors: Vec<PreferredNodeSelector>,
}

/// A preference for some nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "crds", schemars(extend("required" = ["preference", "weight"])))]
#[serde(default)]
pub struct PreferredNodeSelector {
    /// Weight, from 1 to 100; weights of all matching preferences are summed.
    #[cfg_attr(feature = "crds", schemars(range(min = 1, max = 100)))]
    pub weight: i32,
    /// The nodes that the weight is for.
    pub preference: LabelSelector,
}
