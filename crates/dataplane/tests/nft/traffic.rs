//! Packets through the rules: what the tracer says is what the kernel does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use dataplane::nft::Nft;
use linux::nft::{Base, Batch, ChainSpec, Expr, Flow, Hook, NfProto, Op, Reg, Socket};
use plan::forward::{Detector, Fate, Frontend, FrontendKind, Origin, Packet, Sources, Tracer};
use plan::net::{Family, Protocol};
use plan::world::Policy::{self, Cluster, Local};

use super::lab::{
    BRIEFLY, DEADLINE, Desired, Lab, Seen, frontend, key, sandboxed, service, tcp, udp,
};
use FrontendKind::{ClusterIp, LoadBalancer};

/// Where the clients' packets come in, and the Pods'.
const CLIENT: Origin<'_> = Origin::Interface("client");
const POD: Origin<'_> = Origin::Interface("pods");

const FAMILIES: [(Family, &str, &str); 2] = [
    (Family::V4, "10.0.0.101", "10.96.0.1"),
    (Family::V6, "[fd00::101]", "[fd96::1]"),
];

fn both(vip: &str, cluster: &str, port: u16, policy: Policy) -> Vec<Frontend> {
    vec![
        frontend(&format!("{vip}:{port}"), LoadBalancer, policy),
        frontend(&format!("{cluster}:{port}"), ClusterIp, Cluster),
    ]
}

pub(super) fn tracer(desired: &Desired) -> Tracer {
    let elements: Vec<_> = desired
        .iter()
        .flat_map(|(key, port)| {
            let elements = plan::forward::compile(key, port);
            elements.iter().copied().collect::<Vec<_>>()
        })
        .collect();
    elements.iter().collect()
}

/// Compares what a client saw with what the tracer says for the ports that were used.
pub(super) fn agree(
    tracer: &Tracer,
    from: Origin<'_>,
    protocol: Protocol,
    to: SocketAddr,
    seen: &Seen,
) {
    let Seen::Answer {
        by,
        peer,
        from: source,
    } = seen
    else {
        panic!("{protocol} to {to}: {seen:?}");
    };
    let fate = tracer.trace(&Packet {
        from,
        protocol,
        source: *source,
        destination: to,
    });
    let masquerade = peer != source;
    assert_eq!(
        fate,
        Fate::Dnat {
            to: *by,
            masquerade
        },
        "{protocol} {source} to {to}"
    );
}

#[test]
fn tcp_and_udp_reach_every_endpoint_in_both_families() {
    sandboxed(
        "traffic::tcp_and_udp_reach_every_endpoint_in_both_families",
        || {
            let lab = Lab::new();
            lab.serve(8080);
            let mut desired = Desired::new();
            for (family, vip, cluster) in FAMILIES {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let port = service(both(vip, cluster, 80, Cluster), 2..5, false);
                    desired.insert(key("web", protocol, family), port);
                }
            }
            let mut nft = Nft::open().expect("open");
            let report = nft.adopt(&desired).expect("adopt");
            assert!(report.rules_replaced && report.refused.is_empty());
            let tracer = tracer(&desired);
            for (family, vip, cluster) in FAMILIES {
                for to in [format!("{vip}:80"), format!("{cluster}:80")] {
                    let to: SocketAddr = to.parse().expect("socket");
                    for protocol in [Protocol::Tcp, Protocol::Udp] {
                        let mut counts: BTreeMap<SocketAddr, u32> = BTreeMap::new();
                        lab.client
                            .run(|| {
                                for _ in 0..60 {
                                    let seen = match (protocol, family) {
                                        (Protocol::Tcp, _) => tcp(to, DEADLINE),
                                        (_, Family::V4) => {
                                            udp(SocketAddr::from(([10, 0, 0, 9], 0)), to)
                                        }
                                        (_, Family::V6) => {
                                            udp("[fd00::9]:0".parse().expect("ip"), to)
                                        }
                                    };
                                    agree(&tracer, CLIENT, protocol, to, &seen);
                                    if let Seen::Answer { by, .. } = seen {
                                        *counts.entry(by).or_default() += 1;
                                    }
                                }
                            })
                            .expect("enter");
                        assert_eq!(counts.len(), 3, "{protocol} to {to}: {counts:?}");
                        assert!(counts.values().all(|n| *n > 5), "{counts:?}");
                    }
                }
            }
        },
    );
}

/// One service port with one front on port `number`, and what a connection to it meets.
struct Case {
    name: &'static str,
    number: u16,
    kind: FrontendKind,
    policy: Policy,
    pods: std::ops::Range<u8>,
    local: bool,
    usable: bool,
    from: Origin<'static>,
    expected: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Answer { masquerade: bool },
    Refused,
    Silence,
}

fn cases() -> Vec<Case> {
    use Origin::Host;
    use Outcome::{Answer, Refused, Silence};
    let answer = |masquerade| Answer { masquerade };
    let case = |name, number, kind, policy, pods, local, usable, from, expected| Case {
        name,
        number,
        kind,
        policy,
        pods,
        local,
        usable,
        from,
        expected,
    };
    let (none, some) = (2..2, 2..4);
    vec![
        case(
            "VIP",
            1,
            LoadBalancer,
            Cluster,
            some.clone(),
            false,
            true,
            CLIENT,
            answer(true),
        ),
        case(
            "VIP, host",
            2,
            LoadBalancer,
            Cluster,
            some.clone(),
            false,
            true,
            Host,
            answer(true),
        ),
        case(
            "cluster IP",
            3,
            ClusterIp,
            Cluster,
            some.clone(),
            false,
            true,
            CLIENT,
            answer(false),
        ),
        case(
            "Local, here",
            4,
            LoadBalancer,
            Local,
            some.clone(),
            true,
            true,
            CLIENT,
            answer(false),
        ),
        case(
            "Local, elsewhere",
            5,
            LoadBalancer,
            Local,
            some.clone(),
            false,
            true,
            CLIENT,
            Silence,
        ),
        case(
            "Local, elsewhere, host",
            6,
            LoadBalancer,
            Local,
            some.clone(),
            false,
            true,
            Host,
            answer(true),
        ),
        case(
            "Local, nowhere",
            7,
            LoadBalancer,
            Local,
            none.clone(),
            false,
            false,
            CLIENT,
            Refused,
        ),
        case(
            "VIP, nowhere",
            8,
            LoadBalancer,
            Cluster,
            none.clone(),
            false,
            false,
            CLIENT,
            Refused,
        ),
        case(
            "VIP, nowhere, host",
            9,
            LoadBalancer,
            Cluster,
            none.clone(),
            false,
            false,
            Host,
            Refused,
        ),
        case(
            "cluster IP, nowhere",
            10,
            ClusterIp,
            Cluster,
            none.clone(),
            false,
            false,
            CLIENT,
            Refused,
        ),
        case(
            "internal Local, elsewhere, host",
            11,
            ClusterIp,
            Local,
            some,
            false,
            true,
            Host,
            Silence,
        ),
    ]
}

/// The cases of dataplane.md 1.4 and 1.6, in the kernel and in the tracer.
#[test]
fn fates() {
    sandboxed("traffic::fates", || {
        let lab = Lab::new();
        lab.serve(8080);
        let cases = cases();
        let mut desired = Desired::new();
        for (family, vip, cluster) in FAMILIES {
            for case in &cases {
                let address = match case.kind {
                    ClusterIp => cluster,
                    _ => vip,
                };
                let front = frontend(
                    &format!("{address}:{}", case.number),
                    case.kind,
                    case.policy,
                );
                let mut port = service(vec![front], case.pods.clone(), case.local);
                port.usable_anywhere = case.usable;
                desired.insert(
                    key(&format!("s{}", case.number), Protocol::Tcp, family),
                    port,
                );
            }
        }
        let mut nft = Nft::open().expect("open");
        nft.adopt(&desired).expect("adopt");
        let tracer = tracer(&desired);
        for (family, vip, cluster) in FAMILIES {
            for case in &cases {
                let address = match case.kind {
                    ClusterIp => cluster,
                    _ => vip,
                };
                let to: SocketAddr = format!("{address}:{}", case.number)
                    .parse()
                    .expect("socket");
                let patience = match case.expected {
                    Outcome::Silence => BRIEFLY,
                    _ => DEADLINE,
                };
                let seen = match case.from {
                    Origin::Host => tcp(to, patience),
                    Origin::Interface(_) => lab.client.run(|| tcp(to, patience)).expect("enter"),
                };
                let outcome = match &seen {
                    Seen::Answer { peer, from, .. } => Outcome::Answer {
                        // The host's own address may stay while the port changes.
                        masquerade: peer != from,
                    },
                    Seen::Refused => Outcome::Refused,
                    Seen::Silence => Outcome::Silence,
                };
                assert_eq!(outcome, case.expected, "{}, {family}", case.name);
                match seen {
                    Seen::Answer { .. } => agree(&tracer, case.from, Protocol::Tcp, to, &seen),
                    _ => {
                        let fate = tracer.trace(&Packet {
                            from: case.from,
                            protocol: Protocol::Tcp,
                            source: SocketAddr::new([10, 0, 0, 9].into(), 1),
                            destination: to,
                        });
                        let expected = match outcome {
                            Outcome::Silence => Fate::Drop,
                            _ => Fate::Reject,
                        };
                        assert_eq!(fate, expected, "{}, {family}, tracer", case.name);
                    }
                }
            }
            let other: SocketAddr = format!("{cluster}:99").parse().expect("socket");
            let seen = lab.client.run(|| tcp(other, DEADLINE)).expect("enter");
            assert_eq!(
                seen,
                Seen::Refused,
                "cluster IP, port without a front, {family}"
            );
        }
    });
}

/// What tells Pods, and what becomes of the client's connections and of this host's
/// (dataplane.md 1.6), in the kernel and in the tracer.
#[test]
fn short_cuts() {
    sandboxed("traffic::short_cuts", || {
        use Detector::{Bridge, ClusterCidr, Prefix};
        let lab = Lab::new();
        lab.serve(8080);
        let mut desired = Desired::new();
        for (family, vip, cluster) in FAMILIES {
            // Endpoints exist, but none is on this node.
            let fronts = both(vip, cluster, 80, Local);
            desired.insert(
                key("web", Protocol::Tcp, family),
                service(fronts, 2..4, false),
            );
        }
        let mut nft = Nft::open().expect("open");
        let cidr = |text: &str| {
            let ranges = text.split(' ').map(|range| range.parse().expect("range"));
            ClusterCidr(ranges.collect())
        };
        let (pod, other) = (Some(false), None);
        // Masquerade of the client to the VIP, if that answers at all; of the client to the cluster
        // IP; of this host to both. It sends to the VIP from 10.0.0.1 and to the cluster IP from
        // 10.1.0.1; where that is a Pod's address, it is a Pod.
        let cases = [
            (Detector::default(), false, other, false, [true, false]),
            (Detector::default(), true, other, true, [true, true]),
            (
                cidr("10.0.0.0/20 fd00::/60"),
                false,
                pod,
                false,
                [false, true],
            ),
            (
                cidr("10.0.0.9/32 fd00::9/128"),
                false,
                pod,
                false,
                [true, true],
            ),
            (
                cidr("10.244.0.0/16 fd00:0:1::/64"),
                false,
                other,
                true,
                [true, true],
            ),
            (
                cidr("10.1.0.0/24 fd01::/64"),
                false,
                other,
                true,
                [true, false],
            ),
            (Bridge("client".to_owned()), false, pod, false, [true, true]),
            (Bridge("clien".to_owned()), false, other, true, [true, true]),
            (Prefix("clien".to_owned()), false, pod, false, [true, true]),
            (Prefix("pod".to_owned()), true, other, true, [true, true]),
        ];
        for (detector, masquerade_all, vip_seen, cluster_seen, own) in cases {
            let name = format!("{detector:?} {masquerade_all}");
            let sources = Sources {
                detector,
                masquerade_all,
            };
            let locality = sources.on(None);
            nft.set_locality(locality.clone());
            nft.adopt(&desired).expect("adopt");
            assert!(nft.check().expect("check").is_zero(), "read back equal");
            let tracer = tracer(&desired).with(locality);
            for (family, vip, cluster) in FAMILIES {
                let [vip, cluster]: [SocketAddr; 2] =
                    [vip, cluster].map(|ip| format!("{ip}:80").parse().expect("socket"));
                let asked = [
                    (CLIENT, vip, vip_seen),
                    (CLIENT, cluster, Some(cluster_seen)),
                    (Origin::Host, vip, Some(own[0])),
                    (Origin::Host, cluster, Some(own[1])),
                ];
                for (from, to, masquerade) in asked {
                    let patience = match masquerade {
                        Some(_) => DEADLINE,
                        None => BRIEFLY,
                    };
                    let seen = match from {
                        Origin::Host => tcp(to, patience),
                        Origin::Interface(_) => {
                            lab.client.run(|| tcp(to, patience)).expect("enter")
                        }
                    };
                    let what = format!("{name}, {from:?} to {to}, {family}");
                    match (&seen, masquerade) {
                        (Seen::Answer { peer, from, .. }, Some(masquerade)) => {
                            assert_eq!(peer != from, masquerade, "{what}");
                        }
                        (Seen::Silence, None) => continue,
                        _ => panic!("{what}: {seen:?}"),
                    }
                    agree(&tracer, from, Protocol::Tcp, to, &seen);
                }
            }
        }
    });
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    sandboxed("traffic::a_pod_reaches_itself_through_its_service", || {
        let lab = Lab::new();
        lab.serve(8080);
        let mut desired = Desired::new();
        for (family, _, cluster) in FAMILIES {
            let front = frontend(&format!("{cluster}:80"), ClusterIp, Cluster);
            let port = service(vec![front], 2..3, true);
            desired.insert(key("web", Protocol::Udp, family), port);
        }
        let mut nft = Nft::open().expect("open");
        nft.adopt(&desired).expect("adopt");
        let tracer = tracer(&desired);
        for ((_, _, cluster), pod) in FAMILIES.into_iter().zip(["10.1.0.2", "fd01::2"]) {
            let to: SocketAddr = format!("{cluster}:80").parse().expect("socket");
            let pod: IpAddr = pod.parse().expect("address");
            let seen = lab
                .pods
                .run(|| udp(SocketAddr::new(pod, 0), to))
                .expect("enter");
            agree(&tracer, POD, Protocol::Udp, to, &seen);
            let Seen::Answer { peer, .. } = seen else {
                panic!("no answer");
            };
            assert_ne!(peer.ip(), pod, "masqueraded");
        }
    });
}

#[test]
fn source_ranges_drop_the_others() {
    sandboxed("traffic::source_ranges_drop_the_others", || {
        let lab = Lab::new();
        lab.serve(8080);
        let ranges = [
            ("10.0.0.8/31", "fd00::8/125", true),
            ("10.0.0.0/29", "fd00::/126", false),
        ];
        let mut nft = Nft::open().expect("open");
        for (v4, v6, admitted) in ranges {
            let mut desired = Desired::new();
            for ((family, vip, cluster), range) in FAMILIES.into_iter().zip([v4, v6]) {
                let mut port = service(both(vip, cluster, 80, Cluster), 2..5, false);
                port.source_ranges = vec![range.parse().expect("range")];
                desired.insert(key("web", Protocol::Tcp, family), port);
            }
            nft.adopt(&desired).expect("adopt");
            assert!(
                nft.check().expect("check").is_zero(),
                "ranges read back equal"
            );
            for (family, vip, cluster) in FAMILIES {
                let [vip, cluster] =
                    [vip, cluster].map(|ip| format!("{ip}:80").parse().expect("socket"));
                let patience = if admitted { DEADLINE } else { BRIEFLY };
                let seen = lab
                    .client
                    .run(|| [tcp(vip, patience), tcp(cluster, DEADLINE)])
                    .expect("enter");
                let answers = seen.map(|seen| matches!(seen, Seen::Answer { .. }));
                assert_eq!(answers, [admitted, true], "{family}");
            }
        }
    });
}

/// More endpoints than exact chains: the tables of slots.
#[test]
fn a_large_service_uses_a_table_of_slots() {
    sandboxed("traffic::a_large_service_uses_a_table_of_slots", || {
        let lab = Lab::new();
        lab.serve(8080);
        let (family, vip, cluster) = FAMILIES[0];
        let mut port = service(both(vip, cluster, 80, Cluster), 2..10, false);
        // As many more as are needed to pass the exact chains; the default route leads to them.
        let more = (0..62u8).map(|n| SocketAddr::from(([10, 9, 0, n], 8080)));
        lab.serve_more(more.clone());
        port.cluster.extend(more);
        port.cluster.sort_unstable();
        assert!(port.cluster.len() > 64);
        let desired = Desired::from([(key("web", Protocol::Tcp, family), port)]);
        let mut nft = Nft::open().expect("open");
        let report = nft.adopt(&desired).expect("adopt");
        assert!(report.added > 2048, "{report:?}");
        let to: SocketAddr = format!("{vip}:80").parse().expect("socket");
        let tracer = tracer(&desired);
        let answered_by: BTreeSet<SocketAddr> = lab
            .client
            .run(|| {
                (0..40)
                    .map(|_| {
                        let seen = tcp(to, DEADLINE);
                        agree(&tracer, CLIENT, Protocol::Tcp, to, &seen);
                        let Seen::Answer { by, .. } = seen else {
                            panic!("no answer: {seen:?}")
                        };
                        by
                    })
                    .collect()
            })
            .expect("enter");
        // Forty draws of seventy: fewer than five different ones has a probability below 1e-40.
        assert!(answered_by.len() >= 5, "{answered_by:?}");
    });
}

/// Mode `vips` stands beside kube-proxy, whose nat chain is at dstnat: ours comes first.
#[test]
fn another_proxys_nat_chain_comes_second() {
    sandboxed("traffic::another_proxys_nat_chain_comes_second", || {
        let lab = Lab::new();
        lab.serve(8080);
        let mut rival = Batch::new("rival");
        rival.add_table(0);
        rival.add_chain(&ChainSpec {
            name: "nat-prerouting".to_owned(),
            base: Some((Flow::Nat, Hook::Prerouting, -100)),
        });
        let [address, port] = [[10, 1, 0, 9], [0x1f, 0x90, 0, 0]].map(u32::from_ne_bytes);
        let (at, number) = (Reg(4), Reg(5));
        let exprs = [
            Expr::Payload {
                base: Base::Network,
                offset: 16,
                length: 4,
                to: at,
            },
            Expr::Cmp {
                reg: at,
                op: Op::Eq,
                with: vec![10, 0, 0, 101],
            },
            Expr::Word {
                to: at,
                value: address,
            },
            Expr::Word {
                to: number,
                value: port,
            },
            Expr::Dnat {
                family: NfProto::V4,
                address: at,
                port: number,
            },
        ];
        rival.add_rule("nat-prerouting", &exprs, &[]);
        Socket::open()
            .expect("socket")
            .commit(rival)
            .expect("rival");

        let front = frontend("10.0.0.101:80", LoadBalancer, Cluster);
        let web = key("web", Protocol::Tcp, Family::V4);
        let desired = Desired::from([(web, service(vec![front], 2..3, false))]);
        let mut nft = Nft::open().expect("open");
        nft.adopt(&desired).expect("adopt");
        let to = "10.0.0.101:80".parse().expect("socket");
        let who = || match lab.client.run(|| tcp(to, DEADLINE)).expect("enter") {
            Seen::Answer { by, .. } => by.ip().to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(who(), "10.1.0.2");
        nft.remove().expect("remove");
        assert_eq!(who(), "10.1.0.9", "the rival works when we are gone");
    });
}

/// Addresses that only a Service could have are not looked for elsewhere: here, behind the node's
/// default route, where somebody answers.
#[test]
fn cluster_ips_that_no_service_has_lead_nowhere() {
    let name = "traffic::cluster_ips_that_no_service_has_lead_nowhere";
    sandboxed(name, || {
        let lab = Lab::new();
        lab.serve(8080);
        let mut desired = Desired::new();
        let mut elsewhere = Vec::new();
        for (family, vip, cluster) in FAMILIES {
            desired.insert(
                key("web", Protocol::Tcp, family),
                service(both(vip, cluster, 80, Cluster), 2..4, false),
            );
            let address = cluster.trim_end_matches("1]").trim_end_matches('1');
            let end = if family == Family::V6 { "4d]" } else { "77" };
            let at: SocketAddr = format!("{address}{end}:8080").parse().expect("socket");
            elsewhere.push((family, cluster, at));
        }
        lab.serve_more(elsewhere.iter().map(|(_, _, at)| *at));
        let mut nft = Nft::open().expect("open");
        // Ranges, and whether the addresses are in them: whole words, and bits of one.
        let cases = [
            ("", false),
            ("10.96.0.0/16 fd96::/64", true),
            ("10.96.0.64/27 fd96::40/123", true),
            ("10.96.0.80/28 fd96::50/124", false),
            ("10.96.0.0/25 10.96.0.0/16 fd90::/12", true),
            ("", false),
        ];
        for (ranges, within) in cases {
            let ranges = ranges.split_whitespace();
            let ranges = ranges.map(|range| range.parse().expect("range"));
            let locality = Sources::default().on(None).within(ranges);
            nft.set_locality(locality.clone());
            nft.adopt(&desired).expect("adopt");
            assert!(nft.check().expect("check").is_zero(), "read back equal");
            let tracer = tracer(&desired).with(locality.clone());
            for (family, cluster, at) in &elsewhere {
                let what = format!("{:?} {family}", locality.cluster_ranges);
                for from in [CLIENT, Origin::Host] {
                    let connect = |to, patience| match from {
                        Origin::Host => tcp(to, patience),
                        Origin::Interface(_) => {
                            lab.client.run(|| tcp(to, patience)).expect("enter")
                        }
                    };
                    let source = SocketAddr::new(at.ip(), 9);
                    let destination = *at;
                    let fate = tracer.trace(&Packet {
                        from,
                        protocol: Protocol::Tcp,
                        source,
                        destination,
                    });
                    if within {
                        assert_eq!(fate, Fate::Drop, "{what}");
                        assert_eq!(connect(destination, BRIEFLY), Seen::Silence, "{what}");
                    } else {
                        assert_eq!(fate, Fate::Pass, "{what}");
                        let seen = connect(destination, DEADLINE);
                        let Seen::Answer { by, .. } = seen else {
                            panic!("{what}: {seen:?}");
                        };
                        assert_eq!(by, destination, "{what}");
                    }
                    // What Services have is theirs as before.
                    let to = |port| format!("{cluster}:{port}").parse().expect("socket");
                    let served = connect(to(80), DEADLINE);
                    assert!(matches!(served, Seen::Answer { .. }), "{what}: {served:?}");
                    // The host's own first packet cannot be refused while it is sent: a second each.
                    if from == CLIENT {
                        assert_eq!(connect(to(81), DEADLINE), Seen::Refused, "{what}");
                    }
                }
            }
        }
        // The node's own addresses are its own, whatever the range: nobody listens there.
        let ranges = ["10.0.0.0/24", "fd00::/64"].map(|range| range.parse().expect("range"));
        nft.set_locality(Sources::default().on(None).within(ranges));
        nft.adopt(&desired).expect("adopt");
        for own in ["10.0.0.1:99", "[fd00::1]:99"] {
            let own: SocketAddr = own.parse().expect("socket");
            let seen = lab.client.run(|| tcp(own, DEADLINE)).expect("enter");
            assert_eq!(seen, Seen::Refused, "{own} of the node, from elsewhere");
            assert_eq!(tcp(own, DEADLINE), Seen::Refused, "{own} of the node");
        }
    });
}
