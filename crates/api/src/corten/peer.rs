//! `Peer`: a router to hold a BGP session with.

use serde::{Deserialize, Serialize};

use super::v1alpha1::ObjectStatus;
use crate::de::is_default;
use crate::duration::Duration;
use crate::kind::kind;
use crate::meta::{LabelSelector, ObjectMeta};
use crate::metallb::DynamicAsn;

/// A BGP neighbour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Peer {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: PeerSpec,
    /// What is.
    pub status: ObjectStatus,
}
kind!(
    Peer,
    "corten.dev",
    "v1alpha1",
    "peers",
    true,
    [spec, status]
);

/// What a Peer wants. A password stands in a Secret, never here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "crds", schemars(extend("required" = ["myASN"])))]
#[serde(rename_all = "camelCase", default)]
pub struct PeerSpec {
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
    #[cfg_attr(feature = "crds", schemars(range(min = 1, max = 65535), extend("x-default" = 179)))]
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
    /// Router ID of the cluster's side, written as an IPv4 address.
    #[serde(rename = "routerID", skip_serializing_if = "String::is_empty")]
    pub router_id: String,
    /// Nodes that hold a session with the neighbour. When empty, all nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node_selectors: Vec<LabelSelector>,
    /// Secret of type kubernetes.io/basic-auth in the same namespace whose key password is the
    /// TCP MD5 password (RFC 2385).
    #[serde(skip_serializing_if = "is_default")]
    pub password_secret: SecretName,
    /// Name of the BFDProfile of the session. When empty, no BFD.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bfd_profile: String,
    /// Whether graceful restart (RFC 4724) is offered.
    #[serde(skip_serializing_if = "is_default")]
    pub graceful_restart: bool,
    /// Whether the neighbour is more than one hop away.
    #[serde(skip_serializing_if = "is_default")]
    pub multihop: bool,
    /// VRF on the host that the session is held in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vrf: String,
    /// Whether one session carries IPv4 and IPv6 routes.
    #[serde(skip_serializing_if = "is_default")]
    pub dual_stack: bool,
    /// Most hops that packets of the neighbour may have come (GTSM, RFC 5082); both sides must
    /// want it. Exclusive with multihop.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "crds", schemars(range(min = 1, max = 254)))]
    pub ttl_security_hops: Option<u8>,
    /// Waits for the neighbour to connect, in place of connecting to it. Exclusive with
    /// interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<Listen>,
    /// Next hops to advertise in place of the session's own addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<NextHop>,
    /// Whether several next hops of one prefix are sent (RFC 7911), for a route reflector or
    /// another speaker that carries on the routes of all nodes.
    #[serde(skip_serializing_if = "is_default")]
    pub add_path: bool,
    /// Form of the link bandwidth community that the neighbour understands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_bandwidth: Option<LinkBandwidth>,
    /// What the cluster's side is to the neighbour (RFC 9234), told to it and checked against its
    /// own role, if it says one. Only for neighbours of another AS. When unset, none is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Whether the session is refused to a neighbour that says no role. Needs role.
    #[serde(skip_serializing_if = "is_default")]
    pub strict_role: bool,
    /// Routes to take from the neighbour. When unset, none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receive: Option<ReceivePolicy>,
    /// Whether a cordoned node withdraws its routes gracefully.
    #[serde(skip_serializing_if = "is_default")]
    pub drain_on_cordon: bool,
}

impl Default for PeerSpec {
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
            password_secret: SecretName::default(),
            bfd_profile: String::new(),
            graceful_restart: false,
            multihop: false,
            vrf: String::new(),
            dual_stack: false,
            ttl_security_hops: None,
            listen: None,
            next_hop: None,
            add_path: false,
            link_bandwidth: None,
            role: None,
            strict_role: false,
            receive: None,
            drain_on_cordon: false,
        }
    }
}

/// Names a Secret in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "crds", schemars(extend("required" = ["name"])))]
#[serde(default)]
pub struct SecretName {
    /// Name of the Secret.
    pub name: String,
}

/// Where a neighbour's connection is waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "crds", schemars(extend("required" = ["port"])))]
#[serde(default)]
pub struct Listen {
    /// Local TCP port; not 179 where another speaker has it.
    #[cfg_attr(feature = "crds", schemars(range(min = 1, max = 65535)))]
    pub port: u16,
}

/// Next hops to advertise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct NextHop {
    /// Of IPv4 prefixes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ipv4: String,
    /// Of IPv6 prefixes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ipv6: String,
}

/// Form of the link bandwidth community (RFC 10005).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
pub enum LinkBandwidth {
    /// Type byte 0x00.
    Transitive,
    /// Type byte 0x40.
    NonTransitive,
}

/// What one side of a session is to the other (RFC 9234).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
pub enum Role {
    /// Gives transit.
    Provider,
    /// A route server.
    RouteServer,
    /// Of a route server.
    RouteServerClient,
    /// Takes transit: what a cluster usually is to its router.
    Customer,
    /// Of equal rank.
    Peer,
}

/// Which routes of a neighbour are taken, and where to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "crds", schemars(extend("required" = ["prefixes"])))]
#[serde(rename_all = "camelCase", default)]
pub struct ReceivePolicy {
    /// Prefixes whose routes, and more specific ones, are taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "crds", schemars(length(min = 1)))]
    pub prefixes: Vec<String>,
    /// The most routes of each family; the session ends when there are more. 0 means no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub max_prefixes: u32,
    /// Routing table that they enter, with protocol number 155 and metric 4271. 0 means the main
    /// table; with vrf the number of its table must be given.
    #[serde(skip_serializing_if = "is_default")]
    pub table: u32,
}

fn is_179(value: &u16) -> bool {
    *value == 179
}
