//! Node ports on the loopback, as this host's own processes meet them.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use dataplane::nft::Nft;
use linux::nft::{Base, Batch, ChainSpec, Expr, Flow, Hook, NfProto, Op, Reg, Socket};
use plan::forward::{Detector, Fate, FrontendKind, Locality, Loopback, Origin, Packet, Sources};
use plan::net::{Family, Protocol};
use plan::world::Policy::{self, Cluster, Local};

use super::lab::{DEADLINE, Desired, Lab, Seen, frontend, ip, key, sandboxed};
use super::lab::{serve, service, tcp, udp};
use super::traffic::{agree, tracer};

const FAMILIES: [(Family, &str, &str); 2] = [
    (Family::V4, "127.0.0.1", "10.1.0.1"),
    (Family::V6, "::1", "fd01::1"),
];

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

/// With node ports on the loopback, whose connections go on from the node's second address; this
/// host counts as a Pod.
fn locality() -> Locality {
    let sources = Sources {
        detector: Detector::ClusterCidr(
            ["10.1.0.0/16", "fd01::/64"]
                .map(|range| range.parse().expect("a range"))
                .to_vec(),
        ),
        masquerade_all: false,
    };
    Locality {
        loopback: Loopback {
            v4: Some([10, 1, 0, 1].into()),
            v6: Some("fd01::1".parse().expect("an address")),
        },
        ..sources.on(None)
    }
}

/// A node port for each protocol and family with these endpoints, elsewhere or here.
fn add(desired: &mut Desired, number: u16, policy: Policy, pods: std::ops::Range<u8>) {
    for (family, loopback, own) in FAMILIES {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let fronts = [loopback, own].map(|address| {
                let socket = at(address, number).to_string();
                frontend(&socket, FrontendKind::NodePort, policy)
            });
            let port = service(fronts.to_vec(), pods.clone(), false);
            desired.insert(key(&format!("s{number}"), protocol, family), port);
        }
    }
}

fn ask(protocol: Protocol, from: IpAddr, to: SocketAddr) -> Seen {
    match protocol {
        Protocol::Udp => udp(SocketAddr::new(from, 0), to),
        _ => tcp(to, DEADLINE),
    }
}

/// Cluster, Local with endpoints elsewhere, nobody, a server of this host's own that another
/// Service's endpoint is, and the counter.
#[test]
fn every_protocol_and_policy() {
    sandboxed("loopback::every_protocol_and_policy", || {
        let lab = Lab::new();
        lab.serve(8080);
        for (_, _, own) in FAMILIES {
            serve(at(own, 8080));
        }
        let mut desired = Desired::new();
        add(&mut desired, 30_001, Cluster, 2..5);
        add(&mut desired, 30_002, Local, 2..5);
        add(&mut desired, 30_003, Cluster, 2..2);
        // The endpoint is a process on the host's network.
        add(&mut desired, 30_004, Cluster, 1..2);
        let mut nft = Nft::open().expect("open");
        nft.set_locality(locality());
        nft.adopt(&desired).expect("adopt");
        assert!(nft.check().expect("check").is_zero(), "read back equal");
        let tracer = tracer(&desired).with(locality());
        let (mut connections, mut distinct) = (0, BTreeSet::new());
        for (family, loopback, own) in FAMILIES {
            let from: IpAddr = loopback.parse().expect("an address");
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                for (number, endpoints) in [(30_001, 3), (30_002, 3), (30_004, 1)] {
                    let to = at(loopback, number);
                    let mut seen = BTreeSet::new();
                    // All miss one of three with a chance of 3 × (2/3)^60, 1 in 12 thousand million.
                    for _ in 0..60 {
                        let answer = ask(protocol, from, to);
                        agree(&tracer, Origin::Host, protocol, to, &answer);
                        let Seen::Answer { by, peer, from } = answer else {
                            panic!("{protocol} to {to}: {answer:?}");
                        };
                        assert!(from.ip().is_loopback(), "{from}");
                        // Over `lo` it is masqueraded with any of this host's.
                        if endpoints > 1 {
                            assert_eq!(peer.ip(), own.parse::<IpAddr>().expect("ip"), "{to}");
                        }
                        assert!(!peer.ip().is_loopback(), "{peer}");
                        seen.insert(by);
                        connections += 1;
                        distinct.insert((protocol, to, from));
                    }
                    assert_eq!(seen.len(), endpoints, "{protocol} to {to}: {seen:?}");
                }
            }
            // Where UDP is rejected, sending fails.
            let refused = tcp(at(loopback, 30_003), DEADLINE);
            assert_eq!(refused, Seen::Refused, "{family}");
        }
        // A UDP client that has got the port of one before it goes on with that one's connection.
        let counted = nft.loopback_connections().expect("counted");
        let expected = distinct.len() as u64..=connections;
        assert!(
            counted.is_some_and(|counted| expected.contains(&counted)),
            "{counted:?} of {expected:?}"
        );
        // Without it, nothing of it is there.
        nft.set_locality(Locality::default());
        assert_eq!(nft.loopback_connections().expect("counted"), None);
    });
}

/// An echo, one connection.
fn echo(listener: TcpListener) {
    std::thread::spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else {
            return;
        };
        let mut buffer = [0; 4096];
        while let Ok(length) = stream.read(&mut buffer) {
            if length == 0 || stream.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
    });
}

fn goes_on(stream: &mut TcpStream) {
    // More than a packet, both ways.
    let sent: Vec<u8> = (0..50_000u32).map(|number| number as u8).collect();
    let mut writer = stream.try_clone().expect("clone");
    let copy = sent.clone();
    let thread = std::thread::spawn(move || writer.write_all(&copy));
    let mut received = vec![0; sent.len()];
    stream.read_exact(&mut received).expect("the echo");
    thread.join().expect("no panic").expect("written");
    assert_eq!(received, sent);
}

/// A connection goes on when its Service is gone, when its node port comes again elsewhere, and
/// when the rules are there from another process.
#[test]
fn connections_outlive_their_service() {
    sandboxed("loopback::connections_outlive_their_service", || {
        let lab = Lab::new();
        let mut desired = Desired::new();
        add(&mut desired, 30_001, Cluster, 2..3);
        let mut nft = Nft::open().expect("open");
        nft.set_locality(locality());
        nft.adopt(&desired).expect("adopt");
        let mut streams = FAMILIES.map(|(family, loopback, _)| {
            let pod = match family {
                Family::V4 => "10.1.0.2",
                Family::V6 => "fd01::2",
            };
            let listener = lab.pods.run(|| TcpListener::bind(at(pod, 8080)));
            echo(listener.expect("enter").expect("listen"));
            let stream = TcpStream::connect_timeout(&at(loopback, 30_001), DEADLINE);
            let stream = stream.expect("connect");
            stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
            // What the client sees is the loopback.
            assert_eq!(stream.peer_addr().expect("peer"), at(loopback, 30_001));
            stream
        });
        streams.iter_mut().for_each(goes_on);
        let gone: Vec<_> = desired.keys().map(|key| (key.clone(), None)).collect();
        nft.apply(&gone).expect("apply");
        streams.iter_mut().for_each(goes_on);
        for (_, loopback, _) in FAMILIES {
            let seen = tcp(at(loopback, 30_001), DEADLINE);
            assert_eq!(seen, Seen::Refused, "nobody listens");
        }
        drop(nft);
        streams.iter_mut().for_each(goes_on);
        let mut nft = Nft::open().expect("open");
        nft.set_locality(locality());
        let report = nft.adopt(&desired).expect("adopt");
        assert!(!report.rules_replaced, "they are right");
        streams.iter_mut().for_each(goes_on);
    });
}

/// What is between this host's processes alone stays so: servers on other ports, clients whose own
/// port is a node port, another program's redirection. And a node port wins over a server.
#[test]
fn others_on_the_loopback() {
    sandboxed("loopback::others_on_the_loopback", || {
        let lab = Lab::new();
        lab.serve(8080);
        let mut desired = Desired::new();
        add(&mut desired, 30_001, Cluster, 2..3);
        add(&mut desired, 30_002, Cluster, 2..3);
        let mut nft = Nft::open().expect("open");
        nft.set_locality(locality());
        nft.adopt(&desired).expect("adopt");
        // Another program's, from one port of the loopback to another.
        let redirect = "table inet other { chain out { type nat hook output priority dstnat; \
                        meta oif lo tcp dport 7001 redirect to :7000; } }";
        let redirected = std::process::Command::new("nft").arg(redirect).status();
        let redirected = redirected.is_ok_and(|status| status.success());
        for (_, loopback, _) in FAMILIES {
            serve(at(loopback, 7000));
            serve(at(loopback, 30_001));
            let ports: &[u16] = if redirected { &[7000, 7001] } else { &[7000] };
            for port in ports {
                let Seen::Answer { by, peer, from } = tcp(at(loopback, *port), DEADLINE) else {
                    panic!("no answer at {port}");
                };
                assert_eq!((by, peer), (at(loopback, 7000), from));
            }
            // Replies go to a port with the number of a node port.
            let (client, by) = (at(loopback, 30_002), at(loopback, 7000));
            let seen = udp(client, by);
            let (peer, from) = (client, client);
            assert_eq!(seen, Seen::Answer { by, peer, from });
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let from: IpAddr = loopback.parse().expect("an address");
                let seen = ask(protocol, from, at(loopback, 30_001));
                let Seen::Answer { by, .. } = seen else {
                    panic!("{protocol}: {seen:?}");
                };
                assert_eq!(by.port(), 8080, "the Service's endpoint, not the server");
            }
        }
    });
}

/// From now on what the calling thread's namespace sends to `from` has 127.0.0.1 as its destination
/// on the wire. There must be a gateway to `from`: without one, 127.0.0.1 would be asked for.
fn send_to_loopback(from: [u8; 4]) {
    let destination = 16;
    let exprs = [
        Expr::Payload {
            base: Base::Network,
            offset: destination,
            length: 4,
            to: Reg(0),
        },
        Expr::Cmp {
            reg: Reg(0),
            op: Op::Eq,
            with: from.to_vec(),
        },
        Expr::Bytes {
            to: Reg(0),
            value: vec![127, 0, 0, 1],
        },
        Expr::SetAddress {
            family: NfProto::V4,
            offset: destination,
            from: Reg(0),
        },
    ];
    let mut batch = Batch::new("forged");
    batch.add_table(0);
    batch.add_chain(&ChainSpec {
        name: "out".to_owned(),
        base: Some((Flow::Filter, Hook::Postrouting, 300)),
    });
    batch.add_rule("out", &exprs, &[]);
    let mut socket = Socket::open().expect("open");
    socket.commit(batch).expect("commit");
}

/// The network does not get at them: nat would lead it to an endpoint before routing refuses such a
/// destination.
#[test]
fn they_are_this_hosts_alone() {
    sandboxed("loopback::they_are_this_hosts_alone", || {
        let lab = Lab::new();
        let pod = lab.pods.run(|| UdpSocket::bind(at("10.1.0.2", 8080)));
        let pod = pod.expect("enter").expect("bind");
        pod.set_read_timeout(Some(DEADLINE)).expect("timeout");
        let received = || {
            let mut byte = [0];
            pod.recv(&mut byte).expect("a datagram");
            byte[0]
        };
        let mut desired = Desired::new();
        add(&mut desired, 30_001, Cluster, 2..3);
        let mut nft = Nft::open().expect("open");
        nft.adopt(&desired).expect("adopt");
        ip("-n client route add 10.1.0.1 via 10.0.0.1");
        lab.client
            .run(|| send_to_loopback([10, 0, 0, 101]))
            .expect("enter");
        let send = |to: &str, byte: u8| {
            let send = || {
                let socket = UdpSocket::bind(at("10.0.0.9", 0)).expect("bind");
                socket.send_to(&[byte], at(to, 30_001)).expect("send");
            };
            lab.client.run(send).expect("enter");
        };
        // Were there no guard, it would arrive.
        send("10.0.0.101", 1);
        assert_eq!(received(), 1);
        nft.set_locality(locality());
        nft.adopt(&desired).expect("adopt");
        send("10.0.0.101", 2);
        send("10.1.0.1", 3);
        assert_eq!(received(), 3);
        let tracer = tracer(&desired).with(locality());
        let packet = Packet {
            from: Origin::Interface("client"),
            protocol: Protocol::Udp,
            source: at("10.0.0.9", 40_000),
            destination: at("127.0.0.1", 30_001),
        };
        assert_eq!(tracer.trace(&packet), Fate::Drop);
    });
}
