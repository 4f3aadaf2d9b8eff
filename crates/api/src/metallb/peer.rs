//! `BGPPeer`, version v1beta2: a router to hold a session with.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::de::is_default;
use crate::duration::Duration;
use crate::kind::kind;
use crate::meta::{LabelSelector, ObjectMeta};

/// A BGP neighbour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct BGPPeer {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: BGPPeerSpec,
}
kind!(BGPPeer, "metallb.io", "v1beta2", "bgppeers", true, [spec]);

/// BGPPeerSpec defines the desired state of BGPPeer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "crds", schemars(extend("required" = ["myASN"])))]
#[serde(rename_all = "camelCase", default)]
pub struct BGPPeerSpec {
    /// AS number of the cluster's side.
    #[serde(rename = "myASN")]
    pub my_asn: u32,
    /// AS number of the neighbour. Exclusive with dynamicASN; one of them must be set.
    #[serde(rename = "peerASN", skip_serializing_if = "is_default")]
    pub peer_asn: u32,
    /// Takes the neighbour's AS number from its OPEN: internal accepts myASN only, external any
    /// other. Exclusive with peerASN.
    #[serde(rename = "dynamicASN", skip_serializing_if = "Option::is_none")]
    pub dynamic_asn: Option<DynamicAsn>,
    /// AS number that replaces myASN towards this neighbour.
    #[serde(rename = "localASN", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crds", schemars(range(min = 1, max = 4_294_967_295_u32)))]
    pub local_asn: Option<u32>,
    /// Address of the neighbour. Exclusive with interface; one of them must be set.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub peer_address: String,
    /// Interface to reach the neighbour over, without addresses (BGP unnumbered). Exclusive with
    /// peerAddress.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub interface: String,
    /// Source address of the session.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source_address: String,
    /// Port of the neighbour.
    #[serde(skip_serializing_if = "is_179")]
    #[cfg_attr(feature = "crds", schemars(range(min = 1, max = 16384), extend("x-default" = 179)))]
    pub peer_port: u16,
    /// Hold time, as RFC 4271 has it: 0, or 3 seconds and more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_time: Option<Duration>,
    /// Keepalive time, at most the hold time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive_time: Option<Duration>,
    /// How long to wait between attempts to connect, in whole seconds from 1 to 65535.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_time: Option<Duration>,
    /// Router ID of the cluster's side.
    #[serde(rename = "routerID", skip_serializing_if = "String::is_empty")]
    pub router_id: String,
    /// Nodes that hold a session with the neighbour. When empty, all nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node_selectors: Vec<LabelSelector>,
    /// TCP MD5 password (RFC 2385). Exclusive with passwordSecret.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// Secret of type kubernetes.io/basic-auth in MetalLB's namespace whose key password is the
    /// TCP MD5 password. Exclusive with password.
    #[serde(skip_serializing_if = "is_default")]
    pub password_secret: SecretReference,
    /// Name of the BFDProfile of the session. When empty, no BFD.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bfd_profile: String,
    /// Whether graceful restart (RFC 4724) is offered. Cannot be changed.
    #[serde(skip_serializing_if = "is_default")]
    pub enable_graceful_restart: bool,
    /// Whether the neighbour is more than one hop away.
    #[serde(rename = "ebgpMultiHop", skip_serializing_if = "is_default")]
    pub ebgp_multi_hop: bool,
    /// VRF on the host that the session is held in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vrf: String,
    /// Deprecated, without effect: IPv4 and IPv6 routes are carried by sessions of their family
    /// unless dualStackAddressFamily is set.
    #[serde(rename = "disableMP", skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "crds", schemars(extend("x-default" = false)))]
    pub disable_mp: bool,
    /// Whether one session carries IPv4 and IPv6 routes.
    #[serde(skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "crds", schemars(extend("x-default" = false)))]
    pub dual_stack_address_family: bool,
}

impl Default for BGPPeerSpec {
    fn default() -> Self {
        Self {
            my_asn: 0,
            peer_asn: 0,
            dynamic_asn: None,
            local_asn: None,
            peer_address: String::new(),
            interface: String::new(),
            source_address: String::new(),
            peer_port: 179,
            hold_time: None,
            keepalive_time: None,
            connect_time: None,
            router_id: String::new(),
            node_selectors: Vec::new(),
            password: String::new(),
            password_secret: SecretReference::default(),
            bfd_profile: String::new(),
            enable_graceful_restart: false,
            ebgp_multi_hop: false,
            vrf: String::new(),
            disable_mp: false,
            dual_stack_address_family: false,
        }
    }
}

impl fmt::Debug for BGPPeerSpec {
    /// Everything but the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BGPPeerSpec")
            .field("my_asn", &self.my_asn)
            .field("peer_asn", &self.peer_asn)
            .field("dynamic_asn", &self.dynamic_asn)
            .field("local_asn", &self.local_asn)
            .field("peer_address", &self.peer_address)
            .field("interface", &self.interface)
            .field("source_address", &self.source_address)
            .field("peer_port", &self.peer_port)
            .field("hold_time", &self.hold_time)
            .field("keepalive_time", &self.keepalive_time)
            .field("connect_time", &self.connect_time)
            .field("router_id", &self.router_id)
            .field("node_selectors", &self.node_selectors)
            .field("password", &super::peer_v1beta1::Hidden(&self.password))
            .field("password_secret", &self.password_secret)
            .field("bfd_profile", &self.bfd_profile)
            .field("enable_graceful_restart", &self.enable_graceful_restart)
            .field("ebgp_multi_hop", &self.ebgp_multi_hop)
            .field("vrf", &self.vrf)
            .field("disable_mp", &self.disable_mp)
            .field("dual_stack_address_family", &self.dual_stack_address_family)
            .finish()
    }
}

/// How an AS number is taken from the neighbour's OPEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum DynamicAsn {
    /// Only myASN.
    Internal,
    /// Any other than myASN.
    External,
}

/// Names a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "crds", schemars(extend("x-kubernetes-map-type" = "atomic")))]
#[serde(default)]
pub struct SecretReference {
    /// Name of the Secret.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Namespace of the Secret.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

fn is_179(value: &u16) -> bool {
    *value == 179
}
