//! `BGPAdvertisement`: which pools are advertised to which peers, and how.

use serde::{Deserialize, Serialize};

use crate::de::is_default;
use crate::kind::kind;
use crate::meta::{LabelSelector, ObjectMeta};

/// An advertisement over BGP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct BGPAdvertisement {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: BGPAdvertisementSpec,
}
kind!(
    BGPAdvertisement,
    "metallb.io",
    "v1beta1",
    "bgpadvertisements",
    true,
    [spec]
);

/// BGPAdvertisementSpec defines the desired state of BGPAdvertisement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct BGPAdvertisementSpec {
    /// Prefix length to which IPv4 addresses are aggregated. 32 advertises each address.
    #[serde(skip_serializing_if = "is_32")]
    #[cfg_attr(feature = "crds", schemars(range(min = 1, max = 32), extend("x-default" = 32)))]
    pub aggregation_length: i32,
    /// Prefix length to which IPv6 addresses are aggregated. 128 advertises each address.
    #[serde(rename = "aggregationLengthV6", skip_serializing_if = "is_128")]
    #[cfg_attr(feature = "crds", schemars(range(min = 1, max = 128), extend("x-default" = 128)))]
    pub aggregation_length_v6: i32,
    /// LOCAL_PREF of the advertisement towards internal peers; 0 means not set.
    #[serde(skip_serializing_if = "is_default")]
    pub local_pref: u32,
    /// Communities: 1234:1, large:1234:1:2, or the alias of a Community object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<String>,
    /// Pools to advertise, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip_address_pools: Vec<String>,
    /// Pools to advertise, by label. With neither names nor selectors every pool is meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip_address_pool_selectors: Vec<LabelSelector>,
    /// Nodes that may announce. When empty, all nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node_selectors: Vec<LabelSelector>,
    /// Names of the BGPPeer objects to advertise to. When empty, all peers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
    /// Services to advertise. When empty, all Services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_selectors: Vec<LabelSelector>,
}

impl Default for BGPAdvertisementSpec {
    fn default() -> Self {
        Self {
            aggregation_length: 32,
            aggregation_length_v6: 128,
            local_pref: 0,
            communities: Vec::new(),
            ip_address_pools: Vec::new(),
            ip_address_pool_selectors: Vec::new(),
            node_selectors: Vec::new(),
            peers: Vec::new(),
            service_selectors: Vec::new(),
        }
    }
}

fn is_32(value: &i32) -> bool {
    *value == 32
}

fn is_128(value: &i32) -> bool {
    *value == 128
}
