//! `BGPPeer`, version v1beta1: deprecated, still served.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::de::is_default;
use crate::duration::Duration;
use crate::kind::kind;
use crate::meta::{LabelSelector, ObjectMeta};

/// A BGP neighbour, older form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct BGPPeer {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: BGPPeerSpec,
}
kind!(BGPPeer, "metallb.io", "v1beta1", "bgppeers", true, [spec]);

/// BGPPeerSpec defines the desired state of BGPPeer.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "crds", schemars(extend("required" = ["myASN", "peerASN", "peerAddress"])))]
#[serde(rename_all = "camelCase", default)]
pub struct BGPPeerSpec {
    /// AS number of the cluster's side.
    #[serde(rename = "myASN")]
    pub my_asn: u32,
    /// AS number of the neighbour.
    #[serde(rename = "peerASN")]
    pub peer_asn: u32,
    /// Address of the neighbour.
    pub peer_address: String,
    /// Source address of the session.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source_address: String,
    /// Port of the neighbour; 0 means 179.
    #[serde(skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "crds", schemars(range(min = 0, max = 16384)))]
    pub peer_port: u16,
    /// Hold time, as RFC 4271 has it: 0, or 3 seconds and more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_time: Option<Duration>,
    /// Keepalive time, at most the hold time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive_time: Option<Duration>,
    /// Router ID of the cluster's side.
    #[serde(rename = "routerID", skip_serializing_if = "String::is_empty")]
    pub router_id: String,
    /// Nodes that hold a session with the neighbour. When empty, all nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node_selectors: Vec<LabelSelector>,
    /// TCP MD5 password (RFC 2385).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// Name of the BFDProfile of the session. When empty, no BFD.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bfd_profile: String,
    /// Whether the neighbour is more than one hop away.
    #[serde(rename = "ebgpMultiHop", skip_serializing_if = "is_default")]
    pub ebgp_multi_hop: bool,
}

impl fmt::Debug for BGPPeerSpec {
    /// Everything but the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BGPPeerSpec")
            .field("my_asn", &self.my_asn)
            .field("peer_asn", &self.peer_asn)
            .field("peer_address", &self.peer_address)
            .field("source_address", &self.source_address)
            .field("peer_port", &self.peer_port)
            .field("hold_time", &self.hold_time)
            .field("keepalive_time", &self.keepalive_time)
            .field("router_id", &self.router_id)
            .field("node_selectors", &self.node_selectors)
            .field("password", &Hidden(&self.password))
            .field("bfd_profile", &self.bfd_profile)
            .field("ebgp_multi_hop", &self.ebgp_multi_hop)
            .finish()
    }
}

/// A secret in Debug output: whether it is there, never what it is.
pub(super) struct Hidden<'a>(pub(super) &'a str);

impl fmt::Debug for Hidden<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "unset" } else { "set" })
    }
}
