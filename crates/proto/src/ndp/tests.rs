use std::net::Ipv6Addr;

use etherparse::{Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;
use crate::{
    ethernet::{self, Mac},
    responder::DropReason,
};

const ME: Mac = Mac([2, 0, 0, 0, 0, 1]);
const CLIENT: Mac = Mac([2, 0, 0, 0, 0, 9]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 0x77]);
const VIP: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0x12ab, 0xcdef);
const CLIENT_IP: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);

fn solicitation() -> Packet {
    let group = solicited_node(VIP);
    Packet {
        link_destination: multicast_mac(group),
        link_source: CLIENT,
        source: CLIENT_IP,
        destination: group,
        message: Message::Solicitation {
            target: VIP,
            source_mac: Some(CLIENT),
        },
    }
}

fn advertisement(target: Ipv6Addr, target_mac: Option<Mac>) -> Packet {
    Packet {
        link_destination: multicast_mac(ALL_NODES),
        link_source: OTHER,
        source: target,
        destination: ALL_NODES,
        message: Message::Advertisement {
            target,
            router: false,
            solicited: false,
            override_: true,
            target_mac,
            source_mac: None,
        },
    }
}

fn responder() -> Responder {
    let mut responder = Responder::new(ME);
    assert!(responder.announce(VIP, None));
    responder
}

fn reply(packet: Packet) -> Packet {
    match responder().on_frame(&packet.build()) {
        Outcome::Reply(frame) => Packet::parse(&frame).unwrap(),
        outcome => panic!("{outcome:?}"),
    }
}

/// Checks a frame that we built, field by field, with etherparse.
fn oracle(frame: &[u8], packet: &Packet) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(etherparse::LinkSlice::Ethernet2(link)) = sliced.link else {
        panic!("no Ethernet")
    };
    let Some(NetSlice::Ipv6(ip)) = sliced.net else {
        panic!("no IPv6")
    };
    let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else {
        panic!("no ICMPv6")
    };
    assert_eq!(Mac(link.destination()), packet.link_destination);
    assert_eq!(Mac(link.source()), packet.link_source);
    let header = ip.header();
    assert_eq!(header.source_addr(), packet.source);
    assert_eq!(header.destination_addr(), packet.destination);
    assert_eq!(header.hop_limit(), 255);
    assert!(icmp.is_checksum_valid(header.source(), header.destination()));
    let (target, wanted) = match (icmp.icmp_type(), packet.message) {
        (Icmpv6Type::NeighborSolicitation, Message::Solicitation { target, source_mac }) => {
            (target, vec![(1, source_mac)])
        }
        (
            Icmpv6Type::NeighborAdvertisement(header),
            Message::Advertisement {
                target,
                router,
                solicited,
                override_,
                target_mac,
                source_mac,
            },
        ) => {
            let flags = (header.router, header.solicited, header.r#override);
            assert_eq!(flags, (router, solicited, override_));
            (target, vec![(2, target_mac), (1, source_mac)])
        }
        other => panic!("{other:?}"),
    };
    let (head, options) = icmp.payload().split_at(16);
    assert_eq!(head, target.octets());
    let want = wanted.into_iter().filter_map(|(kind, mac)| {
        let mac: Mac = mac?;
        Some([&[kind, 1], mac.0.as_slice()].concat())
    });
    assert_eq!(options, want.collect::<Vec<_>>().concat());
}

#[test]
fn etherparse_reads_what_we_build() {
    for packet in [
        solicitation(),
        advertisement(VIP, Some(OTHER)),
        advertisement(VIP, None),
    ] {
        oracle(&packet.build(), &packet);
    }
    let frame = unsolicited(ME, VIP, ME);
    let packet = Packet::parse(&frame).unwrap();
    oracle(&frame, &packet);
    let want = Packet {
        link_source: ME,
        ..advertisement(VIP, Some(ME))
    };
    assert_eq!(packet, want);
}

#[test]
fn we_read_what_etherparse_builds() {
    let packet = solicitation();
    let mut frame = Vec::new();
    let body = [
        VIP.octets().as_slice(),
        &[14, 1, 1, 2, 3, 4, 5, 6],
        &[1, 1],
        &CLIENT.0,
    ]
    .concat();
    PacketBuilder::ethernet2(packet.link_source.0, packet.link_destination.0)
        .ipv6(packet.source.octets(), packet.destination.octets(), 255)
        .icmpv6(Icmpv6Type::NeighborSolicitation)
        .write(&mut frame, &body)
        .unwrap();
    // The unknown option (a nonce, RFC 3971) is skipped.
    assert_eq!(Packet::parse(&frame), Ok(packet));
}

#[test]
fn groups_of_addresses() {
    // RFC 4291 §2.7.1's example, RFC 2464 §7.
    let ip: Ipv6Addr = "4037::01:800:200E:8C6C".parse().unwrap();
    let group: Ipv6Addr = "FF02::1:FF0E:8C6C".parse().unwrap();
    assert_eq!(solicited_node(ip), group);
    assert_eq!(
        multicast_mac(group),
        Mac([0x33, 0x33, 0xff, 0x0e, 0x8c, 0x6c])
    );
    assert_eq!(multicast_mac(ALL_NODES), Mac([0x33, 0x33, 0, 0, 0, 1]));
}

#[test]
fn solicitation_gets_a_unicast_advertisement() {
    let want = Packet {
        link_destination: CLIENT,
        link_source: ME,
        source: VIP,
        destination: CLIENT_IP,
        message: Message::Advertisement {
            target: VIP,
            router: false,
            solicited: true,
            override_: true,
            target_mac: Some(ME),
            source_mac: None,
        },
    };
    assert_eq!(reply(solicitation()), want);
    // Unicast unreachability probe without option (MetalLB #2920).
    let probe = Packet {
        link_destination: ME,
        destination: VIP,
        message: Message::Solicitation {
            target: VIP,
            source_mac: None,
        },
        ..solicitation()
    };
    assert_eq!(reply(probe), want);
}

/// The address's own MAC address, and the interface of the node that has it next.
const OWN: Mac = Mac([0x12, 0xc0, 10, 0, 0, 101]);
const NEXT: Mac = Mac([2, 0, 0, 0, 0, 2]);

#[test]
fn an_address_answers_from_its_own_mac_address() {
    let mut responder = responder();
    assert!(!responder.announce(VIP, Some(OWN)));
    let probe = |link_destination| Packet {
        link_destination,
        destination: VIP,
        message: Message::Solicitation {
            target: VIP,
            source_mac: None,
        },
        ..solicitation()
    };
    for asked in [solicitation(), probe(OWN), probe(ME)] {
        let Outcome::Reply(frame) = responder.on_frame(&asked.build()) else {
            panic!("{asked:?}")
        };
        let reply = Packet::parse(&frame).unwrap();
        oracle(&frame, &reply);
        assert_eq!((reply.link_source, reply.link_destination), (OWN, CLIENT));
        let Message::Advertisement { target_mac, .. } = reply.message else {
            panic!("{reply:?}")
        };
        assert_eq!(target_mac, Some(OWN));
    }
    let outcome = responder.on_frame(&probe(OTHER).build());
    assert_eq!(outcome, Outcome::Ignored(DropReason::NotForUs));
}

#[test]
fn nodes_with_one_mac_address_know_each_others_frames() {
    let mut responder = responder();
    responder.announce(VIP, Some(OWN));
    let own = Outcome::Ignored(DropReason::Own);
    let next = Outcome::Conflict { ip: VIP, mac: NEXT };
    assert_eq!(responder.on_frame(&unsolicited(OWN, VIP, ME)), own);
    assert_eq!(responder.on_frame(&unsolicited(OWN, VIP, NEXT)), next);
    assert_eq!(responder.on_frame(&unsolicited(NEXT, VIP, NEXT)), next);
    assert_eq!(responder.on_frame(&unsolicited(ME, VIP, ME)), own);
    let packet = Packet::parse(&unsolicited(OWN, VIP, NEXT)).unwrap();
    assert_eq!(packet.station(), Some(NEXT));
    assert_eq!(
        Packet::parse(&unsolicited(ME, VIP, ME)).unwrap().station(),
        None
    );
}

#[test]
fn duplicate_address_detection_is_told_no_by_all_nodes() {
    let dad = Packet {
        source: Ipv6Addr::UNSPECIFIED,
        message: Message::Solicitation {
            target: VIP,
            source_mac: None,
        },
        ..solicitation()
    };
    assert_eq!(
        reply(dad),
        Packet::parse(&unsolicited(ME, VIP, ME)).unwrap()
    );
}

#[test]
fn frames_and_their_outcomes() {
    let ask = |target, source_mac| Message::Solicitation { target, source_mac };
    let conflict = Outcome::Conflict {
        ip: VIP,
        mac: OTHER,
    };
    let ignored = Outcome::Ignored;
    let base = solicitation();
    #[rustfmt::skip]
    let cases = [
        ("another address", Packet { message: ask(CLIENT_IP, Some(CLIENT)), ..base }, ignored(DropReason::NotAnnounced)),
        ("another station", Packet { link_destination: OTHER, ..base }, ignored(DropReason::NotForUs)),
        ("another group's MAC", Packet { link_destination: multicast_mac(ALL_NODES), ..base }, ignored(DropReason::NotForUs)),
        ("a group as sender", Packet { message: ask(VIP, Some(Mac::BROADCAST)), ..base }, ignored(DropReason::BadSender)),
        ("own solicitation", Packet { link_source: ME, source: VIP, message: ask(VIP, Some(ME)), ..base }, ignored(DropReason::Own)),
        ("own advertisement", Packet { link_source: ME, ..advertisement(VIP, Some(ME)) }, ignored(DropReason::Own)),
        ("other advertisement", advertisement(CLIENT_IP, Some(OTHER)), ignored(DropReason::NotRequest)),
        ("stranger advertises ours", advertisement(VIP, Some(OTHER)), conflict.clone()),
        ("the same without option", advertisement(VIP, None), conflict.clone()),
        ("stranger asks from ours", Packet { link_source: OTHER, source: VIP, message: ask(CLIENT_IP, Some(OTHER)), ..base }, conflict),
    ];
    for (name, packet, want) in cases {
        assert_eq!(responder().on_frame(&packet.build()), want, "{name}");
    }
}

#[test]
fn who_has_an_address_that_is_watched_is_told_of() {
    let asked = Packet::parse(&probe(ME, VIP)).unwrap();
    let group = solicited_node(VIP);
    assert_eq!(
        asked,
        Packet {
            link_destination: multicast_mac(group),
            link_source: ME,
            source: Ipv6Addr::UNSPECIFIED,
            destination: group,
            message: Message::Solicitation {
                target: VIP,
                source_mac: None
            },
        }
    );
    let mut responder = Responder::new(ME);
    let answer = advertisement(VIP, Some(OTHER)).build();
    let conflict = Outcome::Conflict {
        ip: VIP,
        mac: OTHER,
    };
    let not_request = Outcome::Ignored(DropReason::NotRequest);
    let not_announced = Outcome::Ignored(DropReason::NotAnnounced);
    assert_eq!(responder.on_frame(&answer), not_request);
    responder.watch(VIP);
    assert_eq!(responder.on_frame(&answer), conflict);
    assert_eq!(responder.on_frame(&solicitation().build()), not_announced);
    assert_eq!(responder.on_frame(&probe(OTHER, VIP)), not_announced);
    responder.withdraw(VIP);
    assert_eq!(responder.on_frame(&answer), not_request);
}

/// Sets bytes in a good frame and mends its checksum.
fn patched(packet: Packet, changes: &[(usize, u8)], tail: &[u8]) -> Vec<u8> {
    let mut frame = packet.build();
    frame.extend(tail);
    for &(at, value) in changes {
        frame[at] = value;
    }
    let length = frame.len() - 54;
    frame[18..20].copy_from_slice(&(length as u16).to_be_bytes());
    frame[56..58].fill(0);
    let (source, destination) = (
        frame[22..38].try_into().unwrap(),
        frame[38..54].try_into().unwrap(),
    );
    let sum = etherparse::Icmpv6Slice::from_slice(&frame[54..])
        .unwrap()
        .icmp_type()
        .calc_checksum(source, destination, &frame[62..])
        .unwrap();
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn rules_of_rfc_4861_section_7_1() {
    let ns = solicitation();
    let dad = Packet {
        source: Ipv6Addr::UNSPECIFIED,
        message: Message::Solicitation {
            target: VIP,
            source_mac: None,
        },
        ..ns
    };
    let dad_with_mac = Packet {
        message: ns.message,
        ..dad
    };
    let dad_to_all = Packet {
        destination: ALL_NODES,
        ..dad
    };
    let mut bad_sum = ns.build();
    bad_sum[70] ^= 1;
    let mut low_hops = ns.build();
    low_hops[21] = 254;
    let tagged = [&ns.build()[..12], &[0x88, 0xa8, 0, 5], &ns.build()[12..]].concat();
    let sum = u16::from_be_bytes([bad_sum[56], bad_sum[57]]);
    let solicited_to_group = match advertisement(VIP, None).message {
        Message::Advertisement {
            target,
            router,
            override_,
            target_mac,
            ..
        } => Packet {
            message: Message::Advertisement {
                target,
                router,
                solicited: true,
                override_,
                target_mac,
                source_mac: None,
            },
            ..advertisement(VIP, None)
        },
        Message::Solicitation { .. } => unreachable!(),
    };
    let invalid = |offset, why| Error::Invalid { offset, why };
    let foreign = |field, offset, value| Error::Foreign {
        field,
        offset,
        value,
    };
    #[rustfmt::skip]
    let cases = [
        (low_hops, Error::HopLimit { found: 254 }, DropReason::HopLimit),
        (bad_sum, Error::Checksum { found: sum }, DropReason::Checksum),
        (tagged, ethernet::Error::Vlan { tag: 0x88a8 }.into(), DropReason::Vlan),
        (patched(ns, &[(55, 1)], &[]), invalid(55, "code is not 0"), DropReason::Malformed),
        (patched(ns, &[(62, 0xff)], &[]), invalid(62, "target is a multicast address"), DropReason::Malformed),
        (patched(ns, &[(79, 0)], &[]), invalid(79, "option length is 0"), DropReason::Malformed),
        (patched(ns, &[], &[14, 0, 0, 0, 0, 0, 0, 0]), invalid(87, "option length is 0"), DropReason::Malformed),
        (patched(ns, &[(79, 2)], &[]), Error::Truncated { offset: 78, length: 86 }, DropReason::Malformed),
        (patched(ns, &[(79, 2)], &[0; 8]), invalid(79, "link-layer option is not 8 bytes, as Ethernet's are"), DropReason::Malformed),
        (patched(ns, &[], &[14]), Error::Truncated { offset: 86, length: 87 }, DropReason::Malformed),
        (dad_with_mac.build(), invalid(78, "source is ::, but there is a source link-layer option"), DropReason::Malformed),
        (dad_to_all.build(), invalid(38, "source is ::, but destination is no solicited-node group"), DropReason::Malformed),
        (solicited_to_group.build(), invalid(58, "solicited, but to a group"), DropReason::Malformed),
        (patched(ns, &[(54, 128)], &[]), foreign("ICMPv6 type", 54, 128), DropReason::Foreign),
        (patched(ns, &[(20, 0)], &[]), foreign("next header", 20, 0), DropReason::Foreign),
        (patched(ns, &[(14, 0x40)], &[]), foreign("IP version", 14, 4), DropReason::Foreign),
        (patched(ns, &[(13, 0)], &[]), foreign("EtherType", 12, 0x8600), DropReason::Foreign),
    ];
    for (frame, error, reason) in cases {
        assert_eq!(Packet::parse(&frame), Err(error.clone()), "{error}");
        let mut responder = responder();
        assert_eq!(
            responder.on_frame(&frame),
            Outcome::Ignored(reason),
            "{error}"
        );
        assert_eq!(responder.counters().dropped(reason), 1);
    }
}

#[test]
fn groups_are_joined_once_and_left_last() {
    // Same last 24 bits, so the same group.
    let twin = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0x34ab, 0xcdef);
    let other = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    let group = solicited_node(VIP);
    assert_eq!(solicited_node(twin), group);
    let mut groups = Groups::default();
    assert_eq!(groups.remove(VIP), None);
    assert_eq!(groups.add(VIP), Some(Change::Join(group)));
    assert_eq!(groups.add(VIP), None);
    assert_eq!(groups.add(twin), None);
    assert_eq!(groups.add(other), Some(Change::Join(solicited_node(other))));
    assert_eq!(
        groups.iter().collect::<Vec<_>>(),
        [solicited_node(other), group]
    );
    assert_eq!(groups.remove(VIP), None);
    assert_eq!(groups.remove(VIP), None);
    assert_eq!(groups.remove(twin), Some(Change::Leave(group)));
    assert_eq!(groups.iter().collect::<Vec<_>>(), [solicited_node(other)]);
}

fn any_message() -> impl Strategy<Value = Message> {
    let target = any::<[u8; 15]>().prop_map(|rest| {
        let mut octets = [0x20; 16];
        octets[1..].copy_from_slice(&rest);
        Ipv6Addr::from(octets)
    });
    (
        target,
        any::<[Option<[u8; 6]>; 2]>(),
        any::<(bool, bool, bool, bool)>(),
    )
        .prop_map(
            |(target, [mac, other], (ns, router, solicited, override_))| {
                let mac = mac.map(Mac);
                if ns {
                    Message::Solicitation {
                        target,
                        source_mac: mac,
                    }
                } else {
                    Message::Advertisement {
                        target,
                        router,
                        solicited,
                        override_,
                        target_mac: mac,
                        source_mac: other.map(Mac),
                    }
                }
            },
        )
}

fn any_packet() -> impl Strategy<Value = Packet> {
    (
        any_message(),
        any::<[[u8; 6]; 2]>(),
        any::<[u8; 15]>(),
        any::<[u8; 15]>(),
    )
        .prop_map(
            |(message, [link_destination, link_source], source, destination)| {
                let unicast = |rest: [u8; 15]| {
                    let mut octets = [0xfd; 16];
                    octets[1..].copy_from_slice(&rest);
                    Ipv6Addr::from(octets)
                };
                Packet {
                    link_destination: Mac(link_destination),
                    link_source: Mac(link_source),
                    source: unicast(source),
                    destination: unicast(destination),
                    message,
                }
            },
        )
}

proptest! {
    #[test]
    fn round_trip_with_padding(packet in any_packet(), padding in 0..20usize) {
        let mut frame = packet.build();
        oracle(&frame, &packet);
        frame.resize(frame.len() + padding, 0);
        prop_assert_eq!(Packet::parse(&frame), Ok(packet));
    }

    #[test]
    fn no_bytes_panic(
        noise in prop::collection::vec(any::<u8>(), 0..120),
        length in 0..=86usize,
        changes in prop::collection::vec((14..86usize, any::<u8>()), 0..6),
        tail in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        responder().on_frame(&noise);
        responder().on_frame(&solicitation().build()[..length]);
        // Right checksum and lengths, so that the noise reaches the inner checks.
        let frame = patched(solicitation(), &changes, &tail);
        if let Ok(packet) = Packet::parse(&frame) {
            prop_assert!(frame[21] == 255);
            let _ = packet.build();
        }
        responder().on_frame(&frame);
    }
}

#[test]
fn a_host_asks_where_another_is() {
    let own = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x11);
    let group = solicited_node(VIP);
    for (at, link_destination) in [(None, multicast_mac(group)), (Some(OTHER), OTHER)] {
        let want = Packet {
            link_destination,
            link_source: ME,
            source: own,
            destination: group,
            message: Message::Solicitation {
                target: VIP,
                source_mac: Some(ME),
            },
        };
        let frame = super::solicitation(ME, own, VIP, at);
        assert_eq!(Packet::parse(&frame).unwrap(), want);
        oracle(&frame, &want);
    }
}
