//! UDP connections to endpoints that serve no more are forgotten, and nothing else.

use std::net::SocketAddr;

use dataplane::conntrack::Reconciler;
use dataplane::nft::Nft;
use plan::forward::{FrontendKind, PortKey, ServicePort, Serving};
use plan::net::{Family, Protocol};
use plan::world::Policy::Cluster;

use super::lab::{DEADLINE, Desired, Lab, Seen, frontend, key, sandboxed, service, tcp, udp};

fn port(front: &str, pods: std::ops::Range<u8>) -> ServicePort {
    let front = frontend(front, FrontendKind::ClusterIp, Cluster);
    let port = service(vec![front], pods, false);
    ServicePort {
        serving: port.cluster.clone(),
        ..port
    }
}

fn answered(seen: Seen) -> SocketAddr {
    match seen {
        Seen::Answer { by, .. } => by,
        other => panic!("{other:?}"),
    }
}

/// A client with one source port follows its Service: when the endpoint is replaced, and when it
/// began before there was one.
#[test]
fn a_client_follows_its_service() {
    sandboxed("conntrack::a_client_follows_its_service", || {
        let lab = Lab::new();
        lab.serve(8080);
        let mut reconciler = Reconciler::open().expect("open");
        for (family, front, client) in [
            (Family::V4, "10.96.0.1:80", "10.0.0.9:4000"),
            (Family::V6, "[fd96::1]:80", "[fd00::9]:4000"),
        ] {
            let key = |name| key(name, Protocol::Udp, family);
            let web = key("web");
            let mut nft = Nft::open().expect("open");
            let to: SocketAddr = front.parse().expect("socket");
            let client: SocketAddr = client.parse().expect("socket");
            let ask = || lab.client.run(|| udp(client, to)).expect("enter");
            let tell = |nft: &mut Nft, reconciler: &mut Reconciler, pods| {
                let change = (web.clone(), Some(port(front, pods)));
                nft.apply(&[change]).expect("apply");
                let serving = Serving::of(nft.table(), [&web], family);
                reconciler.reconcile(&serving, family).expect("reconcile")
            };
            nft.adopt(&Desired::from([(web.clone(), port(front, 2..3))]))
                .expect("adopt");
            let first = answered(ask());
            // Somebody else's connection, which stays, and another Service's.
            let other = port(&front.replace(":80", ":81"), 2..3);
            nft.apply(&[(key("other"), Some(other))]).expect("apply");
            let elsewhere = SocketAddr::new(to.ip(), 81);
            let another = SocketAddr::new(client.ip(), 4001);
            answered(lab.client.run(|| udp(another, elsewhere)).expect("enter"));

            // The kernel remembers; then it is told to forget.
            let change = (web.clone(), Some(port(front, 3..4)));
            nft.apply(&[change]).expect("apply");
            assert_eq!(answered(ask()), first, "the kernel goes by what it knows");
            assert_eq!(tell(&mut nft, &mut reconciler, 3..4), 1);
            let second = answered(ask());
            assert_ne!(second, first);
            // It serves on among others: nothing is forgotten.
            assert_eq!(tell(&mut nft, &mut reconciler, 3..9), 0);
            assert_eq!(answered(ask()), second);
            // Nobody serves: there is nowhere else to lead it.
            assert_eq!(tell(&mut nft, &mut reconciler, 3..3), 0);
            assert_eq!(tell(&mut nft, &mut reconciler, 2..3), 1);
            assert_eq!(answered(ask()), first);
        }
    });
}

/// A connection that began before the Service was known is led to it; TCP is never touched.
#[test]
fn what_began_too_early_is_led_right() {
    sandboxed("conntrack::what_began_too_early_is_led_right", || {
        let lab = Lab::new();
        lab.serve(8080);
        let mut reconciler = Reconciler::open().expect("open");
        let mut nft = Nft::open().expect("open");
        nft.adopt(&Desired::new()).expect("adopt");
        // The Pod's own address is the address of the Service, on a port that nobody listens on.
        let to: SocketAddr = "10.1.0.9:53".parse().expect("socket");
        let client: SocketAddr = "10.0.0.9:4000".parse().expect("socket");
        let ask = || lab.client.run(|| udp(client, to)).expect("enter");
        assert_eq!(ask(), Seen::Refused);
        let tcp_to: SocketAddr = "10.1.0.9:8080".parse().expect("socket");
        let by = |seen| answered(seen);
        by(lab.client.run(|| tcp(tcp_to, DEADLINE)).expect("enter"));
        let udp_key = key("early", Protocol::Udp, Family::V4);
        let tcp_key: PortKey = key("early", Protocol::Tcp, Family::V4);
        let changes = [
            (udp_key.clone(), Some(port("10.1.0.9:53", 2..3))),
            (tcp_key.clone(), Some(port("10.1.0.9:8080", 2..3))),
        ];
        nft.apply(&changes).expect("apply");
        let serving = Serving::of(nft.table(), [&udp_key, &tcp_key], Family::V4);
        let forgotten = reconciler.reconcile(&serving, Family::V4);
        assert_eq!(forgotten.expect("reconcile"), 1);
        assert_eq!(answered(ask()), "10.1.0.2:8080".parse().expect("socket"));
    });
}
