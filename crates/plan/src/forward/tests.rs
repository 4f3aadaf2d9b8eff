use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::compile::compile_with;
use super::*;
use crate::name::ServiceKey;

mod services;

pub(super) fn key(name: &str, family: Family) -> PortKey {
    PortKey {
        service: ServiceKey::new("default", name),
        port: "http".into(),
        protocol: Protocol::Tcp,
        family,
    }
}

pub(super) fn frontend(address: &str, kind: FrontendKind, policy: Policy) -> Frontend {
    Frontend {
        address: address.parse().unwrap(),
        port: 80,
        kind,
        policy,
    }
}

fn sockets(list: &[&str]) -> Vec<SocketAddr> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn packet<'a>(from: Origin<'a>, source: &str, destination: &str) -> Packet<'a> {
    Packet {
        from,
        protocol: Protocol::Tcp,
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

const VIP: &str = "10.0.0.101";
const CLUSTER: &str = "10.96.0.1";
const POD: &str = "10.1.0.2:8080";
const CLIENT: &str = "192.0.2.7:40000";

/// One Service with a cluster IP and a VIP.
fn service(policy: Policy, cluster: &[&str], local: &[&str], usable: bool) -> ServicePort {
    ServicePort {
        frontends: vec![
            frontend(VIP, FrontendKind::LoadBalancer, policy),
            frontend(CLUSTER, FrontendKind::ClusterIp, Policy::Cluster),
        ],
        cluster: sockets(cluster),
        local: sockets(local),
        usable_anywhere: usable,
        ..ServicePort::default()
    }
}

fn fate(port: &ServicePort, packet: &Packet<'_>) -> Fate {
    let elements = compile(&key("web", Family::V4), port);
    elements.iter().collect::<Tracer>().trace(packet)
}

fn to(socket: &str, masquerade: bool) -> Fate {
    Fate::Dnat {
        to: socket.parse().unwrap(),
        masquerade,
    }
}

/// The table of dataplane.md 1.4 and 1.6, cell by cell.
#[test]
fn fates() {
    use Origin::Host;
    use Policy::{Cluster as C, Local as L};
    const INTERFACE: Origin<'_> = Origin::Interface("eth0");
    let vip = "10.0.0.101:80";
    let cluster_ip = "10.96.0.1:80";
    let none: &[&str] = &[];
    type Case<'a> = (
        &'a str,
        Policy,
        &'a [&'a str],
        &'a [&'a str],
        bool,
        (Origin<'a>, &'a str, &'a str),
        Fate,
    );
    let cases: Vec<Case<'_>> = vec![
        (
            "VIP, Cluster",
            C,
            &[POD],
            none,
            true,
            (INTERFACE, CLIENT, vip),
            to(POD, true),
        ),
        (
            "VIP, Cluster, host",
            C,
            &[POD],
            none,
            true,
            (Host, "10.0.0.1:9", vip),
            to(POD, true),
        ),
        (
            "cluster IP keeps the source",
            C,
            &[POD],
            none,
            true,
            (INTERFACE, CLIENT, cluster_ip),
            to(POD, false),
        ),
        (
            "hairpin",
            C,
            &[POD],
            &[POD],
            true,
            (INTERFACE, "10.1.0.2:9", cluster_ip),
            to(POD, true),
        ),
        (
            "hairpin of another node",
            C,
            &[POD],
            none,
            true,
            (INTERFACE, "10.1.0.2:9", cluster_ip),
            to(POD, false),
        ),
        (
            "VIP, Local, here",
            L,
            &[POD],
            &[POD],
            true,
            (INTERFACE, CLIENT, vip),
            to(POD, false),
        ),
        (
            "VIP, Local, not here",
            L,
            &[POD],
            none,
            true,
            (INTERFACE, CLIENT, vip),
            Fate::Drop,
        ),
        (
            "VIP, Local, not here, host",
            L,
            &[POD],
            none,
            true,
            (Host, "10.0.0.1:9", vip),
            to(POD, true),
        ),
        (
            "VIP, Local, nowhere",
            L,
            none,
            none,
            false,
            (INTERFACE, CLIENT, vip),
            Fate::Reject,
        ),
        (
            "VIP, Cluster, nowhere",
            C,
            none,
            none,
            false,
            (INTERFACE, CLIENT, vip),
            Fate::Reject,
        ),
        (
            "cluster IP, nowhere",
            C,
            none,
            none,
            false,
            (INTERFACE, CLIENT, cluster_ip),
            Fate::Reject,
        ),
        (
            "cluster IP, other port",
            C,
            &[POD],
            none,
            true,
            (INTERFACE, CLIENT, "10.96.0.1:81"),
            Fate::Reject,
        ),
        (
            "VIP, other port",
            C,
            &[POD],
            none,
            true,
            (INTERFACE, CLIENT, "10.0.0.101:81"),
            Fate::Pass,
        ),
        (
            "none of ours",
            C,
            &[POD],
            none,
            true,
            (INTERFACE, CLIENT, "10.0.0.1:80"),
            Fate::Pass,
        ),
    ];
    for (name, policy, cluster, local, usable, (from, source, destination), expected) in cases {
        let port = service(policy, cluster, local, usable);
        assert_eq!(
            fate(&port, &packet(from, source, destination)),
            expected,
            "{name}"
        );
    }
}

/// Addresses that only a Service could have (dataplane.md 1.4): which are dropped.
#[test]
fn unallocated_cluster_ips() {
    let drop = Fate::Drop;
    let table = [
        ("", "10.96.0.2:80", Fate::Pass),
        ("10.96.0.0/12", "10.96.0.2:80", drop),
        ("10.96.0.0/12", "10.111.255.255:53", drop),
        ("10.96.0.0/12", "10.112.0.0:80", Fate::Pass),
        ("fd00::/108", "10.96.0.2:80", Fate::Pass),
        ("10.112.0.0/16 10.96.0.0/24", "10.96.0.2:80", drop),
        // A Service has it: its other ports are rejected.
        ("10.96.0.0/12", "10.96.0.1:80", to(POD, false)),
        ("10.96.0.0/12", "10.96.0.1:81", Fate::Reject),
        // An external address in the range.
        ("10.0.0.0/8", "10.0.0.101:80", to(POD, true)),
        ("10.0.0.0/8", "10.0.0.101:81", drop),
    ];
    let elements = compile(
        &key("web", Family::V4),
        &service(Policy::Cluster, &[POD], &[], true),
    );
    for (ranges, destination, fate) in table {
        let ranges = ranges.split_whitespace().map(|it| it.parse().unwrap());
        let tracer: Tracer = elements.iter().collect();
        let tracer = tracer.with(Locality::default().within(ranges));
        for from in [Origin::Host, Origin::Interface("eth0")] {
            let sent = packet(from, CLIENT, destination);
            let found = tracer.trace(&sent);
            assert_eq!(found, fate, "{from:?} to {destination}");
        }
    }
}

#[test]
fn internal_policy_local_never_takes_the_hosts_short_cut() {
    let port = ServicePort {
        frontends: vec![frontend(CLUSTER, FrontendKind::ClusterIp, Policy::Local)],
        cluster: sockets(&[POD]),
        usable_anywhere: true,
        ..ServicePort::default()
    };
    let sent = packet(Origin::Host, "10.0.0.1:9", "10.96.0.1:80");
    assert_eq!(fate(&port, &sent), Fate::Drop);
}

#[test]
fn source_ranges_guard_load_balancer_addresses_only() {
    let mut port = service(Policy::Cluster, &[POD], &[], true);
    port.source_ranges = ["192.0.2.0/25", "192.0.2.0/24", "198.51.100.7/32"]
        .map(|text| text.parse().unwrap())
        .to_vec();
    let table = [
        (CLIENT, "10.0.0.101:80", to(POD, true)),
        ("198.51.100.7:1", "10.0.0.101:80", to(POD, true)),
        ("198.51.100.8:1", "10.0.0.101:80", Fate::Drop),
        ("198.51.100.8:1", "10.96.0.1:80", to(POD, false)),
    ];
    for (source, destination, expected) in table {
        let sent = packet(Origin::Interface("eth0"), source, destination);
        assert_eq!(fate(&port, &sent), expected, "{source} to {destination}");
    }
    let ranges = compile(&key("web", Family::V4), &port)
        .iter()
        .filter(|element| matches!(element, Element::Range { .. }))
        .count();
    assert_eq!(ranges, 2, "overlapping ranges are merged");
}

#[test]
fn endpoints_share_new_connections() {
    let pods: Vec<String> = (0..5).map(|n| format!("10.1.0.{n}:80")).collect();
    let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
    let port = service(Policy::Cluster, &pods, &[], true);
    let elements = compile(&key("web", Family::V4), &port);
    let tracer: Tracer = elements.iter().collect();
    let mut counts = BTreeMap::new();
    for client in 0..2000u16 {
        let source = format!("192.0.2.7:{}", 20_000 + client);
        let sent = packet(Origin::Interface("eth0"), &source, "10.0.0.101:80");
        let Fate::Dnat { to, .. } = tracer.trace(&sent) else {
            panic!("no endpoint for {source}");
        };
        *counts.entry(to).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 5);
    assert!(
        counts.values().all(|n| (300..500).contains(n)),
        "{counts:?}"
    );
}

/// Golden: an id that changed would orphan what a running kernel holds.
#[test]
fn ids_are_stable() {
    let web = key("web", Family::V4);
    assert_eq!(web.to_string(), "default/web:http/TCP/IPv4");
    assert_eq!(
        slots_id(&web, Policy::Cluster).to_string(),
        "1c211ca0728d08e0"
    );
    let ids: BTreeSet<_> = [Family::V4, Family::V6]
        .into_iter()
        .flat_map(|family| {
            [Policy::Cluster, Policy::Local].map(|policy| slots_id(&key("web", family), policy))
        })
        .collect();
    assert_eq!(ids.len(), 4);
}

#[test]
fn fronts_come_last() {
    let elements = compile(
        &key("web", Family::V4),
        &service(Policy::Local, &[POD], &[POD], true),
    );
    let first_front = elements
        .iter()
        .position(|e| matches!(e, Element::Front { .. }))
        .unwrap();
    assert!(
        elements
            .iter()
            .skip(first_front)
            .all(|e| matches!(e, Element::Front { .. }))
    );
}

#[test]
fn an_address_belongs_to_one_service() {
    let (a, b) = (key("a", Family::V4), key("b", Family::V4));
    let holder = |table: &Table, key: &PortKey| {
        let front = |e: &Element| matches!(e, Element::Front { front, .. } if front.port == 80);
        table.elements(key).iter().any(front)
    };
    let outsider = |kind| ServicePort {
        frontends: vec![frontend(VIP, kind, Policy::Cluster)],
        cluster: sockets(&[POD]),
        usable_anywhere: true,
        ..ServicePort::default()
    };
    // An external IP, which anybody may write, does not take an allocated address.
    let mut table = Table::default();
    table.set(&a, Some(outsider(FrontendKind::ExternalIp)));
    let deltas = table.set(&b, Some(outsider(FrontendKind::LoadBalancer)));
    assert!(holder(&table, &b) && !holder(&table, &a));
    assert_eq!(deltas.len(), 2);
    assert_eq!(*deltas[0].key, a, "the loser leaves first");
    let refused: Vec<_> = table
        .refused()
        .map(|(k, r)| (k.clone(), r.to_string()))
        .collect();
    let text = "10.0.0.101:80/TCP is taken by default/b:http/TCP/IPv4; give one of the two another address or port".to_owned();
    assert_eq!(refused, [(a.clone(), text)]);
    // The address comes back when its holder goes.
    table.set(&b, None);
    assert!(holder(&table, &a));
    assert_eq!(table.refused().count(), 0);
}

#[test]
fn a_collision_of_ids_is_counted_and_the_second_refused() {
    let mut table = Table::with_ids(|_, policy| SlotsId::new(2 * policy as u64));
    let (a, b) = (key("a", Family::V4), key("b", Family::V4));
    let mut other = service(Policy::Cluster, &[POD], &[], true);
    other.frontends.truncate(1);
    other.frontends[0].port = 81;
    table.set(&a, Some(service(Policy::Cluster, &[POD], &[], true)));
    table.set(&b, Some(other));
    assert!(table.elements(&b).iter().all(Element::is_shared));
    assert!(!table.elements(&a).is_empty());
    assert_eq!(table.refused().filter(|(key, _)| **key == b).count(), 2);
}

pub(super) fn any_port() -> impl Strategy<Value = ServicePort> {
    let any_frontend =
        (0u8..3, 80u16..82, 0u8..3, any::<bool>()).prop_map(|(host, port, kind, local)| Frontend {
            address: IpAddr::from([10, 0, 0, host]),
            port,
            kind: [
                FrontendKind::ClusterIp,
                FrontendKind::ExternalIp,
                FrontendKind::LoadBalancer,
            ][usize::from(kind)],
            policy: if local {
                Policy::Local
            } else {
                Policy::Cluster
            },
        });
    let any_endpoints = prop::collection::btree_set(0u8..6, 0..5).prop_map(|hosts| {
        let socket = |host| SocketAddr::from(([10, 1, 0, host], 8080));
        hosts.into_iter().map(socket).collect::<Vec<_>>()
    });
    (
        prop::collection::btree_set(any_frontend, 0..4),
        any_endpoints.clone(),
        any_endpoints,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(frontends, cluster, local, usable, restricted)| {
            // One kind per address and port, as endpoint selection gives them.
            let mut seen = BTreeSet::new();
            ServicePort {
                frontends: frontends
                    .into_iter()
                    .filter(|f| seen.insert((f.address, f.port)))
                    .collect(),
                usable_anywhere: usable || !cluster.is_empty() || !local.is_empty(),
                cluster,
                local,
                source_ranges: if restricted {
                    vec!["192.0.2.0/24".parse().unwrap()]
                } else {
                    Vec::new()
                },
                ..ServicePort::default()
            }
        })
}

proptest! {
    /// Changed step by step equals built anew; what the deltas say equals what is in force; no
    /// delta adds what is there or removes what is not.
    #[test]
    fn steps_equal_rebuilding(
        steps in prop::collection::vec((0u8..5, prop::option::weighted(0.8, any_port())), 1..30),
        collide in any::<bool>(),
    ) {
        let id: fn(&PortKey, Policy) -> SlotsId = if collide {
            // Ports 0 and 1 collide.
            |key, policy| {
                let collides = *key.service.name < *"p2";
                if collides { SlotsId::new(2 * policy as u64) } else { slots_id(key, policy) }
            }
        } else {
            slots_id
        };
        let mut table = Table::with_ids(id);
        let mut kernel: BTreeMap<ElementKey, Element> = BTreeMap::new();
        let mut desired = BTreeMap::new();
        for (number, port) in steps {
            let key = key(&format!("p{number}"), Family::V4);
            let deltas = table.set(&key, port.clone());
            for element in deltas.iter().flat_map(|d| &d.removed) {
                prop_assert_eq!(kernel.remove(&element.key()), Some(*element));
            }
            for element in deltas.iter().flat_map(|d| &d.added) {
                prop_assert_eq!(kernel.insert(element.key(), *element), None);
            }
            match port {
                Some(port) => { desired.insert(key, port); }
                None => { desired.remove(&key); }
            }
        }
        let mut anew = Table::with_ids(id);
        for (key, port) in desired.iter().rev() {
            anew.set(key, Some(port.clone()));
        }
        let elements: BTreeSet<Element> = anew
            .keys()
            .flat_map(|key| anew.elements(key).iter().copied().collect::<Vec<_>>())
            .collect();
        prop_assert_eq!(kernel.values().copied().collect::<BTreeSet<_>>(), elements);
        let refused = |table: &Table| -> Vec<_> {
            table.refused().map(|(k, r)| (k.clone(), r)).collect()
        };
        prop_assert_eq!(refused(&table), refused(&anew));
    }

    #[test]
    fn compiling_is_deterministic_and_unique_by_key(port in any_port()) {
        let web = key("web", Family::V4);
        let elements = compile(&web, &port);
        prop_assert_eq!(&elements, &compile_with(slots_id, &web, &port));
        let keys: BTreeSet<_> = elements.iter().map(Element::key).collect();
        prop_assert_eq!(keys.len(), elements.len());
    }
}

/// Session affinity: the fronts say for how long, and the endpoints that count are known.
#[test]
fn session_affinity_in_elements() {
    for (seconds, keep, members) in [
        (None, 0, 0),
        (Some(0), 0, 0),
        (Some(600), 600, 2),
        (Some(u32::MAX), 86_400, 2),
    ] {
        let front = |kind, address: [u8; 4], policy| Frontend {
            address: address.into(),
            port: 80,
            kind,
            policy,
        };
        let port = ServicePort {
            frontends: vec![
                front(FrontendKind::ClusterIp, [10, 96, 0, 1], Policy::Cluster),
                front(FrontendKind::LoadBalancer, [10, 0, 0, 101], Policy::Cluster),
            ],
            cluster: vec![([10, 1, 0, 2], 8080).into(), ([10, 1, 0, 3], 8080).into()],
            usable_anywhere: true,
            affinity_seconds: seconds,
            ..ServicePort::default()
        };
        let key = PortKey {
            service: ServiceKey::new("default", "web"),
            port: "http".into(),
            protocol: Protocol::Tcp,
            family: Family::V4,
        };
        let elements = compile(&key, &port);
        let (mut kept, mut endpoints) = (Vec::new(), Vec::new());
        for element in &elements {
            match element {
                Element::Front { keep, .. } => kept.push(*keep),
                Element::Member { endpoint, .. } => endpoints.push(*endpoint),
                _ => {}
            }
        }
        assert_eq!(kept, [keep, keep], "{seconds:?}");
        assert_eq!(endpoints.len(), members, "{seconds:?}");
        assert!(
            endpoints
                .iter()
                .all(|endpoint| port.cluster.contains(endpoint))
        );
    }
}

/// Traffic of local Pods and of this host, by detector (dataplane.md 1.6): front, detector, origin,
/// and what becomes of it. There is no endpoint on this node, but for the Pod that is one.
#[test]
fn short_cuts_and_masquerade() {
    const EXTERNAL: &str = "10.0.0.101:80";
    const NODE: &str = "172.16.0.1:30080";
    const INTERNAL: &str = "10.96.0.1:80";
    let cidr = || Detector::ClusterCidr(vec!["10.244.0.0/16".parse().unwrap()]);
    let prefix = || Detector::Prefix("veth".to_owned());
    let none = Detector::default;
    let (pod, host) = ("10.244.0.7:9", "172.16.0.1:9");
    let (veth, eth) = (Origin::Interface("veth7"), Origin::Interface("eth0"));
    let local = Policy::Local;
    let cases = [
        // Policy Local, external addresses: a local Pod goes to all, with its own address.
        (local, EXTERNAL, cidr(), veth, pod, to(POD, false)),
        (local, NODE, cidr(), veth, pod, to(POD, false)),
        (local, EXTERNAL, prefix(), veth, pod, to(POD, false)),
        (local, EXTERNAL, none(), veth, pod, Fate::Drop),
        (local, EXTERNAL, cidr(), eth, CLIENT, Fate::Drop),
        (local, EXTERNAL, prefix(), eth, pod, Fate::Drop),
        // This host goes to all, masqueraded; from an address among the Pods' it is a Pod.
        (local, EXTERNAL, cidr(), Origin::Host, host, to(POD, true)),
        (local, NODE, none(), Origin::Host, host, to(POD, true)),
        (local, EXTERNAL, prefix(), Origin::Host, host, to(POD, true)),
        (local, EXTERNAL, cidr(), Origin::Host, pod, to(POD, false)),
        // A Pod that is led to itself.
        (local, NODE, cidr(), veth, "10.1.0.2:9", to(POD, true)),
        (local, NODE, prefix(), veth, "10.1.0.2:9", to(POD, true)),
        // Policy Cluster: always masqueraded.
        (Policy::Cluster, EXTERNAL, cidr(), veth, pod, to(POD, true)),
        // Cluster IP: whoever is no local Pod is masqueraded, where Pods are known.
        (local, INTERNAL, none(), eth, CLIENT, to(POD, false)),
        (local, INTERNAL, cidr(), eth, CLIENT, to(POD, true)),
        (local, INTERNAL, cidr(), veth, pod, to(POD, false)),
        (local, INTERNAL, cidr(), Origin::Host, host, to(POD, true)),
        (local, INTERNAL, prefix(), Origin::Host, pod, to(POD, true)),
        (local, INTERNAL, prefix(), veth, pod, to(POD, false)),
    ];
    for (policy, destination, detector, from, source, expected) in cases {
        let here: &[&str] = if source.starts_with("10.1.0.2:") {
            &[POD]
        } else {
            &[]
        };
        let mut port = service(policy, &[POD], here, true);
        port.frontends.push(Frontend {
            port: 30_080,
            ..frontend("172.16.0.1", FrontendKind::NodePort, policy)
        });
        let name = format!("{policy:?} {destination} {detector:?} {from:?} {source}");
        let sources = Sources {
            detector,
            masquerade_all: false,
        };
        let elements = compile(&key("web", Family::V4), &port);
        let tracer: Tracer = elements.iter().collect();
        let packet = packet(from, source, destination);
        let fate = tracer.clone().with(sources.on(None)).trace(&packet);
        assert_eq!(fate, expected, "{name}");
        let all = Sources {
            masquerade_all: true,
            ..sources
        };
        let fate = tracer.with(all.on(None)).trace(&packet);
        match destination {
            INTERNAL => assert_eq!(fate, to(POD, true), "{name}, all"),
            _ => assert_eq!(fate, expected, "{name}, all"),
        }
    }
}

/// Session affinity as packets see it: one memory for each service port, whatever the address and
/// the policy; refreshed by each connection; only endpoints that are in use (dataplane.md 1.8).
#[test]
fn a_client_is_led_to_the_same_endpoint() {
    let pods = ["10.1.0.2:8080", "10.1.0.3:8080", "10.1.0.4:8080"];
    let port = |policy, cluster: &[&str], local: &[&str], seconds| ServicePort {
        affinity_seconds: Some(seconds),
        ..service(policy, cluster, local, true)
    };
    let compiled = |port: &ServicePort| compile(&key("web", Family::V4), port);
    let from = |client: u16, destination| {
        let source = format!("192.0.2.7:{}", 20_000 + client);
        packet(Origin::Interface("eth0"), &source, destination)
    };
    let endpoint = |fate| match fate {
        Fate::Dnat { to, .. } => to,
        other => panic!("{other:?}"),
    };
    let (vip, cluster_ip) = ("10.0.0.101:80", "10.96.0.1:80");
    // Policy Local at the VIP, Cluster at the cluster IP; all endpoints are here.
    let all = compiled(&port(Policy::Local, &pods, &pods, 60));
    let mut tracer: Tracer = all.iter().collect();
    let first = endpoint(tracer.connect(&from(0, cluster_ip)));
    for client in 1..40 {
        for destination in [vip, cluster_ip] {
            let led = endpoint(tracer.connect(&from(client, destination)));
            assert_eq!(led, first, "{client} {destination}");
        }
    }
    // Each connection lets the time begin anew.
    for client in 0..5 {
        tracer.pass(59);
        assert_eq!(endpoint(tracer.connect(&from(client, vip))), first);
    }
    // When it is over, the hash picks again: among 40 ports some lead elsewhere.
    tracer.pass(60);
    let spread = (0..40).map(|client| endpoint(tracer.trace(&from(client, vip))));
    assert_eq!(spread.collect::<BTreeSet<_>>().len(), 3);
    // An endpoint that is in one set only: the other set picks anew, and that is remembered.
    let first = endpoint(tracer.connect(&from(0, cluster_ip)));
    let others: Vec<&str> = pods
        .into_iter()
        .filter(|pod| *pod != first.to_string())
        .collect();
    let fewer = compiled(&port(Policy::Local, &pods, &others, 60));
    let mut tracer = tracer.changed(&fewer);
    assert_eq!(endpoint(tracer.trace(&from(1, cluster_ip))), first);
    let second = endpoint(tracer.connect(&from(1, vip)));
    assert_ne!(second, first);
    assert_eq!(endpoint(tracer.trace(&from(2, cluster_ip))), second);
    // Another client is another matter, and without affinity nobody is kept.
    let off = compiled(&service(Policy::Local, &pods, &pods, true));
    let tracer = tracer.changed(&off);
    let spread = (0..40).map(|client| endpoint(tracer.trace(&from(client, vip))));
    assert_eq!(spread.collect::<BTreeSet<_>>().len(), 3);
}

/// Both policies of a port have one id but for a bit, and ports have nothing in common.
#[test]
fn ids_of_a_port() {
    for name in ["a", "b", "c", "d"] {
        let key = key(name, Family::V6);
        let [cluster, local] = [Policy::Cluster, Policy::Local].map(|p| slots_id(&key, p));
        assert_eq!(cluster.of_port(), local.of_port());
        assert_eq!(cluster.bits() | SlotsId::LOCAL, local.bits());
        assert_ne!(cluster, local);
    }
}

/// A node port on the loopback: who gets there, and what the endpoint sees.
#[test]
fn the_loopback_is_this_hosts_alone() {
    let loopback = "127.0.0.1";
    let port = |policy, cluster: &[&str]| ServicePort {
        frontends: vec![
            frontend(loopback, FrontendKind::NodePort, policy),
            frontend("10.0.0.1", FrontendKind::NodePort, policy),
        ],
        cluster: sockets(cluster),
        usable_anywhere: !cluster.is_empty(),
        ..ServicePort::default()
    };
    // The node's address lies in the Pods' range.
    let locality = Locality {
        pods: Pods::Ranges(vec!["10.0.0.0/8".parse().unwrap()]),
        loopback: Loopback {
            v4: Some([10, 0, 0, 1].into()),
            v6: None,
        },
        ..Locality::default()
    };
    let trace = |port: &ServicePort, from, source, destination| {
        let elements = compile(&key("web", Family::V4), port);
        let tracer = elements.iter().collect::<Tracer>();
        tracer
            .with(locality.clone())
            .trace(&packet(from, source, destination))
    };
    let outside = Origin::Interface("eth0");
    for policy in [Policy::Cluster, Policy::Local] {
        let some = port(policy, &[POD]);
        let to_loopback = "127.0.0.1:80";
        for source in ["127.0.0.1:9", "127.8.0.1:9", "10.0.0.1:9"] {
            let fate = trace(&some, Origin::Host, source, to_loopback);
            assert_eq!(fate, to(POD, true), "{policy:?} {source}");
        }
        for source in [CLIENT, "10.0.0.7:9", "127.0.0.1:9"] {
            let fate = trace(&some, outside, source, to_loopback);
            assert_eq!(fate, Fate::Drop, "{policy:?} {source}");
        }
        let other = trace(&some, Origin::Host, "127.0.0.1:9", "127.0.0.1:81");
        assert_eq!(other, Fate::Pass, "another server's port");
        let none = port(policy, &[]);
        let fate = trace(&none, Origin::Host, "127.0.0.1:9", to_loopback);
        assert_eq!(fate, Fate::Reject, "{policy:?}");
    }
}
