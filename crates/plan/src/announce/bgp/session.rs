//! The parameters of a session, all choices made.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::Withheld;
use super::route::Speaker;
use crate::config::{
    BfdProfile, LocalRole, Neighbour, NextHops, Password, Peer, Receive, RemoteAs, Timers,
};
use crate::name::Name;
use crate::net::Family;

/// Where neither time is given: FRR's `traditional` profile.
pub const TIMERS: Timers = Timers {
    hold: 180,
    keepalive: 60,
};
/// Where no connect time is given: the same profile's.
pub const CONNECT_SECONDS: u16 = 120;

/// Why a node stops advertising, gracefully.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Drain {
    /// The exclude label.
    Excluded,
    /// The node's own agent says so: `corten drain`, or the node shuts down.
    Asked,
    /// The node is cordoned, and the peer wants no routes of such nodes.
    Cordoned,
}

impl fmt::Display for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Excluded => "the node is excluded from external load balancers",
            Self::Asked => "the node drains",
            Self::Cordoned => "the node is cordoned",
        })
    }
}

impl From<Drain> for Withheld {
    fn from(drain: Drain) -> Self {
        match drain {
            Drain::Excluded => Self::NodeLabeledExcludeBalancers,
            Drain::Asked | Drain::Cordoned => Self::NodeDraining,
        }
    }
}

/// The families whose routes a session carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Families {
    /// IPv4 unicast.
    pub ipv4: bool,
    /// IPv6 unicast.
    pub ipv6: bool,
}

impl Families {
    /// Both on unnumbered sessions and where it is asked for, else the session's own.
    pub(super) fn of(peer: &Peer) -> Self {
        let both = Self {
            ipv4: true,
            ipv6: true,
        };
        match peer.neighbour {
            Neighbour::Interface(_) => both,
            Neighbour::Address(_) if peer.dual_stack => both,
            Neighbour::Address(address) => Self {
                ipv4: address.is_ipv4(),
                ipv6: address.is_ipv6(),
            },
        }
    }

    /// Whether routes of `family` are carried.
    pub const fn carries(self, family: Family) -> bool {
        match family {
            Family::V4 => self.ipv4,
            Family::V6 => self.ipv6,
        }
    }
}

/// What a session is to be like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSession {
    /// Where the neighbour is.
    pub neighbour: Neighbour,
    /// Its TCP port.
    pub port: u16,
    /// Source address.
    pub source: Option<IpAddr>,
    /// VRF on the host: the device that sockets are bound to.
    pub vrf: Option<Name>,
    /// Our AS number towards it, in the OPEN and in paths; `localASN` replaces `myASN`.
    pub asn: u32,
    /// The AS number that it must have.
    pub remote: RemoteAs,
    /// Our router ID.
    pub router_id: Ipv4Addr,
    /// Hold time to offer, and keepalive time.
    pub timers: Timers,
    /// Seconds between attempts to connect.
    pub connect_seconds: u16,
    /// Where the TCP MD5 password is to be had. That of a Secret may go and come again while a
    /// session lives: whether it is another one is for the executor to say, which has it.
    pub password: Password,
    /// BFD, with the profile's settings.
    pub bfd: Option<BfdProfile>,
    /// Graceful restart is offered.
    pub graceful_restart: bool,
    /// `ebgpMultiHop`: BFD and the choice of next hop know it too.
    pub multihop: bool,
    /// TTL or hop limit of what is sent.
    pub ttl: u8,
    /// GTSM: the least TTL or hop limit of what is taken.
    pub minimum_ttl: Option<u8>,
    /// Families to offer.
    pub families: Families,
    /// Next hops in place of the session's own addresses.
    pub next_hop: NextHops,
    /// The local port that the neighbour connects to; `None`: we connect to it.
    pub listen: Option<u16>,
    /// A hub: it gets the next hops of all nodes (RFC 7911).
    pub add_path: bool,
    /// Our role; `None`: none is told.
    pub role: Option<LocalRole>,
    /// Routes to take; `None`: none.
    pub receive: Option<Receive>,
}

/// What it takes to bring a session from one form to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SessionChange {
    /// Nothing.
    Nothing,
    /// It stays up: BFD, TTL or timers are set anew, all routes are sent or asked for anew, or only
    /// later attempts differ.
    Live,
    /// It has to be closed and opened again, with the same neighbour: with graceful restart that
    /// keeps our routes meanwhile.
    Reopen,
    /// The neighbour is another one, or we are another one to it: closed for good, so that the old
    /// one keeps nothing.
    Replace,
}

impl PeerSession {
    pub(super) fn of(speaker: &Speaker<'_>, peer: &Peer) -> Self {
        let asn = peer.local_asn.unwrap_or(peer.my_asn);
        let internal = peer.remote.is_internal(asn);
        let far = internal || peer.multihop || peer.ttl_security.is_some();
        Self {
            neighbour: peer.neighbour.clone(),
            port: peer.port,
            source: peer.source,
            vrf: peer.vrf.clone(),
            asn,
            remote: peer.remote,
            router_id: peer.router_id.unwrap_or_else(|| own_router_id(speaker)),
            timers: peer.timers.unwrap_or(TIMERS),
            connect_seconds: peer.connect_seconds.unwrap_or(CONNECT_SECONDS),
            password: peer.password.clone(),
            bfd: speaker.world.config().bgp.profile_of(peer).cloned(),
            graceful_restart: peer.graceful_restart,
            multihop: peer.multihop,
            // FRR's: one hop to external neighbours on the link.
            ttl: if far { u8::MAX } else { 1 },
            // One hop leaves 255 untouched.
            minimum_ttl: peer.ttl_security.map(|hops| u8::MAX - hops.max(1) + 1),
            families: Families::of(peer),
            next_hop: peer.next_hop,
            listen: peer.listen,
            add_path: peer.add_path,
            role: peer.role,
            receive: peer.receive.clone(),
        }
    }

    /// Whether the neighbour is of our AS.
    pub fn internal(&self) -> bool {
        self.remote.is_internal(self.asn)
    }

    /// What it takes to come to `wanted`.
    pub fn change_to(&self, wanted: &Self) -> SessionChange {
        // By what both sides know each other.
        let identity = |it: &Self| {
            let ends = (it.neighbour.clone(), it.port, it.source, it.vrf.clone());
            (ends, it.asn, it.remote)
        };
        // What stays out of the OPEN and can be changed on an open connection.
        let fixed = |it: &Self| Self {
            connect_seconds: 0,
            bfd: None,
            next_hop: NextHops::default(),
            receive: None,
            multihop: false,
            ttl: 0,
            minimum_ttl: None,
            timers: Timers {
                keepalive: 0,
                ..it.timers
            },
            password: match &it.password {
                Password::Secret { name, .. } => Password::Secret {
                    name: name.clone(),
                    digest: None,
                },
                other => other.clone(),
            },
            ..it.clone()
        };
        if self == wanted {
            SessionChange::Nothing
        } else if identity(self) != identity(wanted) {
            SessionChange::Replace
        } else if fixed(self) == fixed(wanted) {
            SessionChange::Live
        } else {
            SessionChange::Reopen
        }
    }
}

/// The node's first IPv4 address; without one, as MetalLB, a hash of its name.
fn own_router_id(speaker: &Speaker<'_>) -> Ipv4Addr {
    let addresses = speaker.node.addresses.iter();
    let first = addresses.filter_map(|address| match address {
        IpAddr::V4(address) if !address.is_unspecified() => Some(*address),
        _ => None,
    });
    first
        .into_iter()
        .next()
        .unwrap_or_else(|| Ipv4Addr::from(crc32(speaker.me.as_bytes()).max(1)))
}

/// CRC-32 as in IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = crc & 1;
            crc = (crc >> 1) ^ (0xedb8_8320 * carry);
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    #[test]
    fn crc() {
        // The check value of the algorithm.
        assert_eq!(super::crc32(b"123456789"), 0xcbf4_3926);
    }
}
