//! Packets through the rules: what the tracer says is what the kernel does.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use dataplane::nft::Nft;
use plan::forward::{Fate, Frontend, FrontendKind, Origin, Packet, ServicePort, Tracer};
use plan::net::{Family, Protocol};
use plan::world::Policy::{self, Cluster, Local};

use super::lab::{Desired, Lab, Seen, frontend, key, sandboxed, service, tcp, udp};
use FrontendKind::{ClusterIp, LoadBalancer};

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

fn tracer(desired: &Desired) -> Tracer {
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
fn agree(tracer: &Tracer, from: Origin, protocol: Protocol, to: SocketAddr, seen: &Seen) {
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
                                        (Protocol::Tcp, _) => tcp(to),
                                        (_, Family::V4) => udp([10, 0, 0, 9].into(), to),
                                        (_, Family::V6) => udp("fd00::9".parse().expect("ip"), to),
                                    };
                                    agree(&tracer, Origin::Interface, protocol, to, &seen);
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

/// A service port with one kind of front, for the fates.
fn port(front: &str, kind: FrontendKind, policy: Policy, pods: u8, local: bool) -> ServicePort {
    service(vec![frontend(front, kind, policy)], 2..2 + pods, local)
}
