use std::{net::SocketAddr, time::Duration};

use proptest::prelude::*;

use super::*;

mod behaviour;
mod simulation;

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

fn name(index: usize) -> NodeName {
    NodeName::new(format!("node-{index}")).unwrap()
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, index as u8 + 1], 7946))
}

fn key() -> Key {
    Key([7; 32])
}

fn packet() -> Packet {
    Packet {
        kind: Kind::Beat,
        node: name(1),
        incarnation: 5,
        sequence: 9,
        echo: Echo {
            incarnation: 3,
            sequence: 4,
            payload: 1,
        },
        payload: Some(Payload {
            version: 2,
            bytes: b"state".to_vec(),
        }),
    }
}

#[test]
fn layout_is_as_documented() {
    let bytes = packet().build(None).unwrap();
    let want = [
        b"Cmbr\x01\x01\x02\x06".as_slice(),
        &5u64.to_be_bytes(),
        &9u64.to_be_bytes(),
        &2u64.to_be_bytes(),
        &3u64.to_be_bytes(),
        &4u64.to_be_bytes(),
        &1u64.to_be_bytes(),
        b"\x00\x05node-1state",
    ]
    .concat();
    assert_eq!(bytes, want);
    let keyed = packet().build(Some(&key())).unwrap();
    assert_eq!(keyed.len(), want.len() + 32);
}

/// HMAC written out from RFC 2104 over plain SHA-256: independent of the crate in use.
#[test]
fn tag_is_hmac_sha_256() {
    use sha2::{Digest, Sha256};
    let keyed = packet().build(Some(&key())).unwrap();
    let (body, tag) = keyed.split_at(keyed.len() - 32);
    let block = |pad: u8| -> Vec<u8> {
        (0..64)
            .map(|at| if at < 32 { 7 ^ pad } else { pad })
            .collect()
    };
    let inner = Sha256::digest([block(0x36).as_slice(), body].concat());
    let outer = Sha256::digest([block(0x5c).as_slice(), inner.as_slice()].concat());
    assert_eq!(tag, outer.as_slice());
}

#[test]
fn datagrams_that_are_refused() {
    let plain = packet().build(None).unwrap();
    let keyed = packet().build(Some(&key())).unwrap();
    let with = |at: usize, value: u8| {
        let mut bytes = plain.clone();
        bytes[at] = value;
        bytes
    };
    #[rustfmt::skip]
    let cases = [
        (vec![], Error::Truncated { offset: 0, length: 0 }),
        (with(0, b'X'), Error::Magic { found: *b"Xmbr" }),
        (with(4, 2), Error::Version { found: 2 }),
        (with(5, 3), Error::Kind { found: 3 }),
        (with(6, 0x80), Error::Flags { found: 0x80 }),
        (with(6, 0), Error::PayloadLength { length: 5 }),
        (with(57, 6), Error::Truncated { offset: 64, length: 69 }),
        (with(57, 4), Error::Trailing { offset: 68, length: 69 }),
        (with(58, 0xff), Error::Name { offset: 58 }),
        (with(7, 0), Error::Trailing { offset: 63, length: 69 }),
        (keyed.clone(), Error::UnexpectedTag),
    ];
    for (bytes, error) in cases {
        assert_eq!(Packet::parse(&bytes, None), Err(error));
    }
    assert_eq!(Packet::parse(&plain, Some(&key())), Err(Error::Untagged));
    assert_eq!(
        Packet::parse(&keyed, Some(&Key([8; 32]))),
        Err(Error::BadTag)
    );
    assert_eq!(NodeName::new(""), Err(Error::NameLength { length: 0 }));
    assert_eq!(
        NodeName::new("x".repeat(254)),
        Err(Error::NameLength { length: 254 })
    );
    let fat = Packet {
        payload: Some(Payload {
            version: 1,
            bytes: vec![0; 1025],
        }),
        ..packet()
    };
    assert_eq!(fat.build(None), Err(Error::PayloadLength { length: 1025 }));
    assert_eq!(
        format!(
            "{:?}",
            Config {
                key: Some(key()),
                ..Config::default()
            }
        )
        .matches('7')
        .count(),
        0
    );
}

fn any_packet() -> impl Strategy<Value = Packet> {
    (
        any::<bool>(),
        "[a-zé.-]{1,60}",
        any::<[u64; 5]>(),
        prop::option::of((
            any::<u64>(),
            prop::collection::vec(any::<u8>(), 0..=MAX_PAYLOAD),
        )),
    )
        .prop_map(
            |(beat, node, [incarnation, sequence, a, b, c], payload)| Packet {
                kind: if beat { Kind::Beat } else { Kind::Leave },
                node: NodeName::new(node).unwrap(),
                incarnation,
                sequence,
                echo: Echo {
                    incarnation: a,
                    sequence: b,
                    payload: c,
                },
                payload: payload.map(|(version, bytes)| Payload { version, bytes }),
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

    #[test]
    fn no_bytes_panic(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        changes in prop::collection::vec((0..69usize, any::<u8>()), 0..4),
        length in 0..=69usize,
    ) {
        let mut member = Member::new(name(0), Config::default(), ms(0));
        member.set_peers(ms(0), [(name(1), address(1))].into());
        let mut changed = packet().build(None).unwrap();
        for (at, value) in changes {
            changed[at] = value;
        }
        for bytes in [noise.as_slice(), &changed, &changed[..length]] {
            let _ = member.on_datagram(ms(1), address(1), bytes);
            let _ = Packet::parse(bytes, Some(&key()));
        }
        let counters = *member.counters();
        let total = counters.accepted + counters.bad_tag + counters.replayed
            + counters.stranger + counters.malformed;
        prop_assert_eq!(total, 3);
    }
}
