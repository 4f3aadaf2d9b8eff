//! `Advertisement`: how the network learns of the addresses of some pools.

use serde::{Deserialize, Serialize};

use super::v1alpha1::ObjectStatus;
use crate::de::{is_default, is_true};
use crate::kind::kind;
use crate::meta::{LabelSelector, ObjectMeta};
use crate::metallb::PreferredNodeSelector;

/// An advertisement in one of three ways: layer 2, BGP, or addresses on a Linux interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Advertisement {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: AdvertisementSpec,
    /// What is.
    pub status: ObjectStatus,
}
kind!(
    Advertisement,
    "corten.dev",
    "v1alpha1",
    "advertisements",
    true,
    [spec, status]
);

/// What an Advertisement wants. Exactly one of `layer2`, `bgp` and `linux` is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct AdvertisementSpec {
    /// Pools to advertise, by name, of any kind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<String>,
    /// Pools to advertise, by label. With neither names nor selectors every pool is meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pool_selectors: Vec<LabelSelector>,
    /// Nodes that may announce. When empty, all nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node_selectors: Vec<LabelSelector>,
    /// Services to advertise. When empty, all Services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_selectors: Vec<LabelSelector>,
    /// One node answers for an address by ARP and NDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer2: Option<Layer2>,
    /// Routers learn the addresses by BGP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bgp: Option<BgpAnnouncement>,
    /// The addresses are put on a network interface, where every Linux tool and routing daemon
    /// finds them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linux: Option<LinuxNative>,
}

/// Announcing in layer 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Layer2 {
    /// Interfaces to announce from. When empty, all interfaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
    /// Nodes that go first, by weight, among those that may announce.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preferred_node_selectors: Vec<PreferredNodeSelector>,
    /// The link-layer address that answers. Node: the interface's. Virtual: one of the address's
    /// own, which moves with it, so that no client has to notice a take-over; where the network
    /// refuses that, the interface's, with an event on the Node.
    #[serde(skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "crds", schemars(extend("x-default" = "Node")))]
    pub mac: MacMode,
    /// Whether a node that comes back, and would be first, takes an address from the one that
    /// stood in for it. False: an address moves only when its owner is lost.
    #[serde(skip_serializing_if = "is_true")]
    #[cfg_attr(feature = "crds", schemars(extend("x-default" = true)))]
    pub hand_back: bool,
}

impl Default for Layer2 {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            preferred_node_selectors: Vec::new(),
            mac: MacMode::Node,
            hand_back: true,
        }
    }
}

/// Whose link-layer address answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
pub enum MacMode {
    /// The interface's.
    #[default]
    Node,
    /// The address's own.
    Virtual,
}

/// Announcing by BGP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct BgpAnnouncement {
    /// Names of the Peer and BGPPeer objects to advertise to. When empty, all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
    /// Prefix length to which IPv4 addresses are aggregated. 32 advertises each address.
    #[serde(skip_serializing_if = "is_32")]
    #[cfg_attr(feature = "crds", schemars(range(min = 1, max = 32), extend("x-default" = 32)))]
    pub aggregation_length: i32,
    /// Prefix length to which IPv6 addresses are aggregated. 128 advertises each address.
    #[serde(rename = "aggregationLengthV6", skip_serializing_if = "is_128")]
    #[cfg_attr(feature = "crds", schemars(range(min = 1, max = 128), extend("x-default" = 128)))]
    pub aggregation_length_v6: i32,
    /// LOCAL_PREF towards internal peers; 0 means not set.
    #[serde(skip_serializing_if = "is_default")]
    pub local_pref: u32,
    /// Communities: 1234:1, large:1234:1:2, or the alias of a Community object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<String>,
    /// MULTI_EXIT_DISC; the lowest wins.
    #[serde(skip_serializing_if = "is_default")]
    pub med: u32,
    /// How many times more the own AS number stands in the path.
    #[serde(skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "crds", schemars(range(max = 10)))]
    pub prepend: u8,
    /// Whether routers get traffic weights: a node's share is that of its ready endpoints
    /// (link bandwidth community, RFC 10005).
    #[serde(skip_serializing_if = "is_default")]
    pub weighted: bool,
}

impl Default for BgpAnnouncement {
    fn default() -> Self {
        Self {
            peers: Vec::new(),
            aggregation_length: 32,
            aggregation_length_v6: 128,
            local_pref: 0,
            communities: Vec::new(),
            med: 0,
            prepend: 0,
            weighted: false,
        }
    }
}

/// Addresses on a network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "crds", schemars(extend("required" = ["device"])))]
#[serde(rename_all = "camelCase", default)]
pub struct LinuxNative {
    /// lan: the interface whose subnet holds the address, on one node. kube-lb0: a dummy
    /// interface on every node, for any routing daemon to carry.
    pub device: LinuxDevice,
    /// Prefix length that IPv4 addresses get on kube-lb0.
    #[serde(skip_serializing_if = "is_32")]
    #[cfg_attr(feature = "crds", schemars(range(min = 1, max = 32), extend("x-default" = 32)))]
    pub aggregation_length: i32,
    /// Prefix length that IPv6 addresses get on kube-lb0.
    #[serde(rename = "aggregationLengthV6", skip_serializing_if = "is_128")]
    #[cfg_attr(feature = "crds", schemars(range(min = 1, max = 128), extend("x-default" = 128)))]
    pub aggregation_length_v6: i32,
}

impl Default for LinuxNative {
    fn default() -> Self {
        Self {
            device: LinuxDevice::Lan,
            aggregation_length: 32,
            aggregation_length_v6: 128,
        }
    }
}

/// The interface that addresses are put on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LinuxDevice {
    /// The one whose subnet holds the address.
    #[default]
    Lan,
    /// The dummy interface `kube-lb0`.
    #[serde(rename = "kube-lb0")]
    KubeLb0,
}

fn is_32(value: &i32) -> bool {
    *value == 32
}

fn is_128(value: &i32) -> bool {
    *value == 128
}
