//! Session affinity: whom a client was led to is whom it gets again.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use dataplane::nft::{Nft, TABLE};
use linux::nft::Socket;
use plan::forward::{Fate, FrontendKind, Origin, Packet, ServicePort};
use plan::net::{Family, Protocol};
use plan::world::Policy::{Cluster, Local};

use super::lab::{DEADLINE, Desired, Lab, Seen, frontend, key, sandboxed, service, tcp, udp};
use super::traffic::tracer;

/// More connections than chance leads to one endpoint of seven: once in 10^33.
const MANY: usize = 40;

fn port(family: Family, pods: std::ops::Range<u8>, seconds: Option<u32>) -> ServicePort {
    let fronts = match family {
        Family::V4 => ["10.0.0.101:80", "10.96.0.1:80"],
        Family::V6 => ["[fd00::101]:80", "[fd96::1]:80"],
    };
    let kinds = [FrontendKind::LoadBalancer, FrontendKind::ClusterIp];
    let fronts = fronts.into_iter().zip(kinds);
    ServicePort {
        affinity_seconds: seconds,
        ..service(
            fronts
                .map(|(front, kind)| frontend(front, kind, Cluster))
                .collect(),
            pods,
            false,
        )
    }
}

/// Source ports of datagrams: each its own, for the kernel remembers whom a port was led to.
static PORTS: AtomicU16 = AtomicU16::new(20_000);

/// Who answers the client, asked [`MANY`] times by every address of the port in turns.
fn answers(lab: &Lab, port: &ServicePort, protocol: Protocol) -> BTreeSet<SocketAddr> {
    let asked = port.frontends.iter().cycle().take(MANY);
    lab.client
        .run(|| {
            asked
                .map(|front| {
                    let to = SocketAddr::new(front.address, front.port);
                    let source: IpAddr = match to {
                        SocketAddr::V4(_) => [10, 0, 0, 9].into(),
                        SocketAddr::V6(_) => "fd00::9".parse().expect("address"),
                    };
                    let seen = match protocol {
                        Protocol::Tcp => tcp(to, DEADLINE),
                        _ => {
                            let port = PORTS.fetch_add(1, Ordering::Relaxed);
                            udp(SocketAddr::new(source, port), to)
                        }
                    };
                    match seen {
                        Seen::Answer { by, .. } => by,
                        other => panic!("{protocol} to {to}: {other:?}"),
                    }
                })
                .collect()
        })
        .expect("enter")
}

/// Clients that are remembered, in both families.
fn remembered() -> usize {
    let mut socket = Socket::open().expect("socket");
    let sets = socket.sets(TABLE).expect("sets");
    let mut count = 0;
    for set in sets.iter().filter(|name| name.starts_with("kept")) {
        let each = &mut |_: linux::nft::ElementInfo<'_>| count += 1;
        socket.elements(TABLE, set, each).expect("elements");
    }
    count
}

#[test]
fn a_client_keeps_its_endpoint() {
    sandboxed("affinity::a_client_keeps_its_endpoint", || {
        let lab = Lab::new();
        lab.serve(8080);
        for family in [Family::V4, Family::V6] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let key = key("web", protocol, family);
                let all = port(family, 2..9, Some(10_800));
                let desired = Desired::from([(key.clone(), all.clone())]);
                let mut nft = Nft::open().expect("open");
                nft.adopt(&desired).expect("adopt");
                let first = answers(&lab, &all, protocol);
                assert_eq!(first.len(), 1, "{family} {protocol}: {first:?}");

                // It survives the agent.
                drop(nft);
                let mut nft = Nft::open().expect("open");
                assert!(nft.adopt(&desired).expect("adopt").is_zero());
                assert_eq!(answers(&lab, &all, protocol), first);
                if protocol == Protocol::Tcp {
                    // Whose source ports may come again.
                    continue;
                }

                // Its endpoint leaves: another one, and that one stays when the first is back.
                let mut fewer = all.clone();
                fewer.cluster.retain(|endpoint| !first.contains(endpoint));
                let change = (key.clone(), Some(fewer.clone()));
                nft.apply(&[change]).expect("apply");
                let second = answers(&lab, &fewer, protocol);
                assert_eq!(second.len(), 1, "{family} {protocol}: {second:?}");
                assert_ne!(second, first);
                let change = (key.clone(), Some(all.clone()));
                nft.apply(&[change]).expect("apply");
                assert_eq!(answers(&lab, &all, protocol), second);

                // Switched off and on again while it runs, with a timeout of its own.
                let off = port(family, 2..9, None);
                nft.apply(&[(key.clone(), Some(off.clone()))])
                    .expect("apply");
                let spread = answers(&lab, &off, protocol);
                assert!(spread.len() > 1, "{family} {protocol}: {spread:?}");
                let on = port(family, 2..9, Some(600));
                let report = nft.apply(&[(key, Some(on.clone()))]).expect("apply");
                assert!(report.rules_replaced, "a timeout that was not in use");
                assert_eq!(answers(&lab, &on, protocol).len(), 1);
            }
        }
    });
}

/// Policy Local at the VIP, Cluster at the cluster IP: a client is known at both, by the kernel as
/// by the tracer; and so is this host, which takes the short cut.
#[test]
fn both_policies_remember_a_client() {
    sandboxed("affinity::both_policies_remember_a_client", || {
        let lab = Lab::new();
        lab.serve(8080);
        for family in [Family::V4, Family::V6] {
            let mut all = port(family, 2..9, Some(10_800));
            all.frontends[0].policy = Local;
            // Two of seven are here.
            all.local = all.cluster.iter().take(2).copied().collect();
            let desired = Desired::from([(key("web", Protocol::Tcp, family), all.clone())]);
            let mut nft = Nft::open().expect("open");
            nft.adopt(&desired).expect("adopt");
            let mut tracer = tracer(&desired);
            let [vip, cluster] = [0, 1].map(|n: usize| {
                let front = &all.frontends[n];
                SocketAddr::new(front.address, front.port)
            });
            // The VIP first, for its endpoints are in both sets. The host has another address for
            // each.
            for (host, tos) in [(false, [vip, cluster]), (true, [vip, vip])] {
                let mut found = BTreeSet::new();
                for to in tos.into_iter().cycle().take(MANY) {
                    let seen = match host {
                        true => tcp(to, DEADLINE),
                        false => lab.client.run(|| tcp(to, DEADLINE)).expect("enter"),
                    };
                    let Seen::Answer { by, from, .. } = seen else {
                        panic!("{to}: {seen:?}");
                    };
                    found.insert(by);
                    let packet = Packet {
                        from: match host {
                            true => Origin::Host,
                            false => Origin::Interface("client"),
                        },
                        protocol: Protocol::Tcp,
                        source: from,
                        destination: to,
                    };
                    let fate = tracer.connect(&packet);
                    assert!(
                        matches!(fate, Fate::Dnat { to, .. } if to == by),
                        "{packet:?}: {by} and {fate:?}"
                    );
                }
                assert_eq!(found.len(), 1, "{family} {host}: {found:?}");
            }
        }
    });
}

/// The time begins anew with each connection; then the client is forgotten.
#[test]
fn a_client_is_forgotten_after_its_time() {
    sandboxed("affinity::a_client_is_forgotten_after_its_time", || {
        let lab = Lab::new();
        lab.serve(8080);
        let mut nft = Nft::open().expect("open");
        for family in [Family::V4, Family::V6] {
            let port = port(family, 2..9, Some(1));
            let desired = Desired::from([(key("web", Protocol::Tcp, family), port.clone())]);
            nft.adopt(&desired).expect("adopt");
            answers(&lab, &port, Protocol::Tcp);
            let start = Instant::now();
            while remembered() > 0 {
                assert!(start.elapsed() < DEADLINE, "{family}: still remembered");
                std::thread::yield_now();
            }
        }
    });
}
