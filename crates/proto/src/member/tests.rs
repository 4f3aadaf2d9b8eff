use std::{net::SocketAddr, time::Duration};

use proptest::prelude::*;

use super::*;

mod behaviour;
mod succession;

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

fn name(index: usize) -> NodeName {
    NodeName::new(format!("node-{index}")).unwrap()
}

fn id(index: usize) -> Id {
    Id::of(&name(index))
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, index as u8 + 1], 7946))
}

fn key() -> Key {
    Key([7; 32])
}

fn packet(body: Body) -> Packet {
    Packet {
        from: Id(0x0102_0304_0506_0708),
        incarnation: 5,
        to: 3,
        sequence: 9,
        deaf: false,
        body,
    }
}

fn hello() -> Body {
    Body::Hello {
        answer: true,
        have: 1,
        payload: Some(Payload {
            version: 2,
            bytes: b"state".to_vec(),
        }),
    }
}

#[test]
fn beats_and_acknowledgements_may_wait_and_nothing_else() {
    let death = Death {
        node: Id(6),
        incarnation: 7,
    };
    let beat = |answer| Body::Beat {
        answer,
        guardians: vec![1, 2],
    };
    let follow = Body::Follow { within: 9 };
    let urgent = [
        beat(true),
        Body::Probe,
        Body::Vote(death),
        Body::Obituary(death),
        hello(),
        Body::Leave,
        follow,
    ];
    let patient = [beat(false), Body::Ack { sequence: 4 }];
    for (bodies, may_wait) in [(urgent.as_slice(), false), (&patient, true)] {
        for body in bodies {
            for (key, deaf) in [(None, false), (Some(key()), true)] {
                let packet = Packet {
                    deaf,
                    ..packet(body.clone())
                };
                let bytes = packet.build(key.as_ref()).unwrap();
                assert_eq!(PATIENT.matches(&bytes), may_wait, "{packet:?}");
                let mut other_version = bytes;
                other_version[2] ^= 0x10;
                assert!(!PATIENT.matches(&other_version));
            }
        }
    }
    assert!(!PATIENT.matches(b"Cm\x21"));
}

#[test]
fn layout_is_as_documented() {
    let head = |kind_and_flags: [u8; 2]| {
        [
            b"Cm".as_slice(),
            &kind_and_flags,
            &[1, 2, 3, 4, 5, 6, 7, 8],
            &5u64.to_be_bytes(),
            &3u64.to_be_bytes(),
            &9u32.to_be_bytes(),
        ]
        .concat()
    };
    let death = Death {
        node: Id(6),
        incarnation: 7,
    };
    let dead = [6u64.to_be_bytes(), 7u64.to_be_bytes()].concat();
    let beat = Body::Beat {
        answer: true,
        guardians: vec![0x0a0b_0c0d, 1],
    };
    let cases = [
        (beat, [0x21, 4], b"\x0a\x0b\x0c\x0d\0\0\0\x01".to_vec()),
        (Body::Ack { sequence: 4 }, [0x22, 0], vec![0, 0, 0, 4]),
        (Body::Probe, [0x23, 0], vec![]),
        (Body::Vote(death), [0x24, 0], dead.clone()),
        (Body::Obituary(death), [0x25, 0], dead),
        (hello(), [0x26, 6], b"\0\0\0\x01\0\0\0\x02state".to_vec()),
        (Body::Leave, [0x27, 0], vec![]),
        (
            Body::Follow { within: 5000 },
            [0x28, 0],
            vec![0, 0, 0x13, 0x88],
        ),
    ];
    for (body, kind_and_flags, tail) in cases {
        let bytes = packet(body.clone()).build(None).unwrap();
        assert_eq!(bytes, [head(kind_and_flags), tail].concat(), "{body:?}");
    }
    let deaf = Packet {
        deaf: true,
        ..packet(Body::Probe)
    };
    assert_eq!(deaf.build(None).unwrap(), head([0x23, 8]));
}

/// HMAC written out from RFC 2104 over plain SHA-256: independent of the crate in use.
#[test]
fn tag_is_hmac_sha_256_cut_to_half() {
    use sha2::{Digest, Sha256};
    let keyed = packet(hello()).build(Some(&key())).unwrap();
    let (body, tag) = keyed.split_at(keyed.len() - 16);
    let block = |pad: u8| -> Vec<u8> {
        (0..64)
            .map(|at| if at < 32 { 7 ^ pad } else { pad })
            .collect()
    };
    let inner = Sha256::digest([block(0x36).as_slice(), body].concat());
    let outer = Sha256::digest([block(0x5c).as_slice(), inner.as_slice()].concat());
    assert_eq!(tag, &outer[..16]);
}

#[test]
fn datagrams_that_are_refused() {
    let plain = packet(hello()).build(None).unwrap();
    let keyed = packet(hello()).build(Some(&key())).unwrap();
    let with = |at: usize, value: u8| {
        let mut bytes = plain.clone();
        bytes[at] = value;
        bytes
    };
    let long = |body: Body| [packet(body).build(None).unwrap(), vec![0]].concat();
    let death = Death {
        node: Id(1),
        incarnation: 1,
    };
    let mut kind = packet(Body::Probe).build(None).unwrap();
    kind[2] = 0x29;
    #[rustfmt::skip]
    let cases = [
        (vec![], Error::Truncated { offset: 0, length: 0 }),
        (with(0, b'X'), Error::Magic { found: *b"Xm" }),
        (with(2, 0x36), Error::Version { found: 3 }),
        (kind, Error::Kind { found: 9 }),
        (with(2, 0x21), Error::Flags { found: 6 }),
        (with(3, 0x80), Error::Flags { found: 0x80 }),
        (with(3, 0), Error::PayloadLength { length: 5 }),
        (plain[..31].to_vec(), Error::Truncated { offset: 32, length: 31 }),
        (plain[..39].to_vec(), Error::Truncated { offset: 36, length: 39 }),
        (long(Body::Beat { answer: false, guardians: vec![] }), Error::Guardians { offset: 32, length: 1 }),
        (long(Body::Probe), Error::Trailing { offset: 32, length: 33 }),
        (long(Body::Vote(death)), Error::Trailing { offset: 48, length: 49 }),
        (long(Body::Follow { within: 1 }), Error::Trailing { offset: 36, length: 37 }),
        (keyed.clone(), Error::UnexpectedTag),
    ];
    for (bytes, error) in cases {
        assert_eq!(Packet::parse(&bytes, None), Err(error));
    }
    let four = Body::Beat {
        answer: false,
        guardians: vec![0; 4],
    };
    let bytes = packet(four).build(None).unwrap();
    let (offset, length) = (32, 16);
    assert_eq!(
        Packet::parse(&bytes, None),
        Err(Error::Guardians { offset, length })
    );
    assert_eq!(Packet::parse(&plain, Some(&key())), Err(Error::Untagged));
    let other = Key([8; 32]);
    assert_eq!(Packet::parse(&keyed, Some(&other)), Err(Error::BadTag));
    assert_eq!(NodeName::new(""), Err(Error::NameLength { length: 0 }));
    let name = NodeName::new("x".repeat(254));
    assert_eq!(name, Err(Error::NameLength { length: 254 }));
    let fat = Body::Hello {
        answer: false,
        have: 0,
        payload: Some(Payload {
            version: 1,
            bytes: vec![0; 1025],
        }),
    };
    assert_eq!(
        packet(fat).build(None),
        Err(Error::PayloadLength { length: 1025 })
    );
    let shown = format!("{:?}", Some(key()));
    assert!(!shown.contains('7'), "{shown}");
}

fn any_body() -> impl Strategy<Value = Body> {
    let death = any::<(u64, u64)>().prop_map(|(node, incarnation)| Death {
        node: Id(node),
        incarnation,
    });
    let bytes = prop::collection::vec(any::<u8>(), 0..=MAX_PAYLOAD);
    let payload = (any::<u32>(), bytes).prop_map(|(version, bytes)| Payload { version, bytes });
    prop_oneof![
        (
            any::<bool>(),
            prop::collection::vec(any::<u32>(), 0..=MAX_GUARDIANS)
        )
            .prop_map(|(answer, guardians)| Body::Beat { answer, guardians }),
        any::<u32>().prop_map(|sequence| Body::Ack { sequence }),
        Just(Body::Probe),
        death.clone().prop_map(Body::Vote),
        death.prop_map(Body::Obituary),
        (any::<bool>(), any::<u32>(), prop::option::of(payload)).prop_map(
            |(answer, have, payload)| Body::Hello {
                answer,
                have,
                payload
            }
        ),
        Just(Body::Leave),
        any::<u32>().prop_map(|within| Body::Follow { within }),
    ]
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>());
    (numbers, any::<bool>(), any_body()).prop_map(
        |((from, incarnation, to, sequence), deaf, body)| Packet {
            from: Id(from),
            incarnation,
            to,
            sequence,
            deaf,
            body,
        },
    )
}

proptest! {
    #[test]
    fn round_trip(packet in any_packet(), keyed in any::<bool>()) {
        let key = keyed.then(key);
        let bytes = packet.build(key.as_ref()).unwrap();
        prop_assert!(bytes.len() <= MAX_LEN);
        prop_assert_eq!(Packet::parse(&bytes, key.as_ref()), Ok(packet));
    }

    #[test]
    fn no_bit_can_change_under_the_tag(packet in any_packet(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut bytes = packet.build(Some(&key())).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Packet::parse(&bytes, Some(&key())).is_err());
    }

    /// Any bytes, in any order, with any time between them: nothing panics, and time goes on.
    #[test]
    fn no_bytes_panic(
        noise in prop::collection::vec(any::<u8>(), 0..100),
        packets in prop::collection::vec((any_packet(), any::<bool>(), 0..3usize, 0..400u64), 0..20),
    ) {
        let mut member = Member::new(name(0), Config::default(), ms(0));
        let peers = [(name(1), address(1)), (name(2), address(2))];
        member.set_peers(ms(0), peers.into());
        let mut now = ms(0);
        let mut total = 1;
        let _ = member.on_datagram(now, address(1), &noise);
        for (mut packet, near, from, wait) in packets {
            now += ms(wait);
            packet.from = id(from);
            if near {
                // What may be believed.
                packet.to = 1;
                packet.incarnation %= 4;
                packet.sequence %= 100;
            }
            let bytes = packet.build(None).unwrap();
            let _ = member.on_datagram(now, address(from), &bytes);
            total += 1;
            while let Some(due) = member.poll_timeout().filter(|due| *due <= now) {
                member.on_timeout(now);
                let next = member.poll_timeout().unwrap();
                prop_assert!(next > due || next <= now);
                if next <= now && next <= due {
                    break;
                }
            }
        }
        let counters = *member.counters();
        let sum = counters.accepted + counters.bad_tag + counters.replayed
            + counters.stranger + counters.malformed;
        prop_assert_eq!(sum, total);
    }
}
