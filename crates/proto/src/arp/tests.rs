use std::net::Ipv4Addr;

use etherparse::{ArpOperation, NetSlice, SlicedPacket};
use proptest::prelude::*;

use super::*;
use crate::{
    ethernet::{self, Mac},
    responder::DropReason,
};

const ME: Mac = Mac([2, 0, 0, 0, 0, 1]);
const CLIENT: Mac = Mac([2, 0, 0, 0, 0, 9]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 0x77]);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 101);
const CLIENT_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

fn request() -> Packet {
    Packet {
        destination: Mac::BROADCAST,
        source: CLIENT,
        operation: Operation::Request,
        sender_mac: CLIENT,
        sender_ip: CLIENT_IP,
        target_mac: Mac::ZERO,
        target_ip: VIP,
    }
}

fn responder() -> Responder {
    let mut responder = Responder::new(ME);
    assert!(responder.announce(VIP, None));
    responder
}

/// What etherparse reads from a frame, as a `Packet`.
fn oracle(frame: &[u8]) -> Packet {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let etherparse::LinkSlice::Ethernet2(link) = sliced.link.unwrap() else {
        panic!("no Ethernet")
    };
    let Some(NetSlice::Arp(arp)) = sliced.net else {
        panic!("no ARP")
    };
    let mac = |bytes: &[u8]| Mac(bytes.try_into().unwrap());
    let ip = |bytes: &[u8]| Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap());
    assert_eq!(arp.hw_addr_type(), etherparse::ArpHardwareId::ETHERNET);
    Packet {
        destination: Mac(link.destination()),
        source: Mac(link.source()),
        operation: match arp.operation() {
            ArpOperation::REQUEST => Operation::Request,
            ArpOperation::REPLY => Operation::Reply,
            other => panic!("operation {other:?}"),
        },
        sender_mac: mac(arp.sender_hw_addr()),
        sender_ip: ip(arp.sender_protocol_addr()),
        target_mac: mac(arp.target_hw_addr()),
        target_ip: ip(arp.target_protocol_addr()),
    }
}

#[test]
fn etherparse_reads_what_we_build() {
    let packet = request();
    assert_eq!(oracle(&packet.build()), packet);
    for frame in gratuitous(ME, VIP, ME) {
        assert_eq!(oracle(&frame), Packet::parse(&frame).unwrap());
    }
}

#[test]
fn request_gets_a_unicast_reply() {
    let Outcome::Reply(frame) = responder().on_frame(&request().build()) else {
        panic!()
    };
    assert_eq!(
        oracle(&frame),
        Packet {
            destination: CLIENT,
            source: ME,
            operation: Operation::Reply,
            sender_mac: ME,
            sender_ip: VIP,
            target_mac: CLIENT,
            target_ip: CLIENT_IP,
        }
    );
}

#[test]
fn frames_and_their_outcomes() {
    let reply_kind = |packet: Packet| match responder().on_frame(&packet.build()) {
        Outcome::Reply(frame) => Err(oracle(&frame)),
        outcome => Ok(outcome),
    };
    let conflict = Ok(Outcome::Conflict {
        ip: VIP,
        mac: OTHER,
    });
    let ignored = |reason| Ok(Outcome::Ignored(reason));
    let base = request();
    let other = Packet {
        source: OTHER,
        sender_mac: OTHER,
        ..base
    };
    #[rustfmt::skip]
    let cases = [
        ("reply of another address", Packet { operation: Operation::Reply, ..base }, ignored(DropReason::NotRequest)),
        ("to another station", Packet { destination: OTHER, ..base }, ignored(DropReason::NotForUs)),
        ("to a multicast group", Packet { destination: Mac([1, 0, 0x5e, 0, 0, 1]), ..base }, ignored(DropReason::NotForUs)),
        ("another address", Packet { target_ip: CLIENT_IP, ..base }, ignored(DropReason::NotAnnounced)),
        ("broadcast as sender", Packet { sender_mac: Mac::BROADCAST, ..base }, ignored(DropReason::BadSender)),
        ("zero as sender", Packet { sender_mac: Mac::ZERO, ..base }, ignored(DropReason::BadSender)),
        ("our own", Packet { sender_mac: ME, sender_ip: VIP, ..base }, ignored(DropReason::Own)),
        ("stranger's request from our address", Packet { sender_ip: VIP, target_ip: CLIENT_IP, ..other }, conflict.clone()),
        ("stranger's gratuitous request", Packet { sender_ip: VIP, ..other }, conflict.clone()),
        ("stranger's gratuitous reply", Packet { operation: Operation::Reply, sender_ip: VIP, target_mac: OTHER, ..other }, conflict.clone()),
        ("stranger's reply, overheard", Packet { operation: Operation::Reply, destination: CLIENT, sender_ip: VIP, ..other }, conflict),
    ];
    for (name, packet, want) in cases {
        assert_eq!(reply_kind(packet), want, "{name}");
    }
}

#[test]
fn a_host_asks_where_another_is() {
    let (own, peer) = (Ipv4Addr::new(10, 0, 0, 11), Ipv4Addr::new(10, 0, 0, 12));
    for (at, destination) in [(None, Mac::BROADCAST), (Some(OTHER), OTHER)] {
        let want = Packet {
            destination,
            source: ME,
            operation: Operation::Request,
            sender_mac: ME,
            sender_ip: own,
            target_mac: Mac::ZERO,
            target_ip: peer,
        };
        assert_eq!(oracle(&super::request(ME, own, peer, at)), want);
    }
}

#[test]
fn who_has_an_address_that_is_watched_is_told_of() {
    let question = probe(ME, VIP);
    let asked = oracle(&question);
    assert_eq!(asked.destination, Mac::BROADCAST);
    assert_eq!((asked.source, asked.sender_mac), (ME, ME));
    assert_eq!(asked.sender_ip, Ipv4Addr::UNSPECIFIED);
    assert_eq!(
        (asked.target_ip, asked.operation),
        (VIP, Operation::Request)
    );

    let mut responder = Responder::new(ME);
    let answer = Packet {
        destination: ME,
        source: OTHER,
        operation: Operation::Reply,
        sender_mac: OTHER,
        sender_ip: VIP,
        target_mac: ME,
        target_ip: Ipv4Addr::UNSPECIFIED,
    }
    .build();
    let conflict = Outcome::Conflict {
        ip: VIP,
        mac: OTHER,
    };
    let not_request = Outcome::Ignored(DropReason::NotRequest);
    let not_announced = Outcome::Ignored(DropReason::NotAnnounced);
    assert_eq!(responder.on_frame(&answer), not_request);
    responder.watch(VIP);
    assert_eq!(responder.on_frame(&answer), conflict);
    // It is not answered for, and another's probe is no claim.
    assert_eq!(responder.on_frame(&request().build()), not_announced);
    assert_eq!(responder.on_frame(&probe(OTHER, VIP)), not_announced);
    responder.withdraw(VIP);
    assert_eq!(responder.on_frame(&answer), not_request);
    // Announced it is not watched besides.
    responder.announce(VIP, None);
    responder.watch(VIP);
    assert_eq!(responder.on_frame(&answer), conflict);
    responder.withdraw(VIP);
    assert_eq!(responder.on_frame(&answer), not_request);
}

#[test]
fn unicast_requests_and_probes_are_answered() {
    for packet in [
        Packet {
            destination: ME,
            ..request()
        },
        Packet {
            sender_ip: Ipv4Addr::UNSPECIFIED,
            ..request()
        },
        // A requester may put anything into the target MAC (RFC 826).
        Packet {
            target_mac: Mac::BROADCAST,
            ..request()
        },
    ] {
        let Outcome::Reply(frame) = responder().on_frame(&packet.build()) else {
            panic!("{packet:?}")
        };
        let reply = Packet::parse(&frame).unwrap();
        assert_eq!(
            (reply.destination, reply.target_ip),
            (CLIENT, packet.sender_ip)
        );
        assert_eq!((reply.sender_mac, reply.sender_ip), (ME, VIP));
    }
}

#[test]
fn gratuitous_pair_is_what_linux_accepts() {
    let [request, reply] = gratuitous(ME, VIP, ME).map(|frame| oracle(&frame));
    for packet in [request, reply] {
        assert_eq!(
            (packet.destination, packet.source, packet.sender_mac),
            (Mac::BROADCAST, ME, ME)
        );
        assert_eq!((packet.sender_ip, packet.target_ip), (VIP, VIP));
    }
    assert_eq!(request.operation, Operation::Request);
    assert_eq!((reply.operation, reply.target_mac), (Operation::Reply, ME));
}

#[test]
fn withdrawn_and_moved() {
    let mut responder = responder();
    assert!(!responder.announce(VIP, None));
    responder.set_mac(OTHER);
    let Outcome::Reply(frame) = responder.on_frame(&request().build()) else {
        panic!()
    };
    assert_eq!(Packet::parse(&frame).unwrap().sender_mac, OTHER);
    assert!(responder.withdraw(VIP));
    assert!(!responder.withdraw(VIP));
    let outcome = responder.on_frame(&request().build());
    assert_eq!(outcome, Outcome::Ignored(DropReason::NotAnnounced));
    assert_eq!(responder.counters().replies, 1);
    assert_eq!(responder.counters().dropped(DropReason::NotAnnounced), 1);
}

#[test]
fn foreign_frames_are_named_and_counted() {
    let frame = request().build();
    let tagged: Vec<u8> = [&frame[..12], &[0x81, 0, 0, 100], &frame[12..]].concat();
    let mut ipv6 = frame;
    ipv6[12..14].copy_from_slice(&[0x86, 0xdd]);
    let mut token_ring = frame;
    token_ring[15] = 6;
    let mut rarp = frame;
    rarp[21] = 3;
    #[rustfmt::skip]
    let cases: [(&[u8], Error, DropReason); 5] = [
        (&tagged, ethernet::Error::Vlan { tag: 0x8100 }.into(), DropReason::Vlan),
        (&ipv6, Error::NotArp { ethertype: 0x86dd }, DropReason::Foreign),
        (&token_ring, Error::Kind { found: [0, 6, 8, 0, 6, 4] }, DropReason::Foreign),
        (&rarp, Error::Operation { operation: 3 }, DropReason::Malformed),
        (&frame[..41], Error::Truncated { offset: 38, length: 41 }, DropReason::Malformed),
    ];
    let mut responder = responder();
    for (frame, error, reason) in cases {
        assert_eq!(Packet::parse(frame), Err(error));
        let before = responder.counters().dropped(reason);
        assert_eq!(responder.on_frame(frame), Outcome::Ignored(reason));
        assert_eq!(responder.counters().dropped(reason), before + 1);
    }
}

/// The address's own MAC address, and the interface of the node that has it next.
const OWN: Mac = Mac([2, 0xc0, 10, 0, 0, 101]);
const NEXT: Mac = Mac([2, 0, 0, 0, 0, 2]);

fn virtual_responder() -> Responder {
    let mut responder = responder();
    assert!(!responder.announce(VIP, Some(OWN)));
    responder
}

#[test]
fn an_address_answers_from_its_own_mac_address() {
    let mut responder = virtual_responder();
    // To everybody, to the address's own, and to the interface's: a client may know any of them.
    for destination in [Mac::BROADCAST, OWN, ME] {
        let asked = Packet {
            destination,
            ..request()
        };
        let Outcome::Reply(frame) = responder.on_frame(&asked.build()) else {
            panic!("{destination}")
        };
        let reply = oracle(&frame);
        assert_eq!((reply.source, reply.sender_mac), (OWN, OWN));
        assert_eq!((reply.destination, reply.target_mac), (CLIENT, CLIENT));
    }
    // Another address beside it has the interface's, and is not asked for at OWN.
    let beside = Ipv4Addr::new(10, 0, 0, 102);
    responder.announce(beside, None);
    let other = Packet {
        target_ip: beside,
        ..request()
    };
    let Outcome::Reply(frame) = responder.on_frame(&other.build()) else {
        panic!()
    };
    assert_eq!(oracle(&frame).sender_mac, ME);
    let astray = Packet {
        destination: OWN,
        ..other
    };
    let outcome = responder.on_frame(&astray.build());
    assert_eq!(outcome, Outcome::Ignored(DropReason::NotForUs));
    // With the interface's again, where the network does not carry its own.
    responder.announce(VIP, None);
    let Outcome::Reply(frame) = responder.on_frame(&request().build()) else {
        panic!()
    };
    assert_eq!(oracle(&frame).source, ME);
}

#[test]
fn nodes_with_one_mac_address_know_each_others_frames() {
    let mut responder = virtual_responder();
    let own = Outcome::Ignored(DropReason::Own);
    let next = Outcome::Conflict { ip: VIP, mac: NEXT };
    // Heard again, as over a bond: no claim.
    for frame in gratuitous(OWN, VIP, ME) {
        assert_eq!(responder.on_frame(&frame), own);
    }
    // The request says whose it is; the reply cannot.
    let [request, reply] = gratuitous(OWN, VIP, NEXT);
    assert_eq!(oracle(&request).target_mac, NEXT);
    assert_eq!(responder.on_frame(&request), next);
    assert_eq!(responder.on_frame(&reply), own);
    // Without a MAC address of its own: as ever.
    for frame in gratuitous(NEXT, VIP, NEXT) {
        assert_eq!(responder.on_frame(&frame), next);
    }
    for frame in gratuitous(ME, VIP, ME) {
        assert_eq!(responder.on_frame(&frame), own);
    }
}

fn any_packet() -> impl Strategy<Value = Packet> {
    (
        any::<[[u8; 6]; 4]>(),
        any::<[u8; 4]>(),
        any::<[u8; 4]>(),
        any::<bool>(),
    )
        .prop_map(
            |([destination, source, sender_mac, target_mac], sender_ip, target_ip, request)| {
                Packet {
                    destination: Mac(destination),
                    source: Mac(source),
                    operation: if request {
                        Operation::Request
                    } else {
                        Operation::Reply
                    },
                    sender_mac: Mac(sender_mac),
                    sender_ip: sender_ip.into(),
                    target_mac: Mac(target_mac),
                    target_ip: target_ip.into(),
                }
            },
        )
}

proptest! {
    #[test]
    fn round_trip_with_padding(packet in any_packet(), padding in 0..20usize) {
        let mut frame = packet.build().to_vec();
        prop_assert_eq!(oracle(&frame), packet);
        frame.resize(FRAME_LEN + padding, 0);
        prop_assert_eq!(Packet::parse(&frame), Ok(packet));
    }

    #[test]
    fn no_bytes_panic(frame in prop::collection::vec(any::<u8>(), 0..64), length in 0..=FRAME_LEN) {
        responder().on_frame(&frame);
        responder().on_frame(&request().build()[..length]);
    }

    /// Whatever comes in, an answer goes to one station only, and never to ourselves.
    #[test]
    fn answers_are_unicast(packet in any_packet(), ours in any::<bool>()) {
        let target_ip = if ours { VIP } else { packet.target_ip };
        let packet = Packet { destination: Mac::BROADCAST, target_ip, ..packet };
        if let Outcome::Reply(frame) = responder().on_frame(&packet.build()) {
            let reply = Packet::parse(&frame).unwrap();
            prop_assert!(reply.destination.is_unicast() && reply.destination != ME);
            prop_assert_eq!(reply.sender_ip, VIP);
        }
    }
}
