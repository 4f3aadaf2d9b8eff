//! What is encoded reads back.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::{collection::vec, option, prelude::*};

use super::{super::*, *};

pub(crate) fn asn() -> impl Strategy<Value = Asn> {
    prop_oneof![1..=65535u32, 1..=u32::MAX].prop_map(Asn)
}

fn host() -> impl Strategy<Value = Ipv4Addr> {
    (1..=9u8, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| Ipv4Addr::new(a, b, c, d))
}

pub(crate) fn attributes() -> impl Strategy<Value = Attributes> {
    let first = (
        prop_oneof![
            Just(Origin::Igp),
            Just(Origin::Egp),
            Just(Origin::Incomplete)
        ],
        vec(asn(), 0..600),
        option::of(any::<u32>()),
        any::<u32>(),
        any::<bool>(),
        option::of((asn(), any::<u32>())),
        vec(any::<u32>(), 0..70),
    );
    let second = (
        option::of(any::<u32>()),
        vec(any::<u32>(), 0..4),
        vec(any::<[u8; 8]>(), 0..4),
        proptest::collection::btree_set(any::<(u32, u32, u32)>(), 0..4),
        option::of(asn()),
        vec(any::<u8>(), 0..300),
    );
    (first, second).prop_map(|(first, second)| {
        let (origin, path, med, local_pref, atomic_aggregate, aggregator, communities) = first;
        let (originator, cluster, extended, large, only_to_customer, opaque) = second;
        Attributes {
            origin,
            as_path: AsPath(path),
            med,
            local_pref: Some(local_pref),
            atomic_aggregate,
            aggregator: aggregator.map(|(asn, address)| Aggregator {
                asn,
                address: Ipv4Addr::from_bits(address),
            }),
            communities: communities.into_iter().map(Community).collect(),
            originator_id: originator.map(Ipv4Addr::from_bits),
            cluster_list: cluster.into_iter().map(Ipv4Addr::from_bits).collect(),
            extended_communities: extended.into_iter().map(ExtendedCommunity).collect(),
            large_communities: large
                .into_iter()
                .map(|(global, first, second)| LargeCommunity {
                    global,
                    first,
                    second,
                })
                .collect(),
            only_to_customer,
            opaque: vec![Opaque {
                flags: 0xe0,
                code: 200,
                value: opaque,
            }],
        }
    })
}

fn nlri(family: Family, add_path: bool) -> impl Strategy<Value = Nlri> {
    (any::<u128>(), 0..=family.bits(), any::<u32>()).prop_map(move |(bits, length, id)| {
        let address = match family {
            Family::Ipv4 => Ipv4Addr::from_bits(bits as u32).into(),
            Family::Ipv6 => Ipv6Addr::from_bits(bits).into(),
        };
        Nlri {
            prefix: Prefix::new(address, length).unwrap(),
            path_id: if add_path { id } else { 0 },
        }
    })
}

pub(crate) fn routes() -> impl Strategy<Value = (Family, NextHop, bool, Vec<Nlri>)> {
    let v6 = (1..=9u16, any::<u64>())
        .prop_map(|(head, tail)| Ipv6Addr::from_bits(u128::from(head) << 112 | u128::from(tail)));
    let next_hop = prop_oneof![
        host().prop_map(NextHop::V4),
        v6.clone().prop_map(NextHop::V6),
        (v6, any::<u64>()).prop_map(|(global, interface)| NextHop::V6Both {
            global,
            link_local: Ipv6Addr::from_bits(0xfe80_u128 << 112 | u128::from(interface)),
        }),
    ];
    (next_hop, any::<bool>(), any::<bool>()).prop_flat_map(|(next_hop, v4, add_path)| {
        let family = if v4 || matches!(next_hop, NextHop::V4(_)) {
            Family::Ipv4
        } else {
            Family::Ipv6
        };
        let many = vec(nlri(family, add_path), 1..1200);
        (Just(family), Just(next_hop), Just(add_path), many)
    })
}

pub(crate) fn codec(add_path: bool, four_octet: bool, extended: bool) -> Codec {
    let add_path = if add_path {
        Families::ALL
    } else {
        Families::NONE
    };
    Codec {
        four_octet,
        extended_message: extended,
        extended_next_hop: true,
        add_path_receive: add_path,
        add_path_send: add_path,
        external: false,
        ..Codec::default()
    }
}

/// The UPDATEs of a stream.
fn read(stream: &[u8], codec: &Codec) -> Vec<Update> {
    let mut framer = Framer::default();
    if codec.extended_message {
        framer.allow_extended();
    }
    framer.push(stream);
    let mut all = Vec::new();
    while let Some(message) = framer.next().unwrap() {
        match Message::decode(message, codec).unwrap() {
            Message::Update(update) => all.push(*update),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(framer.pending(), 0);
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn announcements_read_back(
        attributes in attributes(),
        (family, next_hop, add_path, nlri) in routes(),
        four_octet: bool,
        extended: bool,
    ) {
        let codec = codec(add_path, four_octet, extended);
        let mut out = Vec::new();
        let announce = match Announce::new(&attributes, &next_hop, family, &codec) {
            Ok(announce) => announce,
            Err(TooLarge { length, limit }) => {
                prop_assert!(!extended && length + 19 + 21 > limit);
                return Ok(());
            }
        };
        let mut rest = nlri.iter().copied();
        let mut counts = Vec::new();
        loop {
            let count = announce.message(&mut rest, &mut out);
            if count == 0 {
                break;
            }
            counts.push(count);
        }
        let updates = read(&out, &codec);
        prop_assert_eq!(updates.len(), counts.len());
        let mut found = Vec::new();
        for update in updates {
            prop_assert_eq!(&update.flaws, &vec![]);
            prop_assert_eq!(&update.attributes, &attributes);
            prop_assert_eq!(update.end_of_rib, None);
            let [announced] = update.announced.as_slice() else {
                panic!("not one group");
            };
            prop_assert_eq!(announced.next_hop, next_hop);
            found.extend(announced.nlri.iter().copied());
        }
        prop_assert_eq!(found, nlri);
    }

    #[test]
    fn withdrawals_read_back((family, _, add_path, nlri) in routes()) {
        let codec = codec(add_path, true, true);
        let mut out = Vec::new();
        let withdraw = Withdraw::new(family, &codec);
        let mut rest = nlri.iter().copied();
        while withdraw.message(&mut rest, &mut out) > 0 {}
        let updates = read(&out, &codec);
        prop_assert!(updates.iter().all(|update| update.announced.is_empty()));
        let found: Vec<Nlri> = updates.into_iter().flat_map(|update| update.withdrawn).collect();
        prop_assert_eq!(found, nlri);
    }
}

#[test]
fn messages_are_full_and_not_too_long() {
    let attributes = Attributes::default();
    let codec = codec(false, true, true);
    let next_hop = NextHop::V4(Ipv4Addr::new(10, 0, 0, 1));
    let announce = Announce::new(&attributes, &next_hop, Family::Ipv4, &codec).unwrap();
    let mut nlri = (0..10_000u32)
        .map(|index| Prefix::host(Ipv4Addr::from_bits(0x0b00_0000 + index).into()).into());
    let mut out = Vec::new();
    let count = announce.message(&mut nlri, &mut out);
    assert!(
        out.len() <= MAX_LEN && out.len() > MAX_LEN - 9,
        "{}",
        out.len()
    );
    // 19 header, 4 lengths, 4 + 3 + 7 attributes, 5 for each prefix.
    assert_eq!(
        count,
        (MAX_LEN - 37) / 5 - usize::from((MAX_LEN - 37) % 5 < 4)
    );
}

#[test]
fn end_of_rib_is_known() {
    for family in Family::ALL {
        let mut out = Vec::new();
        end_of_rib(family, &mut out);
        let updates = read(&out, &Codec::default());
        assert_eq!(updates.len(), 1);
        assert_eq!(updates[0].end_of_rib, Some(family));
        assert!(updates[0].withdrawn.is_empty());
    }
}

#[test]
fn families_that_were_not_negotiated_are_ignored() {
    let both = codec(false, true, false);
    let only_v6 = Codec {
        families: Families::from_iter([Family::Ipv6]),
        ..both
    };
    let mut out = Vec::new();
    let next_hop = NextHop::V4(Ipv4Addr::new(10, 0, 0, 1));
    let attributes = Attributes {
        local_pref: Some(1),
        ..Attributes::default()
    };
    let prefix: Prefix = "192.0.2.0/24".parse().unwrap();
    let announce = Announce::new(&attributes, &next_hop, Family::Ipv4, &both).unwrap();
    announce.message(&mut [prefix.into()].into_iter(), &mut out);
    assert_eq!(read(&out, &both)[0].announced.len(), 1);
    assert_eq!(read(&out, &only_v6)[0].announced, []);
}
