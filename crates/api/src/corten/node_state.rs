//! `NodeState`: what a node can do just now.

use serde::{Deserialize, Serialize};

use crate::kind::kind;
use crate::meta::ObjectMeta;

/// What a node can do just now, written by its agent on every change. Named as the node;
/// cluster-scoped. It has no spec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodeState {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What the agent says.
    pub status: NodeStateStatus,
}
kind!(
    NodeState,
    "corten.dev",
    "v1alpha1",
    "nodestates",
    false,
    [status]
);

/// What an agent says about its node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStateStatus {
    /// Interfaces that can carry addresses, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(
        feature = "crds",
        schemars(extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = ["name"]
        ))
    )]
    pub interfaces: Vec<Interface>,
    /// What the agent forwards.
    pub forward: ForwardMode,
    /// BGP sessions, by peer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(
        feature = "crds",
        schemars(extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = ["peer"]
        ))
    )]
    pub bgp: Vec<BgpSession>,
    /// Why the agent stands by, where it does: MetalLB's speakers run beside.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub standing_by: String,
    /// Layer 2 addresses that the node has and that stay with it while it is able
    /// (spec.layer2.handBack false), by address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(
        feature = "crds",
        schemars(extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = ["address"]
        ))
    )]
    pub tenures: Vec<Tenure>,
    /// Layer 2 addresses that the node would announce and does not: other stations on the link have
    /// them, which are no nodes of this cluster.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(
        feature = "crds",
        schemars(extend("x-kubernetes-list-type" = "set"))
    )]
    pub withheld: Vec<String>,
    /// True while the node gives its addresses away.
    pub draining: bool,
    /// How far that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainPhase>,
    /// Grows with every start of the agent on this node.
    pub incarnation: u64,
    /// Grows with every change within one incarnation: of two forms, one from the API and one
    /// from the node's beats, the later holds.
    pub version: u64,
    /// Version of the agent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub agent_version: String,
}

/// How far a node is that gives its addresses away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
pub enum DrainPhase {
    /// Other nodes take its layer 2 addresses over.
    HandingOver,
    /// Its BGP routes ask to be left, and are then withdrawn.
    Leaving,
    /// No address is announced from here, and no session is held.
    Drained,
}

/// One interface of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "crds", schemars(extend("required" = ["name"])))]
#[serde(rename_all = "camelCase", default)]
pub struct Interface {
    /// Name, like eth0.
    pub name: String,
    /// Whether it has carrier and is up.
    pub up: bool,
    /// Link-layer address, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Subnets that are on the link, in CIDR form with host bits zero.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<String>,
}

/// An address that stays with the node that has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "crds", schemars(extend("required" = ["address"])))]
#[serde(rename_all = "camelCase", default)]
pub struct Tenure {
    /// The address.
    pub address: String,
    /// Grows with every owner: of two nodes that name the address the later has it.
    pub term: u32,
}

/// A BGP session of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "crds", schemars(extend("required" = ["peer"])))]
#[serde(rename_all = "camelCase", default)]
pub struct BgpSession {
    /// Name of the object that the peer comes from.
    pub peer: String,
    /// Address, or interface, and port of the peer, as metrics name it.
    pub address: String,
    /// AS number of the peer; 0 while it may be any.
    pub asn: u32,
    /// Whether it is up.
    pub state: SessionState,
    /// Prefixes that the peer has from us, as of some seconds ago.
    pub sent: u32,
    /// Prefixes of the peer that are taken, as of some seconds ago.
    pub received: u32,
    /// Since when it is in this state.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "crds", schemars(extend("format" = "date-time")))]
    pub since: String,
    /// Why it is not up.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cause: String,
}

/// How a BGP session is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
pub enum SessionState {
    /// Being opened; nothing has gone wrong yet.
    #[default]
    Connecting,
    /// Up.
    Established,
    /// Not up; the cause says why. It is tried again.
    Down,
    /// Ended on purpose, as the node drains; the cause says why.
    Drained,
}

/// What an agent forwards (design.md §4.5).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ForwardMode {
    /// Nothing: kube-proxy does.
    #[default]
    Off,
    /// External addresses only.
    Vips,
    /// All Services: kube-proxy is replaced.
    All,
}
