//! What a peer should be.

use std::{fmt, net::Ipv4Addr, time::Duration};

use super::super::{
    AddPath, AfiSafi, Asn, Capability, Families, Family, GracefulRestart, LocalRole, LongLived,
    Open,
};

/// Which AS the peer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteAs {
    /// This one.
    Number(Asn),
    /// Ours.
    Internal,
    /// Any but ours.
    External,
    /// Any.
    Any,
}

impl RemoteAs {
    pub(super) fn accepts(self, local: Asn, found: Asn) -> bool {
        match self {
            Self::Number(wanted) => wanted == found,
            Self::Internal => local == found,
            Self::External => local != found,
            Self::Any => true,
        }
    }
}

impl fmt::Display for RemoteAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(asn) => write!(f, "{asn}"),
            Self::Internal => f.write_str("our own"),
            Self::External => f.write_str("another than ours"),
            Self::Any => f.write_str("any"),
        }
    }
}

/// Graceful restart as we offer it (RFC 4724, 8538, 9494). It also makes us the peer's helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Graceful {
    /// Seconds until we are back; below 4096.
    pub restart_time: u16,
    /// R: we come from a restart. It is said until a session has been established.
    pub restarting: bool,
    /// Families that the peer is asked to keep; none: we only help.
    pub families: Families,
    /// F: families whose forwarding we kept over the restart.
    pub forwarding: Families,
    /// Seconds of long-lived graceful restart that we ask for (0: we only help); `None`: without it.
    pub long_lived: Option<u32>,
    /// How long a peer that is back may take to its End-of-RIB.
    pub stale_time: Duration,
}

/// A peer's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The AS that we are to this peer.
    pub local_as: Asn,
    /// Our router ID.
    pub router_id: Ipv4Addr,
    /// The peer's AS.
    pub remote_as: RemoteAs,
    /// Families that we offer.
    pub families: Families,
    /// Seconds: 0 or at least 3.
    pub hold_time: u16,
    /// Between KEEPALIVEs; a third of the hold time is the longest.
    pub keepalive_time: Option<Duration>,
    /// Longest time between attempts. The first comes after a second, each further one after twice
    /// the time.
    pub connect_retry: Duration,
    /// How long one attempt may take.
    pub connect_timeout: Duration,
    /// We wait for the peer to connect.
    pub passive: bool,
    /// The connection has a password: said where nobody answers.
    pub password: bool,
    /// Packets with a smaller TTL are dropped (RFC 5082): said where the peer is not heard.
    pub minimum_ttl: Option<u8>,
    /// Offer IPv6 next hops for IPv4 (RFC 8950).
    pub extended_next_hop: bool,
    /// Families in which we take several paths.
    pub add_path_receive: Families,
    /// Families in which we want to send them.
    pub add_path_send: Families,
    /// Graceful restart, if offered.
    pub graceful: Option<Graceful>,
    /// Our role, if one is told (RFC 9234). Only towards another AS.
    pub role: Option<LocalRole>,
    /// Our host name, if told.
    pub host: Option<String>,
    /// See [`Codec::disable_families`](super::super::Codec::disable_families).
    pub disable_families: bool,
}

impl Config {
    /// With the defaults of FRR's profile `traditional`, which MetalLB uses.
    pub fn new(local_as: Asn, router_id: Ipv4Addr, remote_as: RemoteAs) -> Self {
        Self {
            local_as,
            router_id,
            remote_as,
            families: Families::ALL,
            hold_time: 180,
            keepalive_time: None,
            connect_retry: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(10),
            passive: false,
            password: false,
            minimum_ttl: None,
            extended_next_hop: false,
            add_path_receive: Families::NONE,
            add_path_send: Families::NONE,
            graceful: None,
            role: None,
            host: None,
            disable_families: false,
        }
    }

    /// The OPEN that it means, its capabilities in FRR's order.
    pub fn open(&self) -> Open {
        let pairs = |families: Families| families.iter().map(AfiSafi::from);
        let mut capabilities: Vec<Capability> = pairs(self.families)
            .map(Capability::Multiprotocol)
            .collect();
        if self.extended_next_hop && self.families.contains(Family::Ipv4) {
            let family = (Family::Ipv4.into(), Family::Ipv6.afi());
            capabilities.push(Capability::ExtendedNextHop(vec![family]));
        }
        capabilities.extend([
            Capability::CiscoRouteRefresh,
            Capability::RouteRefresh,
            Capability::EnhancedRefresh,
            Capability::FourOctetAs(self.local_as),
            Capability::ExtendedMessage,
        ]);
        let role = self.role.map(|it| Capability::Role(it.role as u8));
        capabilities.extend(role);
        let modes: Vec<(AfiSafi, AddPath)> = self
            .families
            .iter()
            .map(|family| {
                let mode = AddPath {
                    receive: self.add_path_receive.contains(family),
                    send: self.add_path_send.contains(family),
                };
                (AfiSafi::from(family), mode)
            })
            .filter(|(_, mode)| mode.receive || mode.send)
            .collect();
        if !modes.is_empty() {
            capabilities.push(Capability::AddPath(modes));
        }
        if let Some(host) = &self.host {
            let domain = String::new();
            let host = host.clone();
            capabilities.push(Capability::Fqdn { host, domain });
        }
        if let Some(graceful) = &self.graceful {
            let families = graceful.families.and(self.families);
            let kept = |family: Family| graceful.forwarding.contains(family);
            capabilities.push(Capability::GracefulRestart(GracefulRestart {
                restarting: graceful.restarting,
                notification: true,
                restart_time: graceful.restart_time,
                families: families
                    .iter()
                    .map(|family| (family.into(), kept(family)))
                    .collect(),
            }));
            if let Some(stale_time) = graceful.long_lived {
                let of = |family: Family| LongLived {
                    family: family.into(),
                    forwarding: kept(family),
                    stale_time,
                };
                capabilities.push(Capability::LongLived(families.iter().map(of).collect()));
            }
        }
        Open {
            asn: self.local_as,
            hold_time: self.hold_time,
            identifier: self.router_id,
            capabilities,
        }
    }
}
