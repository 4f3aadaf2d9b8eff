//! Golden bytes, framing, OPEN, NOTIFICATION, ROUTE-REFRESH.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

pub(super) fn open() -> Open {
    let pair = AfiSafi::from;
    Open {
        asn: Asn(64512),
        hold_time: 180,
        identifier: Ipv4Addr::new(10, 0, 0, 1),
        capabilities: vec![
            Capability::Multiprotocol(pair(Family::Ipv4)),
            Capability::CiscoRouteRefresh,
            Capability::RouteRefresh,
            Capability::EnhancedRefresh,
            Capability::FourOctetAs(Asn(64512)),
            Capability::ExtendedMessage,
            Capability::ExtendedNextHop(vec![(pair(Family::Ipv4), 2)]),
            Capability::AddPath(vec![(
                pair(Family::Ipv4),
                AddPath {
                    receive: true,
                    send: false,
                },
            )]),
            Capability::Fqdn {
                host: "node-1".into(),
                domain: String::new(),
            },
            Capability::GracefulRestart(GracefulRestart {
                restarting: true,
                notification: true,
                restart_time: 120,
                families: vec![(pair(Family::Ipv4), true)],
            }),
            Capability::LongLived(vec![LongLived {
                family: pair(Family::Ipv4),
                forwarding: false,
                stale_time: 3600,
            }]),
        ],
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xff; 16];
    out.extend((19 + body.len() as u16).to_be_bytes());
    out.push(kind);
    out.extend(body);
    out
}

fn decode(bytes: &[u8]) -> Result<Message, Error> {
    Message::decode(bytes, &Codec::default())
}

fn codes(bytes: &[u8]) -> (u8, u8) {
    let notification = decode(bytes).unwrap_err().notification();
    (notification.code, notification.subcode)
}

#[test]
fn open_has_its_bytes() {
    let mut out = Vec::new();
    open().encode(&mut out);
    let body = [
        [4, 0xfc, 0x00, 0, 180, 10, 0, 0, 1, 83].as_slice(),
        &[2, 6, 1, 4, 0, 1, 0, 1],
        &[2, 2, 128, 0],
        &[2, 2, 2, 0],
        &[2, 2, 70, 0],
        &[2, 6, 65, 4, 0, 0, 0xfc, 0x00],
        &[2, 2, 6, 0],
        &[2, 8, 5, 6, 0, 1, 0, 1, 0, 2],
        &[2, 6, 69, 4, 0, 1, 1, 1],
        &[2, 10, 73, 8, 6, b'n', b'o', b'd', b'e', b'-', b'1', 0],
        &[2, 8, 64, 6, 0xc0, 120, 0, 1, 1, 0x80],
        &[2, 9, 71, 7, 0, 1, 1, 0, 0, 0x0e, 0x10],
    ]
    .concat();
    assert_eq!(out, message(1, &body));
    assert_eq!(decode(&out), Ok(Message::Open(open())));
}

#[test]
fn short_messages_have_their_bytes() {
    let mut out = Vec::new();
    keepalive(&mut out);
    assert_eq!(out, message(4, &[]));
    out.clear();
    let refresh = Refresh {
        family: Family::Ipv6.into(),
        kind: RefreshKind::Begin,
    };
    refresh.encode(&mut out);
    assert_eq!(out, message(5, &[0, 2, 1, 1]));
    assert_eq!(decode(&out), Ok(Message::RouteRefresh(refresh)));
    out.clear();
    Notification::cease(notification::cease::SHUTDOWN, "bye").encode(&mut out);
    assert_eq!(out, message(3, &[6, 2, 3, b'b', b'y', b'e']));
}

#[test]
fn only_external_routes_of_some_roles_are_for_customers_only() {
    for (role, external, want) in [
        (None, true, None),
        (Some(Role::Provider), true, Some(Asn(64512))),
        (Some(Role::RouteServer), true, Some(Asn(64512))),
        (Some(Role::Peer), true, Some(Asn(64512))),
        (Some(Role::Customer), true, None),
        (Some(Role::RouteServerClient), true, None),
        (Some(Role::Provider), false, None),
    ] {
        let codec = Codec {
            external,
            ..Codec::default()
        };
        let attributes = Attributes::default().toward(Asn(64512), role, &codec);
        assert_eq!(attributes.only_to_customer, want, "{role:?}");
    }
}

#[test]
fn a_role_of_another_length_does_not_count() {
    for value in [&[][..], &[3, 3]] {
        let open = Open {
            capabilities: vec![Capability::Unknown {
                code: 9,
                value: value.to_vec(),
            }],
            ..open()
        };
        let mut out = Vec::new();
        open.encode(&mut out);
        assert_eq!(decode(&out), Ok(Message::Open(open)));
    }
}

#[test]
fn an_update_has_its_bytes() {
    let attributes = Attributes {
        med: Some(0),
        communities: vec![Community::GRACEFUL_SHUTDOWN],
        ..Attributes::default()
    };
    let codec = Codec::default();
    let attributes = attributes.toward(Asn(64512), None, &codec);
    let next_hop = NextHop::V4(Ipv4Addr::new(10, 0, 0, 1));
    let mut out = Vec::new();
    let prefix: Prefix = "192.0.2.7/32".parse().unwrap();
    Announce::new(&attributes, &next_hop, Family::Ipv4, &codec)
        .unwrap()
        .message(&mut [prefix.into()].into_iter(), &mut out);
    let body = [
        [0, 0, 0, 34].as_slice(),
        &[0x40, 1, 1, 0],
        &[0x40, 2, 6, 2, 1, 0, 0, 0xfc, 0],
        &[0x40, 3, 4, 10, 0, 0, 1],
        &[0x80, 4, 4, 0, 0, 0, 0],
        &[0xc0, 8, 4, 0xff, 0xff, 0, 0],
        &[32, 192, 0, 2, 7],
    ]
    .concat();
    assert_eq!(out, message(2, &body));
    // IPv6: MP_REACH_NLRI first, no NEXT_HOP; inside: LOCAL_PREF and no AS.
    let codec = Codec {
        external: false,
        ..codec
    };
    let attributes = Attributes::default().toward(Asn(64512), None, &codec);
    let next_hop = NextHop::V6("fe80::1".parse().unwrap());
    out.clear();
    let prefix: Prefix = "2001:db8::/32".parse().unwrap();
    Announce::new(&attributes, &next_hop, Family::Ipv6, &codec)
        .unwrap()
        .message(&mut [prefix.into()].into_iter(), &mut out);
    let body = [
        [0, 0, 0, 44].as_slice(),
        &[0x90, 14, 0, 26, 0, 2, 1, 16],
        &[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        &[32, 0x20, 0x01, 0x0d, 0xb8],
        &[0x40, 1, 1, 0],
        &[0x40, 2, 0],
        &[0x40, 5, 4, 0, 0, 0, 100],
    ]
    .concat();
    assert_eq!(out, message(2, &body));
}

#[test]
fn extended_optional_parameters_are_written_and_read() {
    let mut long = open();
    for code in 200..210 {
        let value = vec![code; 40];
        long.capabilities.push(Capability::Unknown { code, value });
    }
    let mut out = Vec::new();
    long.encode(&mut out);
    assert_eq!(out[28..30], [255, 255]);
    assert_eq!(decode(&out), Ok(Message::Open(long)));
    // The short form of 255 bytes has to be extended as well: 255 is the mark.
    let mut exact = open();
    let capability = |length: usize| Capability::Unknown {
        code: 200,
        value: vec![0; length],
    };
    exact.capabilities = vec![capability(251)];
    out.clear();
    exact.encode(&mut out);
    assert_eq!(out[28..30], [255, 255]);
    assert_eq!(decode(&out), Ok(Message::Open(exact.clone())));
    exact.capabilities = vec![capability(250)];
    out.clear();
    exact.encode(&mut out);
    assert_eq!(out[28], 254);
    assert_eq!(decode(&out), Ok(Message::Open(exact.clone())));
    // A short list sent in the extended form (RFC 9072 §2: MUST be accepted).
    let body = [4, 0xfc, 0, 0, 180, 10, 0, 0, 1, 4, 255, 0, 5, 2, 0, 2, 2, 0];
    exact.capabilities = vec![Capability::RouteRefresh];
    assert_eq!(decode(&message(1, &body)), Ok(Message::Open(exact)));
}

#[test]
fn a_bad_open_is_answered_as_the_rfc_says() {
    let with = |at: usize, bytes: &[u8]| {
        let mut body = vec![4, 0xfc, 0, 0, 180, 10, 0, 0, 1, 4, 2, 2, 2, 0];
        body[at..at + bytes.len()].copy_from_slice(bytes);
        message(1, &body)
    };
    assert!(decode(&with(0, &[4])).is_ok());
    assert_eq!(codes(&with(0, &[3])), (2, 1));
    assert_eq!(
        decode(&with(0, &[3])).unwrap_err().notification().data,
        [0, 4]
    );
    assert_eq!(codes(&with(1, &[0, 0])), (2, 2));
    assert_eq!(codes(&with(3, &[0, 2])), (2, 6));
    assert!(decode(&with(3, &[0, 0])).is_ok());
    assert!(decode(&with(3, &[0, 3])).is_ok());
    assert_eq!(codes(&with(5, &[0, 0, 0, 0])), (2, 3));
    assert_eq!(codes(&with(9, &[3])), (2, 0));
    assert_eq!(codes(&with(9, &[5])), (2, 0));
    assert_eq!(codes(&with(10, &[1])), (2, 4));
    assert_eq!(codes(&with(11, &[3])), (2, 0));
    assert_eq!(codes(&with(13, &[1])), (2, 0));
    // A capability whose value does not read counts as unknown.
    let body = [4, 0xfc, 0, 0, 180, 10, 0, 0, 1, 5, 2, 3, 65, 1, 7];
    match decode(&message(1, &body)) {
        Ok(Message::Open(open)) => {
            assert_eq!(open.asn, Asn(64512));
            let unknown = Capability::Unknown {
                code: 65,
                value: vec![7],
            };
            assert_eq!(open.capabilities, [unknown]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bad_header_is_answered_as_the_rfc_says() {
    let mut bytes = message(4, &[]);
    bytes[3] = 0;
    assert_eq!(codes(&bytes), (1, 1));
    assert_eq!(codes(&message(9, &[])), (1, 3));
    assert_eq!(codes(&message(4, &[0])), (1, 2));
    assert_eq!(codes(&message(1, &[0; 9])), (1, 2));
    assert_eq!(codes(&message(2, &[0; 3])), (1, 2));
    assert_eq!(codes(&message(3, &[0; 1])), (1, 2));
    assert_eq!(codes(&message(5, &[0; 3])), (7, 1));
    assert_eq!(codes(&message(5, &[0, 1, 1, 1, 0])), (7, 1));
    let mut bytes = message(4, &[]);
    bytes[17] = 18;
    let error = decode(&bytes).unwrap_err();
    assert_eq!(error.notification().data, [0, 18]);
    assert_eq!(
        error.to_string(),
        "message of type 4 cannot have length 18 at offset 16 (RFC 4271 §6.1)"
    );
}

#[test]
fn frames_come_out_whatever_the_pieces() {
    let mut stream = Vec::new();
    open().encode(&mut stream);
    keepalive(&mut stream);
    end_of_rib(Family::Ipv6, &mut stream);
    keepalive(&mut stream);
    for size in 1..stream.len() {
        let mut framer = Framer::default();
        let mut kinds = Vec::new();
        for piece in stream.chunks(size) {
            framer.push(piece);
            while let Some(message) = framer.next().unwrap() {
                kinds.push(message[18]);
            }
        }
        assert_eq!(kinds, [1, 4, 2, 4], "pieces of {size}");
        assert_eq!(framer.pending(), 0);
    }
}

#[test]
fn long_messages_need_the_capability() {
    let update = message(2, &vec![0; 5000]);
    let mut framer = Framer::default();
    framer.push(&update[..19]);
    let error = framer.next().unwrap_err();
    assert_eq!(error.notification().data, 5019u16.to_be_bytes());
    let mut framer = Framer::default();
    framer.allow_extended();
    framer.push(&update);
    assert_eq!(framer.next().unwrap().map(<[u8]>::len), Some(5019));
    // OPEN and KEEPALIVE never.
    let mut framer = Framer::default();
    framer.allow_extended();
    framer.push(&message(1, &vec![0; 5000]));
    assert!(framer.next().is_err());
}

#[test]
fn texts_are_cut_and_read() {
    use notification::cease::*;
    let long = "ü".repeat(100);
    let notification = Notification::cease(SHUTDOWN, &long);
    assert_eq!(notification.data.len(), 129);
    assert_eq!(notification.text().unwrap(), "ü".repeat(64));
    let hard = Notification::cease(SHUTDOWN, "drained").hard();
    assert_eq!(hard.data[..2], [6, 2]);
    assert_eq!(hard.text().as_deref(), Some("drained"));
    assert_eq!(
        hard.to_string(),
        "Hard Reset: Cease: Administrative Shutdown (6/2), \"drained\""
    );
    let broken = Notification {
        code: 6,
        subcode: RESET,
        data: vec![200, b'x'],
    };
    assert_eq!(broken.text(), None);
    let mut out = Vec::new();
    let huge = Notification {
        code: 3,
        subcode: 9,
        data: vec![0; 9000],
    };
    huge.encode(&mut out);
    assert_eq!(out.len(), MAX_LEN);
}

proptest! {
    #[test]
    fn capabilities_read_back(
        asn in 1..u32::MAX,
        hold in 3..u16::MAX,
        id in 1..u32::MAX,
        time in 0..4096u16,
        flags: [bool; 6],
        role: u8,
        families in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..20),
        unknown in proptest::collection::vec(any::<u8>(), 0..100),
        host in "[a-zé]{0,60}",
    ) {
        let [restarting, notification, forwarding, f, receive, send] = flags;
        let pairs: Vec<AfiSafi> =
            families.into_iter().map(|(afi, safi)| AfiSafi { afi, safi }).collect();
        let mut capabilities: Vec<Capability> =
            pairs.iter().copied().map(Capability::Multiprotocol).collect();
        capabilities.extend([
            Capability::FourOctetAs(Asn(asn)),
            Capability::Role(role),
            Capability::GracefulRestart(GracefulRestart {
                restarting,
                notification,
                restart_time: time,
                families: pairs.iter().map(|pair| (*pair, forwarding)).collect(),
            }),
            Capability::ExtendedNextHop(pairs.iter().map(|pair| (*pair, 2)).collect()),
            Capability::LongLived(pairs.iter().map(|family| LongLived {
                family: *family,
                forwarding: f,
                stale_time: asn & 0x00ff_ffff,
            }).collect()),
            Capability::AddPath(if receive || send {
                pairs.iter().map(|pair| (*pair, AddPath { receive, send })).collect()
            } else {
                Vec::new()
            }),
            Capability::Unknown { code: 222, value: unknown },
            Capability::Fqdn { host, domain: "example".into() },
        ]);
        let open = Open {
            asn: Asn(asn),
            hold_time: hold,
            identifier: Ipv4Addr::from_bits(id),
            capabilities,
        };
        let mut out = Vec::new();
        open.encode(&mut out);
        prop_assert_eq!(decode(&out), Ok(Message::Open(open)));
    }
}
