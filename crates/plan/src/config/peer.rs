//! BGPPeer → [`Peer`]: the rules of one object, and those of peers that share a node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use api::corten::v1alpha1::{LinkBandwidth, Role};
use api::duration::Duration;
use api::metallb::{BGPPeerSpec, DynamicAsn};
use serde::{Deserialize, Serialize};

use super::context::Context;
use super::receive::Receive;
use super::selector::Selector;
use super::verdict::Findings;
use crate::name::Name;

const SECOND: i64 = 1_000_000_000;

/// A router to hold a session with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: Name,
    /// AS number of our side.
    pub my_asn: u32,
    /// AS number of its side.
    pub remote: RemoteAs,
    /// AS number that replaces ours towards it.
    pub local_asn: Option<u32>,
    /// Where it is.
    pub neighbour: Neighbour,
    /// Source address of the session.
    pub source: Option<IpAddr>,
    /// Its TCP port.
    pub port: u16,
    /// Hold and keepalive time; `None`: the defaults of the speaker.
    pub timers: Option<Timers>,
    /// Seconds between attempts to connect; `None`: the default of the speaker.
    pub connect_seconds: Option<u16>,
    /// Router ID of our side; `None`: the node's own.
    pub router_id: Option<Ipv4Addr>,
    /// Nodes that hold the session; empty: all.
    pub node_selectors: Vec<Selector>,
    /// TCP MD5 password.
    pub password: Password,
    /// The BFD profile of the session; it is one of those in force.
    pub bfd_profile: Option<Name>,
    /// Graceful restart is offered.
    pub graceful_restart: bool,
    /// It is more than one hop away.
    pub multihop: bool,
    /// VRF on the host.
    pub vrf: Option<Name>,
    /// The session carries routes of both families.
    pub dual_stack: bool,
    /// GTSM (RFC 5082): how many hops packets of it may have come.
    pub ttl_security: Option<u8>,
    /// Form of the link bandwidth community towards it.
    pub link_bandwidth: LinkBandwidth,
    /// Next hops in place of the session's own addresses.
    pub next_hop: NextHops,
    /// The local port that it connects to; `None`: we connect to it.
    pub listen: Option<u16>,
    /// A hub: it gets the next hops of all nodes.
    pub add_path: bool,
    /// Our role towards it; `None`: none is told.
    pub role: Option<LocalRole>,
    /// Routes to take from it; `None`: none.
    pub receive: Option<Receive>,
    /// A cordoned node stops advertising to it, gracefully.
    pub drain_on_cordon: bool,
}

/// Next hops in place of the session's own addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHops {
    /// Of IPv4 prefixes.
    pub ipv4: Option<IpAddr>,
    /// Of IPv6 prefixes.
    pub ipv6: Option<Ipv6Addr>,
}

/// What we are to a neighbour (RFC 9234).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalRole {
    /// The role.
    pub role: Role,
    /// The neighbour must say its own.
    pub strict: bool,
}

/// The AS number that a neighbour must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RemoteAs {
    /// This one.
    Number(u32),
    /// Ours.
    Internal,
    /// Any but ours.
    External,
}

impl RemoteAs {
    /// Whether that is also ours.
    pub fn is_internal(self, asn: u32) -> bool {
        match self {
            Self::Number(number) => number == asn,
            Self::Internal => true,
            Self::External => false,
        }
    }
}

/// Where a neighbour is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Neighbour {
    /// At this address.
    Address(IpAddr),
    /// At the other end of this interface (unnumbered).
    Interface(Name),
}

/// Hold and keepalive time in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timers {
    /// 0 (no hold time), or 3 and more.
    pub hold: u16,
    /// At most the hold time.
    pub keepalive: u16,
}

/// Where a password is to be had. It is never here itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Password {
    /// There is none.
    #[default]
    None,
    /// In the peer's object: [`super::Compiled::password`]. The digest changes with it.
    Inline {
        /// [`super::password_digest`].
        digest: String,
    },
    /// In a Secret: [`crate::world::World::password`].
    Secret {
        /// Its name, in the namespace of the configuration.
        name: Name,
        /// [`super::password_digest`]; `None`: it cannot be had just now, and a session that is
        /// there goes on with the one it has.
        digest: Option<String>,
    },
}

impl Peer {
    /// Whether a node with these labels holds the session.
    pub fn on_node(&self, labels: &crate::world::Labels) -> bool {
        super::chooses(&self.node_selectors, labels)
    }
}

/// What MetalLB demands of a BGPPeer in any of its modes with FRR. `None`: not even a draft.
pub(super) fn check(
    name: &str,
    namespace: &str,
    spec: &BGPPeerSpec,
    found: &mut Findings,
) -> Option<Peer> {
    if spec.my_asn == 0 {
        found.error(
            "spec.myASN",
            "missing local ASN",
            "set myASN to the cluster's AS number",
        );
    }
    let remote = match (spec.peer_asn, spec.dynamic_asn) {
        (0, None) => {
            found.error(
                "spec.peerASN",
                "missing peer ASN and dynamicASN",
                "set peerASN, or dynamicASN to internal or external",
            );
            None
        }
        (0, Some(DynamicAsn::Internal)) => Some(RemoteAs::Internal),
        (0, Some(DynamicAsn::External)) => Some(RemoteAs::External),
        (asn, None) => Some(RemoteAs::Number(asn)),
        (_, Some(_)) => {
            found.error(
                "spec.dynamicASN",
                "both peer ASN and dynamicASN specified",
                "leave out one of the two",
            );
            None
        }
    };
    if spec.local_asn == Some(0) {
        found.error(
            "spec.localASN",
            "invalid local ASN 0",
            "set 1 or more, or leave it out",
        );
    }
    let neighbour = neighbour(spec, found);
    let source = ip(
        "spec.sourceAddress",
        "source IP",
        &spec.source_address,
        found,
    );
    let router_id = match ip("spec.routerID", "router ID", &spec.router_id, found) {
        Some(IpAddr::V6(id)) => {
            found.error(
                "spec.routerID",
                format!("invalid router ID \"{id}\": it has 32 bits"),
                "write it as an IPv4 address",
            );
            None
        }
        Some(IpAddr::V4(id)) => Some(id),
        None => None,
    };
    if !(1..=16384).contains(&spec.peer_port) {
        found.error(
            "spec.peerPort",
            format!(
                "invalid port {}, must be in the range 1-16384",
                spec.peer_port
            ),
            "choose a port in the range; 179 is the default",
        );
    }
    let timers = timers(spec.hold_time, spec.keepalive_time, found);
    let connect_seconds = connect_time(spec.connect_time, found);
    let node_selectors = found.selectors("spec.nodeSelectors", &spec.node_selectors);
    if !spec.password.is_empty() && !spec.password_secret.name.is_empty() {
        found.error(
            "spec.passwordSecret",
            "can not have both password and secret ref set",
            "leave out spec.password",
        );
    }
    for (field, text) in [
        ("interface", &spec.interface),
        ("vrf", &spec.vrf),
        ("password", &spec.password),
    ] {
        if text.contains(['\n', '\r']) {
            found.error(
                format!("spec.{field}"),
                format!("{field} for peer \"{namespace}/{name}\" contains invalid characters"),
                "write it on one line",
            );
        }
    }
    if spec.ebgp_multi_hop && spec.peer_asn == spec.my_asn && spec.my_asn != 0 {
        found.error(
            "spec.ebgpMultiHop",
            "invalid ebgp-multihop parameter set for an ibgp peer",
            "leave it out: sessions within one AS may be many hops long anyway",
        );
    }
    if spec.disable_mp {
        found.warning(
            "spec.disableMP",
            "disableMP is deprecated and has no effect",
            "leave it out",
        );
    }
    Some(Peer {
        name: name.into(),
        my_asn: spec.my_asn,
        remote: remote?,
        local_asn: spec.local_asn,
        neighbour: neighbour?,
        source,
        port: spec.peer_port,
        timers,
        connect_seconds,
        router_id,
        node_selectors,
        password: if !spec.password_secret.name.is_empty() {
            Password::Secret {
                name: spec.password_secret.name.as_str().into(),
                digest: None,
            }
        } else if spec.password.is_empty() {
            Password::None
        } else {
            Password::Inline {
                digest: super::password_digest(namespace, name, spec.password.as_bytes()),
            }
        },
        bfd_profile: named(&spec.bfd_profile),
        graceful_restart: spec.enable_graceful_restart,
        multihop: spec.ebgp_multi_hop,
        vrf: named(&spec.vrf),
        dual_stack: spec.dual_stack_address_family,
        ttl_security: None,
        link_bandwidth: LinkBandwidth::Transitive,
        next_hop: NextHops::default(),
        listen: None,
        add_path: false,
        role: None,
        receive: None,
        drain_on_cordon: false,
    })
}

fn named(text: &str) -> Option<Name> {
    (!text.is_empty()).then(|| text.into())
}

fn neighbour(spec: &BGPPeerSpec, found: &mut Findings) -> Option<Neighbour> {
    match (spec.peer_address.as_str(), spec.interface.as_str()) {
        ("", "") => {
            found.error(
                "spec.peerAddress",
                "missing peer address and interface: peer has no Address or Interface specified",
                "set peerAddress, or interface for an unnumbered session",
            );
            None
        }
        ("", interface) => Some(Neighbour::Interface(interface.into())),
        (address, "") => {
            ip("spec.peerAddress", "BGPPeer address", address, found).map(Neighbour::Address)
        }
        _ => {
            found.error(
                "spec.interface",
                "both peer address and interface: peer has both Address and Interface specified",
                "leave out one of the two",
            );
            None
        }
    }
}

/// The address in a field; none if it is empty or wrong.
pub(super) fn ip(field: &str, what: &str, text: &str, found: &mut Findings) -> Option<IpAddr> {
    if text.is_empty() {
        return None;
    }
    let address = text.parse().ok();
    if address.is_none() {
        found.error(
            field,
            format!("invalid {what} {text:?}"),
            "write an IPv4 or IPv6 address",
        );
    }
    address
}

fn connect_time(time: Option<Duration>, found: &mut Findings) -> Option<u16> {
    let time = time?;
    let nanos = time.as_nanos();
    let seconds = (nanos % SECOND == 0).then_some(nanos / SECOND);
    let seconds = seconds.and_then(|seconds| u16::try_from(seconds).ok());
    match seconds {
        Some(1..) => seconds,
        _ => {
            found.error(
                "spec.connectTime",
                format!("invalid connect time {time}: must be whole seconds from 1s to 65535s"),
                "choose whole seconds",
            );
            None
        }
    }
}

/// Hold time 0 or at least 3 s, in whole seconds; keepalive not above it. One alone gives the
/// other.
fn timers(
    hold: Option<Duration>,
    keepalive: Option<Duration>,
    found: &mut Findings,
) -> Option<Timers> {
    let negative = |time: &Option<Duration>| time.is_some_and(|time| time.as_nanos() < 0);
    let (hold_nanos, keepalive_nanos) = match (hold, keepalive) {
        (None, None) => return None,
        (Some(hold), Some(keepalive)) => (hold.as_nanos(), keepalive.as_nanos()),
        (Some(hold), None) => (hold.as_nanos(), hold.as_nanos() / 3),
        (None, Some(keepalive)) => (keepalive.as_nanos().saturating_mul(3), keepalive.as_nanos()),
    };
    let seconds = hold_nanos / SECOND;
    if negative(&hold) || negative(&keepalive) || (seconds != 0 && seconds < 3) {
        found.error(
            "spec.holdTime",
            format!(
                "invalid hold time {}: must be 0 or >=3s",
                Duration::from_nanos(hold_nanos)
            ),
            "choose 3s or more, or 0s for no hold time",
        );
        return None;
    }
    if keepalive_nanos > hold_nanos {
        found.error(
            "spec.keepaliveTime",
            format!(
                "invalid keepaliveTime {}, must be lower than holdTime {}",
                Duration::from_nanos(keepalive_nanos),
                Duration::from_nanos(hold_nanos)
            ),
            "choose a third of the hold time",
        );
        return None;
    }
    let Ok(hold) = u16::try_from(seconds) else {
        found.error(
            "spec.holdTime",
            format!(
                "invalid hold time {}: the protocol has room for 65535s",
                Duration::from_nanos(hold_nanos)
            ),
            "choose 65535s or less",
        );
        return None;
    };
    let keepalive = u16::try_from(keepalive_nanos / SECOND).unwrap_or(hold);
    Some(Timers {
        hold,
        // Less than a second is no reason to send none.
        keepalive: if hold == 0 { 0 } else { keepalive.max(1) },
    })
}

/// Two peers that one node holds, as MetalLB's modes with FRR want them. `older` is in force.
pub(super) fn check_pair(peer: &Peer, older: &Peer, context: &Context<'_>, found: &mut Findings) {
    let other = &older.name;
    let same_node = context.share_node(&peer.node_selectors, &older.node_selectors);
    if same_wishes(peer, older) {
        found.error(
            "spec",
            format!(
                "peer {} already exists: the older peer {other:?} has the same spec",
                peer.name
            ),
            "leave out one of the two",
        );
        // With FRR MetalLB compares the peers of a node before it compares all peers.
        found.upstream(match same_node && !context.native_bgp {
            true => format!("peer {} already exists, {DUPLICATE}", identity(peer)),
            false => format!("peer {} already exists", peer.name),
        });
        return;
    }
    if !same_node {
        return;
    }
    if !context.native_bgp && peer.router_id != older.router_id {
        let shown = |peer: &Peer| peer.router_id.map_or_else(String::new, |id| id.to_string());
        let unset = |text: String| match text.is_empty() {
            true => "unset".to_owned(),
            false => text,
        };
        let rule = "in FRR mode peers selecting the same node must all have the same RouterID";
        found.error(
            "spec.routerID",
            format!(
                "peer {} has RouterID different from {other}, {rule}: {} and {}",
                peer.name,
                unset(shown(peer)),
                unset(shown(older))
            ),
            "give both the same router ID, or choose nodes that they do not share",
        );
        found.upstream(format!(
            "peer {} has RouterID different from {}, {rule}",
            shown(peer),
            shown(older)
        ));
    }
    if (&peer.neighbour, &peer.vrf) == (&older.neighbour, &older.vrf) {
        let field = match &peer.neighbour {
            Neighbour::Address(_) => "spec.peerAddress",
            Neighbour::Interface(_) => "spec.interface",
        };
        let said = format!("peer {} already exists, {DUPLICATE}", identity(peer));
        found.error(
            field,
            format!("{said}: the older peer {other:?} is on the same node"),
            "leave out one of the two, or choose nodes that they do not share",
        );
        found.upstream(said);
    }
    if !context.native_bgp && peer.vrf == older.vrf && peer.my_asn != older.my_asn {
        let rule = "in FRR mode peers selecting the same node must have the same myAsn within the \
                    same VRF";
        found.error(
            "spec.myASN",
            format!(
                "peer {} has myAsn different from {other}, {rule}: {} and {}",
                peer.name, peer.my_asn, older.my_asn
            ),
            "give both the same AS number (localASN says another one to one peer), or choose \
             nodes that they do not share",
        );
        found.upstream(format!(
            "peer {} has myAsn different from {}, {rule}",
            identity(peer),
            identity(older)
        ));
    }
}

const DUPLICATE: &str = "FRR mode doesn't support duplicate BGPPeers selecting the same node";

/// What tells a peer from another towards FRR.
fn identity(peer: &Peer) -> String {
    let neighbour = match &peer.neighbour {
        Neighbour::Address(address) => address.to_string(),
        Neighbour::Interface(name) => name.to_string(),
    };
    match &peer.vrf {
        Some(vrf) => format!("{neighbour}-{vrf}"),
        None => neighbour,
    }
}

/// Equal but for the name; passwords are not compared.
fn same_wishes(a: &Peer, b: &Peer) -> bool {
    let bare = |peer: &Peer| Peer {
        name: "".into(),
        password: match &peer.password {
            Password::Inline { .. } => Password::Inline {
                digest: String::new(),
            },
            Password::Secret { name, .. } => Password::Secret {
                name: name.clone(),
                digest: None,
            },
            Password::None => Password::None,
        },
        ..peer.clone()
    };
    bare(a) == bare(b)
}
