//! What two OPENs agree on.

use std::{net::Ipv4Addr, time::Duration};

use super::{
    AddPath, AfiSafi, Asn, Capability, Codec, Families, Family, GracefulRestart, LongLived, Open,
    Role,
};

/// A session's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// How bytes are read and written.
    pub codec: Codec,
    /// The AS that we are to this peer.
    pub local_as: Asn,
    /// The peer's.
    pub remote_as: Asn,
    /// Our router ID.
    pub local_id: Ipv4Addr,
    /// The peer's.
    pub remote_id: Ipv4Addr,
    /// The smaller of both; zero: no timers.
    pub hold_time: Duration,
    /// The peer takes ROUTE-REFRESH.
    pub route_refresh: bool,
    /// With BoRR and EoRR.
    pub enhanced_refresh: bool,
    /// What the peer said of graceful restart, if both sides do it.
    pub graceful: Option<GracefulRestart>,
    /// What the peer said of long-lived graceful restart, if both sides do it.
    pub long_lived: Vec<LongLived>,
    /// Our role, which also says the peer's (RFC 9234), said or not.
    pub role: Option<Role>,
    /// The peer's host name.
    pub host: Option<String>,
}

impl Negotiated {
    /// Of our OPEN and theirs.
    pub fn new(ours: &Open, theirs: &Open, disable_families: bool) -> Self {
        let both = |capability: &Capability| ours.has(capability) && theirs.has(capability);
        let families = ours.families().and(theirs.families());
        let (our_paths, their_paths) = (add_paths(ours), add_paths(theirs));
        let paths = |receiver: &[(Family, AddPath)], sender: &[(Family, AddPath)]| {
            let receives = |family| {
                let it = |one: &&(Family, AddPath)| one.0 == family && one.1.receive;
                receiver.iter().any(|one| it(&one))
            };
            let sent = sender.iter().filter(|one| one.1.send && receives(one.0));
            sent.map(|one| one.0).collect::<Families>().and(families)
        };
        let codec = Codec {
            families,
            four_octet: four_octet(ours) && four_octet(theirs),
            extended_message: both(&Capability::ExtendedMessage),
            extended_next_hop: extended_next_hop(ours) && extended_next_hop(theirs),
            add_path_receive: paths(&our_paths, &their_paths),
            add_path_send: paths(&their_paths, &our_paths),
            external: ours.asn != theirs.asn,
            disable_families,
        };
        let graceful = graceful(ours).and_then(|_| graceful(theirs)).cloned();
        // RFC 9494 §3.1: without graceful restart it does not count.
        let long_lived = match (&graceful, long_lived(ours), long_lived(theirs)) {
            (Some(_), Some(_), Some(families)) => families.to_vec(),
            _ => Vec::new(),
        };
        let refresh = |open: &Open| {
            open.has(&Capability::RouteRefresh) || open.has(&Capability::CiscoRouteRefresh)
        };
        Self {
            codec,
            local_as: ours.asn,
            remote_as: theirs.asn,
            local_id: ours.identifier,
            remote_id: theirs.identifier,
            hold_time: Duration::from_secs(ours.hold_time.min(theirs.hold_time).into()),
            route_refresh: refresh(ours) && refresh(theirs),
            enhanced_refresh: both(&Capability::EnhancedRefresh),
            graceful,
            long_lived,
            role: ours.capabilities.iter().find_map(|one| match one {
                Capability::Role(number) => Role::of(*number),
                _ => None,
            }),
            host: theirs.capabilities.iter().find_map(|one| match one {
                Capability::Fqdn { host, .. } => Some(host.clone()),
                _ => None,
            }),
        }
    }

    /// Whether routes survive a NOTIFICATION that is no hard reset: both sides said N
    /// (RFC 8538 §2). `ours`: whether our OPEN did.
    pub fn notification_keeps(&self, ours: bool) -> bool {
        ours && self.graceful.as_ref().is_some_and(|it| it.notification)
    }

    /// Families that the peer asks to keep while it restarts.
    pub fn graceful_families(&self) -> Families {
        let named = self.graceful.iter().flat_map(|it| &it.families);
        let families: Families = named.filter_map(|(pair, _)| Family::of(*pair)).collect();
        families.and(self.codec.families)
    }

    /// Families whose forwarding the peer kept over its restart.
    pub fn forwarding_kept(&self) -> Families {
        let named = self.graceful.iter().flat_map(|it| &it.families);
        let kept = named.filter(|(_, forwarding)| *forwarding);
        let families: Families = kept.filter_map(|(pair, _)| Family::of(*pair)).collect();
        families.and(self.codec.families)
    }
}

fn four_octet(open: &Open) -> bool {
    let it = |one: &Capability| matches!(one, Capability::FourOctetAs(_));
    open.capabilities.iter().any(it)
}

fn graceful(open: &Open) -> Option<&GracefulRestart> {
    open.capabilities.iter().find_map(|one| match one {
        Capability::GracefulRestart(graceful) => Some(graceful),
        _ => None,
    })
}

fn long_lived(open: &Open) -> Option<&[LongLived]> {
    open.capabilities.iter().find_map(|one| match one {
        Capability::LongLived(families) => Some(families.as_slice()),
        _ => None,
    })
}

fn extended_next_hop(open: &Open) -> bool {
    let wanted = (AfiSafi::from(Family::Ipv4), Family::Ipv6.afi());
    open.capabilities.iter().any(|one| match one {
        Capability::ExtendedNextHop(families) => families.contains(&wanted),
        _ => false,
    })
}

fn add_paths(open: &Open) -> Vec<(Family, AddPath)> {
    let lists = open.capabilities.iter().filter_map(|one| match one {
        Capability::AddPath(families) => Some(families),
        _ => None,
    });
    lists
        .flatten()
        .filter_map(|(pair, mode)| Some((Family::of(*pair)?, *mode)))
        .collect()
}
