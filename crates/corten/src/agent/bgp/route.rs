//! What is planned, as the wire has it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::corten::v1alpha1::{LinkBandwidth as Form, Role as RoleForm};
use ipnet::IpNet;
use plan::announce::bgp::{Attributes, Bandwidth, PeerSession};
use plan::config::{CommunityValue, RemoteAs};
use proto::bgp::{
    AsPath, Asn, Community, ExtendedCommunity, Families, Family, LargeCommunity, LinkBandwidth,
    LocalAddresses, LocalRole, Negotiated, NextHop, Nlri, Path, Prefix, Role, fsm,
};

use super::super::interfaces::Snapshot;

/// Seconds that a peer keeps our routes while we restart: FRR's.
const RESTART_TIME: u16 = 120;
/// How long a peer that is back may take to its End-of-RIB: FRR's.
const STALE_TIME: std::time::Duration = std::time::Duration::from_secs(360);

/// The state machine's settings. `restarting`: this process follows another one, whose routes the
/// peer may still have.
pub(super) fn settings(session: &PeerSession, node: &str, restarting: bool) -> fsm::Config {
    let remote_as = match session.remote {
        RemoteAs::Number(asn) => fsm::RemoteAs::Number(Asn(asn)),
        RemoteAs::Internal => fsm::RemoteAs::Internal,
        RemoteAs::External => fsm::RemoteAs::External,
    };
    let families = families(session);
    let over_ipv6 = match &session.neighbour {
        plan::config::Neighbour::Address(ip) => ip.is_ipv6(),
        plan::config::Neighbour::Interface(_) => true,
    };
    let seconds = std::time::Duration::from_secs;
    // As FRR: without it we still help a router that restarts, which then waits for our routes
    // before it chooses (RFC 4724 §4.1).
    let kept = match session.graceful_restart {
        true => families,
        false => Families::NONE,
    };
    let graceful = fsm::Graceful {
        restart_time: RESTART_TIME,
        restarting,
        families: kept,
        // The kernel forwards on without us.
        forwarding: kept,
        // As FRR: a router that asks for it has its routes kept (RFC 9494); ours need no more than
        // the restart time.
        long_lived: session.graceful_restart.then_some(0),
        stale_time: STALE_TIME,
    };
    fsm::Config {
        families,
        hold_time: session.timers.hold,
        keepalive_time: Some(seconds(session.timers.keepalive.into())),
        connect_retry: seconds(session.connect_seconds.max(1).into()),
        password: session.password != plan::config::Password::None,
        minimum_ttl: session.minimum_ttl,
        extended_next_hop: over_ipv6 && session.families.ipv4,
        graceful: Some(graceful),
        add_path_send: match session.add_path {
            true => families,
            false => Families::NONE,
        },
        passive: session.listen.is_some(),
        role: session.role.map(|it| LocalRole {
            role: role(it.role),
            strict: it.strict,
        }),
        host: Some(node.to_owned()),
        ..fsm::Config::new(Asn(session.asn), session.router_id, remote_as)
    }
}

fn role(form: RoleForm) -> Role {
    match form {
        RoleForm::Provider => Role::Provider,
        RoleForm::RouteServer => Role::RouteServer,
        RoleForm::RouteServerClient => Role::RouteServerClient,
        RoleForm::Customer => Role::Customer,
        RoleForm::Peer => Role::Peer,
    }
}

fn families(session: &PeerSession) -> Families {
    let mut families = Families::NONE;
    if session.families.ipv4 {
        families.insert(Family::Ipv4);
    }
    if session.families.ipv6 {
        families.insert(Family::Ipv6);
    }
    families
}

/// What an open session lacks, for people; empty: nothing.
pub(super) fn missing(session: &PeerSession, agreed: &Negotiated) -> String {
    let mut lacks = Vec::new();
    let missing = families(session).without(agreed.codec.families);
    if !missing.is_empty() {
        let why = "the peer does not offer that address family";
        lacks.push(format!("without {missing}: {why}"));
    }
    let single = agreed.codec.families.without(agreed.codec.add_path_send);
    if session.add_path && !single.is_empty() {
        lacks.push(format!(
            "without add-path for {single}, so that no {single} route is sent: the peer does not take \
             several paths; remedy: have it receive them (BIRD: add paths rx), or unset addPath"
        ));
    }
    lacks.join("; ")
}

/// `None` for a length that no prefix has; World has none such.
pub(super) fn nlri(prefix: IpNet) -> Option<Nlri> {
    Some(Prefix::new(prefix.addr(), prefix.prefix_len()).ok()?.into())
}

/// What is announced of a prefix: one path, or one for each next hop of a hub's.
pub(super) fn paths(
    session: &PeerSession,
    prefix: IpNet,
    route: &Attributes,
) -> impl Iterator<Item = (Nlri, Arc<Path>)> {
    let nlri = nlri(prefix);
    let hub = nlri.filter(|_| session.add_path).map(|nlri| {
        let of_hop = |(path_id, hop): (u32, IpAddr)| {
            let mut path = path(session, prefix, route, *route.hops.get(&hop)?);
            Arc::make_mut(&mut path).next_hop = Some(match hop {
                IpAddr::V4(ip) => NextHop::V4(ip),
                IpAddr::V6(ip) => NextHop::V6(ip),
            });
            Some((Nlri { path_id, ..nlri }, path))
        };
        let all = identifiers(route).into_iter().filter_map(of_hop);
        all.collect::<Vec<_>>()
    });
    let only = nlri.filter(|_| !session.add_path);
    let only = only.map(|nlri| (nlri, path(session, prefix, route, route.bandwidth)));
    only.into_iter().chain(hub.into_iter().flatten())
}

/// A path identifier for each next hop (RFC 7911 §3 leaves them to the sender): other next hops
/// come and go without a change of it, but for those that a hash does not tell apart.
fn identifiers(route: &Attributes) -> BTreeMap<u32, IpAddr> {
    let mut found = BTreeMap::new();
    for hop in route.hops.keys() {
        let mut id = match hop {
            IpAddr::V4(ip) => ip.to_bits(),
            IpAddr::V6(ip) => ip.segments().iter().fold(0x811c_9dc5, |hash: u32, part| {
                (hash ^ u32::from(*part)).wrapping_mul(0x0100_0193)
            }),
        };
        while id == 0 || found.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        found.insert(id, *hop);
    }
    found
}

/// What is said of a route.
fn path(
    session: &PeerSession,
    prefix: IpNet,
    route: &Attributes,
    weight: Option<Bandwidth>,
) -> Arc<Path> {
    let mut communities = Vec::new();
    let mut large_communities = Vec::new();
    for community in &route.communities {
        match *community {
            CommunityValue::Standard(high, low) => communities.push(Community::new(high, low)),
            CommunityValue::Large(a, b, c) => large_communities.push(LargeCommunity {
                global: a,
                first: b,
                second: c,
            }),
        }
    }
    let bandwidth = weight.map(|weight| {
        ExtendedCommunity::link_bandwidth(LinkBandwidth {
            asn: u16::try_from(session.asn).unwrap_or(AS_TRANS),
            // A float in the message too.
            bytes_per_second: weight.bytes_per_second as f32,
            transitive: weight.form == Form::Transitive,
        })
    });
    let own = Asn(session.asn);
    // Within its own AS the number is a loop, and the route would be dropped.
    let internal = match session.remote {
        RemoteAs::Number(asn) => asn == session.asn,
        RemoteAs::Internal => true,
        RemoteAs::External => false,
    };
    let prepend = if internal { 0 } else { route.prepend };
    let next_hop = match prefix {
        IpNet::V4(_) => session.next_hop.ipv4,
        IpNet::V6(_) => session.next_hop.ipv6.map(IpAddr::V6),
    };
    Arc::new(Path {
        attributes: proto::bgp::Attributes {
            as_path: AsPath(vec![own; prepend.into()]),
            med: Some(route.med),
            local_pref: route.local_pref,
            communities,
            extended_communities: bandwidth.into_iter().collect(),
            large_communities,
            ..proto::bgp::Attributes::default()
        },
        next_hop: next_hop.map(|hop| match hop {
            IpAddr::V4(ip) => NextHop::V4(ip),
            IpAddr::V6(ip) => NextHop::V6(ip),
        }),
    })
}

/// Stands for an AS number of four octets (RFC 6793).
const AS_TRANS: u16 = 23456;

/// Our addresses as `peer` can reach them: the session's own, and the first of the other family on
/// the same interface. Over link-local addresses alone nothing says that the peer could reach a
/// global one of ours, so there is none (RFC 2545 §3).
pub(super) fn local_addresses(local: SocketAddr, peer: IpAddr, all: &Snapshot) -> LocalAddresses {
    // Several interfaces may have the same link-local address.
    let scope = match local {
        SocketAddr::V6(local) => local.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    let local = local.ip();
    let interface = all.iter().find(|interface| {
        let has = |(ip, _): &(IpAddr, u8)| *ip == local;
        interface.index == scope || (scope == 0 && interface.addresses.iter().any(has))
    });
    let addresses = || interface.into_iter().flat_map(|it| &it.addresses);
    let on_link = addresses()
        .any(|(ip, length)| IpNet::new(*ip, *length).is_ok_and(|subnet| subnet.contains(&peer)));
    let mut found = LocalAddresses {
        session_ipv6: local.is_ipv6(),
        ..LocalAddresses::default()
    };
    // The session's own counts before others.
    for address in std::iter::once(local).chain(addresses().map(|(ip, _)| *ip)) {
        match address {
            IpAddr::V4(ip) => {
                found.ipv4.get_or_insert(ip);
            }
            IpAddr::V6(ip) if ip.is_unicast_link_local() => {
                // A next hop for who is on the link (RFC 2545 §3).
                found.link_local = found.link_local.or_else(|| on_link.then_some(ip));
            }
            IpAddr::V6(_) if scope != 0 => {}
            IpAddr::V6(ip) => {
                found.ipv6.get_or_insert(ip);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use linux::netlink::{Interface, LinkFlags};

    use super::*;

    fn interfaces(addresses: &[(&str, u8)]) -> Snapshot {
        let addresses = addresses.iter();
        Arc::new(vec![Interface {
            index: 2,
            name: "eth0".to_owned(),
            mac: None,
            up: true,
            carrier: true,
            flags: LinkFlags::default(),
            master: None,
            mtu: 1500,
            addresses: addresses
                .map(|(ip, length)| (ip.parse().expect("an address"), *length))
                .collect(),
        }])
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn at(text: &str) -> SocketAddr {
        SocketAddr::new(ip(text), 179)
    }

    #[test]
    fn next_hops_are_of_the_sessions_interface() {
        let all = interfaces(&[("10.0.0.11", 24), ("fd00::11", 64), ("fe80::11", 64)]);
        let found = local_addresses(at("10.0.0.11"), ip("10.0.0.1"), &all);
        assert_eq!(found.ipv4.map(IpAddr::V4), Some(ip("10.0.0.11")));
        assert_eq!(found.ipv6.map(IpAddr::V6), Some(ip("fd00::11")));
        assert_eq!(found.link_local.map(IpAddr::V6), Some(ip("fe80::11")));
        assert!(!found.session_ipv6);
        // Who is behind a router cannot use a link-local next hop.
        let far = local_addresses(at("fd00::11"), ip("2001:db8::1"), &all);
        assert_eq!(far.link_local, None);
        assert!(far.session_ipv6);
        // An address that no interface has (any more) is still the session's own.
        let lost = local_addresses(at("10.9.9.9"), ip("10.0.0.1"), &all);
        assert_eq!(
            (lost.ipv4.map(IpAddr::V4), lost.ipv6),
            (Some(ip("10.9.9.9")), None)
        );
    }

    #[test]
    fn on_an_interface_next_hops_are_of_the_link() {
        let mut all = Vec::clone(&interfaces(&[("192.0.2.11", 24), ("fe80::11", 64)]));
        let ours = [("10.0.0.11", 24), ("fd00::11", 64), ("fe80::11", 64)];
        let mut second = Vec::clone(&interfaces(&ours)).remove(0);
        second.index = 3;
        all.push(second);
        let local = std::net::SocketAddrV6::new("fe80::11".parse().expect("one"), 4, 0, 3);
        let found = local_addresses(local.into(), ip("fe80::1"), &Arc::new(all));
        assert_eq!(found.ipv4.map(IpAddr::V4), Some(ip("10.0.0.11")));
        assert_eq!(found.link_local.map(IpAddr::V6), Some(ip("fe80::11")));
        assert_eq!(found.ipv6, None);
        let hop = NextHop::V6("fe80::11".parse().expect("one"));
        for family in [Family::Ipv4, Family::Ipv6] {
            assert_eq!(found.next_hop(family, true), Some(hop));
        }
    }

    #[test]
    fn a_weight_is_a_link_bandwidth_of_our_system() {
        let route = Attributes {
            local_pref: None,
            med: 0,
            prepend: 2,
            communities: BTreeSet::from([
                CommunityValue::Standard(65535, 0),
                CommunityValue::Large(1, 2, 3),
            ]),
            bandwidth: None,
            hops: BTreeMap::new(),
        };
        let session = session();
        let prefix = "192.0.2.1/32".parse().expect("a prefix");
        let path = path(&session, prefix, &route, None);
        assert_eq!(path.attributes.as_path, AsPath(vec![Asn(64513); 2]));
        assert_eq!(path.attributes.med, Some(0));
        assert_eq!(path.attributes.communities, [Community::GRACEFUL_SHUTDOWN]);
        assert_eq!(path.attributes.large_communities.len(), 1);
        assert_eq!(path.next_hop, None);
    }

    #[test]
    fn an_internal_peer_finds_no_loop() {
        let route = Attributes {
            local_pref: None,
            med: 0,
            prepend: 2,
            communities: BTreeSet::new(),
            bandwidth: None,
            hops: BTreeMap::new(),
        };
        let prefix = "192.0.2.1/32".parse().expect("a prefix");
        for (remote, times) in [
            (RemoteAs::Number(64513), 0),
            (RemoteAs::Internal, 0),
            (RemoteAs::Number(64512), 2),
            (RemoteAs::External, 2),
        ] {
            let session = PeerSession {
                remote,
                ..session()
            };
            let path = path(&session, prefix, &route, None);
            assert_eq!(path.attributes.as_path.0.len(), times, "{remote:?}");
        }
    }

    fn session() -> PeerSession {
        PeerSession {
            neighbour: plan::config::Neighbour::Address(ip("10.0.0.1")),
            port: 179,
            source: None,
            vrf: None,
            asn: 64513,
            remote: RemoteAs::Number(64512),
            router_id: [10, 0, 0, 11].into(),
            timers: plan::announce::bgp::TIMERS,
            connect_seconds: 120,
            password: plan::config::Password::None,
            bfd: None,
            graceful_restart: true,
            multihop: false,
            ttl: 1,
            minimum_ttl: None,
            families: plan::announce::bgp::Families {
                ipv4: true,
                ipv6: false,
            },
            next_hop: plan::config::NextHops::default(),
            listen: None,
            add_path: false,
            role: None,
            receive: None,
        }
    }

    #[test]
    fn a_hub_gets_a_path_for_each_node() {
        let mut session = session();
        session.add_path = true;
        let of = |hops: &[&str]| Attributes {
            local_pref: None,
            med: 0,
            prepend: 0,
            communities: BTreeSet::new(),
            bandwidth: None,
            hops: hops.iter().map(|hop| (ip(hop), None)).collect(),
        };
        let prefix = "192.0.2.1/32".parse().expect("a prefix");
        let ids = |hops: &[&str]| -> Vec<(u32, Option<NextHop>)> {
            let route = of(hops);
            let found = paths(&session, prefix, &route);
            found
                .map(|(nlri, path)| (nlri.path_id, path.next_hop))
                .collect()
        };
        let both = ids(&["10.0.0.11", "10.0.0.12"]);
        let hop = |last| Some(NextHop::V4([10, 0, 0, last].into()));
        assert_eq!(both, [(0x0a00_000b, hop(11)), (0x0a00_000c, hop(12))]);
        // Who stays keeps its identifier.
        assert_eq!(ids(&["10.0.0.12"]), both[1..]);
        assert_eq!(ids(&[]), []);
        // Subnets that differ in the middle are told apart.
        assert_eq!(ids(&["2001:db8:1::11", "2001:db8:2::11"]).len(), 2);
        session.add_path = false;
        assert_eq!(paths(&session, prefix, &of(&[])).count(), 1);
    }

    #[test]
    fn what_a_session_lacks_is_named() {
        let mut session = session();
        session.families.ipv6 = true;
        session.add_path = true;
        let families = |all: &[Family]| all.iter().copied().collect::<Families>();
        let lacks = |common: &[Family], several: &[Family]| {
            let ours = settings(&session, "n", false).open();
            let mut agreed = Negotiated::new(&ours, &ours, false);
            agreed.codec.families = families(common);
            agreed.codec.add_path_send = families(several);
            missing(&session, &agreed)
        };
        let (v4, v6) = (Family::Ipv4, Family::Ipv6);
        assert_eq!(lacks(&[v4, v6], &[v4, v6]), "");
        for (common, several, wanted) in [
            (&[v4][..], &[v4][..], &["without IPv6: the peer"][..]),
            (
                &[v4, v6],
                &[v4],
                &["without add-path for IPv6, so that no IPv6 route"],
            ),
            (
                &[v4],
                &[],
                &["without IPv6: ", "; without add-path for IPv4, "],
            ),
        ] {
            let said = lacks(common, several);
            assert!(wanted.iter().all(|part| said.contains(part)), "{said}");
        }
    }

    #[test]
    fn settings_are_the_sessions() {
        let settings = settings(&session(), "node-1", true);
        assert_eq!((settings.local_as, settings.hold_time), (Asn(64513), 180));
        assert_eq!(settings.remote_as, fsm::RemoteAs::Number(Asn(64512)));
        assert!(settings.families.contains(Family::Ipv4));
        assert!(!settings.families.contains(Family::Ipv6));
        let graceful = settings.graceful.expect("offered");
        assert!(graceful.restarting && graceful.forwarding.contains(Family::Ipv4));
        assert_eq!(graceful.long_lived, Some(0), "we help, and ask for nothing");
        let plain = PeerSession {
            graceful_restart: false,
            ..session()
        };
        let graceful = super::settings(&plain, "node-1", true).graceful;
        let graceful = graceful.expect("we help");
        assert!(graceful.families.is_empty() && graceful.forwarding.is_empty());
    }
}
