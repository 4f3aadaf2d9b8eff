//! RFC 7606 case by case, AS4_PATH merging, link bandwidth.

use super::{super::*, *};

const ATTRIBUTES: [(u8, u8, &str); 3] = [
    (0x40, 1, "00"),
    (0x40, 2, "02010000fde9"),
    (0x40, 3, "0a000001"),
];

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .filter_map(|char| char.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![flags, code];
    if flags & EXTENDED_LENGTH != 0 {
        out.extend((value.len() as u16).to_be_bytes());
    } else {
        out.push(value.len() as u8);
    }
    out.extend(value);
    out
}

fn message(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut out = vec![0xff; 16];
    let length = 23 + withdrawn.len() + attributes.len() + nlri.len();
    out.extend((length as u16).to_be_bytes());
    out.push(2);
    out.extend((withdrawn.len() as u16).to_be_bytes());
    out.extend(withdrawn);
    out.extend((attributes.len() as u16).to_be_bytes());
    out.extend(attributes);
    out.extend(nlri);
    out
}

fn codec(external: bool) -> Codec {
    Codec {
        external,
        ..Codec::default()
    }
}

/// A good list in which the attribute stands in place of the one of its type, or last.
fn list(external: bool, flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let local_pref = (0x40, 5, "00000064");
    let base = ATTRIBUTES
        .into_iter()
        .chain((!external).then_some(local_pref));
    for (flags, other, value) in base.filter(|(_, other, _)| *other != code) {
        out.extend(attribute(flags, other, &bytes(value)));
    }
    out.extend(attribute(flags, code, value));
    out
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Taken,
    Discarded,
    Withdrawn,
    /// UPDATE error of this subcode.
    Reset(u8),
}
use Outcome::{Discarded, Reset, Taken, Withdrawn};

fn outcome(message: &[u8], codec: &Codec) -> Outcome {
    let update = match Message::decode(message, codec) {
        Ok(Message::Update(update)) => update,
        Ok(other) => panic!("not an UPDATE: {other:?}"),
        Err(error) => {
            let notification = error.notification();
            assert_eq!(notification.code, 3, "{error}");
            return Reset(notification.subcode);
        }
    };
    match (update.announced.is_empty(), update.flaws.as_slice()) {
        (true, [_, ..]) => {
            assert!(!update.withdrawn.is_empty());
            Withdrawn
        }
        (true, []) => panic!("nothing announced and no reason"),
        (false, [_, ..]) => Discarded,
        (false, []) => Taken,
    }
}

/// Flags, type, value, what follows from an external and from an internal peer.
type Case = (&'static str, u8, u8, &'static str, Outcome, Outcome);

fn both(name: &'static str, flags: u8, code: u8, value: &'static str, outcome: Outcome) -> Case {
    (name, flags, code, value, outcome, outcome)
}

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    vec![
        // §7.1 ORIGIN
        both("origin igp", 0x40, 1, "00", Taken),
        both("origin egp", 0x40, 1, "01", Taken),
        both("origin incomplete", 0x40, 1, "02", Taken),
        both("origin extended length", 0x50, 1, "00", Taken),
        both("origin with unused flag bits", 0x4f, 1, "00", Taken),
        both("origin optional", 0xc0, 1, "00", Withdrawn),
        both("origin not transitive", 0x00, 1, "00", Withdrawn),
        both("origin partial", 0x60, 1, "00", Withdrawn),
        both("origin of 0 bytes", 0x40, 1, "", Withdrawn),
        both("origin of 2 bytes", 0x40, 1, "0000", Withdrawn),
        both("origin 3", 0x40, 1, "03", Withdrawn),
        both("origin 255", 0x40, 1, "ff", Withdrawn),
        // §7.2 AS_PATH
        both("path empty", 0x40, 2, "", Taken),
        both("path of two segments", 0x40, 2, "02010000fde902010000fdea", Taken),
        both("path optional", 0xc0, 2, "02010000fde9", Withdrawn),
        both("path partial", 0x60, 2, "02010000fde9", Withdrawn),
        both("path segment type 0", 0x40, 2, "00010000fde9", Withdrawn),
        both("path segment type 5", 0x40, 2, "05010000fde9", Withdrawn),
        both("path segment of 0", 0x40, 2, "0200", Withdrawn),
        both("path overrun", 0x40, 2, "02ff0000fde9", Withdrawn),
        both("path underrun", 0x40, 2, "02010000fde902", Withdrawn),
        both("path of 2-octet numbers", 0x40, 2, "0201fde9", Withdrawn),
        both("path with AS 0", 0x40, 2, "020100000000", Withdrawn),
        both("path with AS_SET", 0x40, 2, "01010000fde9", Withdrawn),
        both("path with confederation sequence", 0x40, 2, "03010000fde9", Withdrawn),
        both("path with confederation set", 0x40, 2, "04010000fde9", Withdrawn),
        // §7.3 NEXT_HOP
        both("next hop optional", 0xc0, 3, "0a000001", Withdrawn),
        both("next hop of 3 bytes", 0x40, 3, "0a0000", Withdrawn),
        both("next hop of 5 bytes", 0x40, 3, "0a00000100", Withdrawn),
        both("next hop of 0 bytes", 0x40, 3, "", Withdrawn),
        both("next hop of 16 bytes", 0x40, 3, "20010db8000000000000000000000001", Withdrawn),
        both("next hop 0", 0x40, 3, "00000000", Withdrawn),
        both("next hop loopback", 0x40, 3, "7f000001", Withdrawn),
        both("next hop multicast", 0x40, 3, "e0000001", Withdrawn),
        both("next hop broadcast", 0x40, 3, "ffffffff", Withdrawn),
        // §7.4 MULTI_EXIT_DISC
        both("med", 0x80, 4, "0000000a", Taken),
        both("med transitive", 0xc0, 4, "0000000a", Withdrawn),
        both("med partial", 0xa0, 4, "0000000a", Withdrawn),
        both("med of 3 bytes", 0x80, 4, "000000", Withdrawn),
        both("med of 5 bytes", 0x80, 4, "000000000a", Withdrawn),
        both("med of 0 bytes", 0x80, 4, "", Withdrawn),
        // §7.5 LOCAL_PREF
        ("local pref", 0x40, 5, "00000064", Discarded, Taken),
        ("local pref of 3 bytes", 0x40, 5, "000000", Discarded, Withdrawn),
        ("local pref of 5 bytes", 0x40, 5, "0000000064", Discarded, Withdrawn),
        ("local pref of 0 bytes", 0x40, 5, "", Discarded, Withdrawn),
        both("local pref optional", 0xc0, 5, "00000064", Withdrawn),
        // §7.6 ATOMIC_AGGREGATE
        both("atomic aggregate", 0x40, 6, "", Taken),
        both("atomic aggregate of 1 byte", 0x40, 6, "00", Discarded),
        both("atomic aggregate optional", 0xc0, 6, "", Discarded),
        // §7.7 AGGREGATOR
        both("aggregator", 0xc0, 7, "0000fde90a000002", Taken),
        both("aggregator partial", 0xe0, 7, "0000fde90a000002", Taken),
        both("aggregator of 5 bytes", 0xc0, 7, "0000fde90a", Discarded),
        both("aggregator of 6 bytes", 0xc0, 7, "fde90a000002", Discarded),
        both("aggregator of 7 bytes", 0xc0, 7, "0000fde90a0000", Discarded),
        both("aggregator of 9 bytes", 0xc0, 7, "0000fde90a00000200", Discarded),
        both("aggregator with AS 0", 0xc0, 7, "000000000a000002", Discarded),
        both("aggregator well-known", 0x40, 7, "0000fde90a000002", Discarded),
        // §7.8 COMMUNITIES
        both("communities", 0xc0, 8, "ffff0001ffff0002", Taken),
        both("communities partial", 0xe0, 8, "ffff0001", Taken),
        both("communities not transitive", 0x80, 8, "ffff0001", Withdrawn),
        both("communities of 0 bytes", 0xc0, 8, "", Withdrawn),
        both("communities of 5 bytes", 0xc0, 8, "ffff000100", Withdrawn),
        // §7.9 ORIGINATOR_ID
        ("originator", 0x80, 9, "0a000002", Discarded, Taken),
        ("originator of 3 bytes", 0x80, 9, "0a0000", Discarded, Withdrawn),
        ("originator of 5 bytes", 0x80, 9, "0a00000200", Discarded, Withdrawn),
        both("originator transitive", 0xc0, 9, "0a000002", Withdrawn),
        // §7.10 CLUSTER_LIST
        ("cluster list", 0x80, 10, "0a0000020a000003", Discarded, Taken),
        ("cluster list of 0 bytes", 0x80, 10, "", Discarded, Withdrawn),
        ("cluster list of 5 bytes", 0x80, 10, "0a00000200", Discarded, Withdrawn),
        both("cluster list transitive", 0xc0, 10, "0a000002", Withdrawn),
        // §7.11 MP_REACH_NLRI, §5.3
        both("reach", 0x80, 14, "0002011020010db800000000000000000000000100202001 0db8", Taken),
        both("reach with both addresses", 0x80, 14, "00020120\
            20010db8000000000000000000000001fe80000000000000000000000000000100202001 0db8", Taken),
        both("reach without prefix", 0x80, 14, "0002011020010db800000000000000000000000100", Taken),
        both("reach for a family not negotiated", 0x80, 14, "00014604 0a000001 00 2000", Discarded),
        both("reach with multicast next hop", 0x80, 14,
            "00020110ff0200000000000000000000000000010020 20010db8", Withdrawn),
        both("reach with next hop 0", 0x80, 14,
            "00020110000000000000000000000000000000000020 20010db8", Withdrawn),
        both("reach with next hop of 9 bytes", 0x80, 14, "0002010920010db80000000000 00 20 20010db8", Reset(9)),
        both("reach with next hop overrun", 0x80, 14, "0002014020010db800000000000000000000000100", Reset(9)),
        both("reach cut in the next hop", 0x80, 14, "0002011020010db800000000", Reset(9)),
        both("reach without reserved byte", 0x80, 14, "0002011020010db8000000000000000000000001", Reset(9)),
        both("reach of 4 bytes", 0x80, 14, "00020100", Reset(9)),
        both("reach of 0 bytes", 0x80, 14, "", Reset(9)),
        both("reach with prefix of 129 bits", 0x80, 14,
            "0002011020010db80000000000000000000000010081 20010db8000000000000000000000000ff", Reset(9)),
        both("reach with cut prefix", 0x80, 14, "0002011020010db80000000000000000000000010040 20010db8", Reset(9)),
        both("reach transitive", 0xc0, 14, "0002011020010db80000000000000000000000010020 20010db8", Reset(9)),
        both("reach partial", 0xa0, 14, "0002011020010db80000000000000000000000010020 20010db8", Reset(9)),
        both("reach for IPv4 with IPv6 next hop, not negotiated", 0x80, 14,
            "0001011020010db800000000000000000000000100 18c00002", Reset(9)),
        // §7.12 MP_UNREACH_NLRI, §5.3
        both("unreach", 0x80, 15, "00020120 20010db8", Taken),
        both("unreach of 2 bytes", 0x80, 15, "0002", Reset(9)),
        both("unreach with cut prefix", 0x80, 15, "000201 40 20010db8", Reset(9)),
        both("unreach transitive", 0xc0, 15, "00020120 20010db8", Reset(9)),
        both("unreach for a family not negotiated", 0x80, 15, "000180 20 20010db8", Discarded),
        // §7.14 EXTENDED COMMUNITIES
        both("extended community", 0xc0, 16, "0002fde900000001", Taken),
        both("extended community of unknown type", 0xc0, 16, "3fff000000000001", Taken),
        both("extended communities not transitive", 0x80, 16, "0002fde900000001", Withdrawn),
        both("extended communities of 0 bytes", 0xc0, 16, "", Withdrawn),
        both("extended communities of 9 bytes", 0xc0, 16, "0002fde90000000100", Withdrawn),
        // RFC 6793 §4.1: from a speaker with 4-octet numbers
        both("AS4_PATH", 0xc0, 17, "02010000fde9", Discarded),
        both("AS4_PATH not transitive", 0x80, 17, "02010000fde9", Withdrawn),
        both("AS4_PATH segment type 0", 0xc0, 17, "00010000fde9", Discarded),
        both("AS4_AGGREGATOR of 7 bytes", 0xc0, 18, "0000fde90a0000", Discarded),
        both("AS4_AGGREGATOR of 9 bytes", 0xc0, 18, "0000fde90a00000200", Discarded),
        // §7.15 IPv6 EXTENDED COMMUNITIES
        both("IPv6 extended community", 0xc0, 25, "000220010db80000000000000000000000010001", Taken),
        both("IPv6 extended communities not transitive", 0x80, 25,
            "000220010db80000000000000000000000010001", Withdrawn),
        both("IPv6 extended communities of 0 bytes", 0xc0, 25, "", Withdrawn),
        both("IPv6 extended communities of 21 bytes", 0xc0, 25,
            "000220010db8000000000000000000000001000100", Withdrawn),
        // RFC 7311 AIGP
        both("AIGP where it is not asked for", 0x80, 26, "01000b000000000000000a", Discarded),
        both("AIGP transitive", 0xc0, 26, "01000b000000000000000a", Discarded),
        // RFC 8092 LARGE_COMMUNITY
        both("large community", 0xc0, 32, "0000fde90000000100000002", Taken),
        both("large communities not transitive", 0x80, 32, "0000fde90000000100000002", Withdrawn),
        both("large communities of 0 bytes", 0xc0, 32, "", Withdrawn),
        both("large communities of 13 bytes", 0xc0, 32, "0000fde9000000010000000200", Withdrawn),
        // RFC 9234 ONLY_TO_CUSTOMER
        both("only to customer", 0xc0, 35, "0000fde9", Taken),
        both("only to customer not transitive", 0x80, 35, "0000fde9", Withdrawn),
        both("only to customer of 3 bytes", 0xc0, 35, "0000fd", Withdrawn),
        both("only to customer of 5 bytes", 0xc0, 35, "0000fde900", Withdrawn),
        both("only to customer AS 0", 0xc0, 35, "00000000", Withdrawn),
        // Unknown ones (RFC 4271 §5, §6.3)
        both("unknown optional", 0x80, 253, "deadbeef", Taken),
        both("unknown optional transitive", 0xc0, 254, "deadbeef", Taken),
        both("unknown optional transitive of 0 bytes", 0xc0, 254, "", Taken),
        both("unknown well-known", 0x40, 254, "deadbeef", Reset(2)),
    ]
}

#[test]
fn every_case_of_rfc_7606_has_its_outcome() {
    let mut wrong = Vec::new();
    for (name, flags, code, value, external, internal) in cases() {
        for (is_external, want) in [(true, external), (false, internal)] {
            let list = list(is_external, flags, code, &bytes(value));
            let message = message(&[], &list, &bytes("18c00002"));
            let found = outcome(&message, &codec(is_external));
            if found != want {
                wrong.push(format!(
                    "{name}, external {is_external}: {found:?}, not {want:?}"
                ));
            }
        }
    }
    assert!(cases().len() >= 88);
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_missing_mandatory_attribute_withdraws() {
    for (left_out, external) in [(1, true), (2, true), (3, true), (5, false)] {
        let mut attributes = Vec::new();
        for (flags, code, value) in ATTRIBUTES {
            if code != left_out {
                attributes.extend(attribute(flags, code, &bytes(value)));
            }
        }
        let message = message(&[], &attributes, &bytes("18c00002"));
        assert_eq!(outcome(&message, &codec(external)), Withdrawn, "{left_out}");
    }
}

#[test]
fn a_list_that_ends_inside_an_attribute_withdraws() {
    let good = list(true, 0x80, 4, &bytes("0000000a"));
    for cut in 1..7 {
        let list = &good[..good.len() - cut];
        assert_eq!(
            outcome(&message(&[], list, &bytes("18c00002")), &codec(true)),
            Withdrawn,
            "{cut}"
        );
    }
}

#[test]
fn the_first_of_two_counts_except_for_multiprotocol() {
    let twice = |flags, code, value: &str| {
        let mut list = list(true, flags, code, &bytes(value));
        list.extend(attribute(flags, code, &bytes(value)));
        outcome(&message(&[], &list, &bytes("18c00002")), &codec(true))
    };
    assert_eq!(twice(0x40, 1, "00"), Discarded);
    assert_eq!(twice(0x80, 4, "0000000a"), Discarded);
    assert_eq!(twice(0xc0, 254, "00"), Discarded);
    assert_eq!(twice(0x80, 15, "00020120 20010db8"), Reset(1));
    let reach = "0002011020010db80000000000000000000000010020 20010db8";
    assert_eq!(twice(0x80, 14, reach), Reset(1));
}

#[test]
fn the_strongest_disposition_holds() {
    // A discard before a withdraw; the withdraw takes prefixes of both encodings.
    let mut attributes = list(true, 0xc0, 7, &bytes("00"));
    attributes.extend(attribute(0x80, 4, &bytes("00")));
    let reach = "0002011020010db80000000000000000000000010020 20010db8";
    attributes.extend(attribute(0x80, 14, &bytes(reach)));
    let message = message(&[], &attributes, &bytes("18c00002"));
    let Ok(Message::Update(update)) = Message::decode(&message, &codec(true)) else {
        panic!("not read");
    };
    assert_eq!(update.flaws.len(), 2);
    assert!(update.announced.is_empty());
    let gone: Vec<String> = update
        .withdrawn
        .iter()
        .map(|one| one.prefix.to_string())
        .collect();
    assert_eq!(gone, ["192.0.2.0/24", "2001:db8::/32"]);
}

#[test]
fn an_error_without_prefix_resets() {
    // §5.2: with other attributes and no prefix one cannot know what was lost.
    let bad = list(true, 0x40, 1, &bytes("07"));
    assert_eq!(outcome(&message(&[], &bad, &[]), &codec(true)), Reset(6));
    assert_eq!(
        outcome(&message(&bytes("18c00002"), &bad, &[]), &codec(true)),
        Reset(6)
    );
    // A discard does not.
    let poor = list(true, 0x40, 6, &bytes("07"));
    let message = message(&bytes("18c00002"), &poor, &[]);
    assert!(Message::decode(&message, &codec(true)).is_ok());
}

#[test]
fn lengths_and_networks_that_do_not_fit_reset() {
    let good = list(true, 0x80, 4, &bytes("0000000a"));
    let whole = message(&[], &good, &bytes("18c00002"));
    for (at, value) in [(19, 0xffff_u16), (19, 60), (21, 0xffff), (21, 60)] {
        let mut message = whole.clone();
        message[at..at + 2].copy_from_slice(&value.to_be_bytes());
        assert_eq!(outcome(&message, &codec(true)), Reset(1), "{at}: {value}");
    }
    for nlri in ["21c000020000", "18c000", "18c0000218", "ff"] {
        assert_eq!(
            outcome(&message(&[], &good, &bytes(nlri)), &codec(true)),
            Reset(10)
        );
        assert_eq!(
            outcome(
                &message(&bytes(nlri), &good, &bytes("18c00002")),
                &codec(true)
            ),
            Reset(10)
        );
    }
}

#[test]
fn a_family_can_end_instead_of_the_session() {
    let codec = Codec {
        disable_families: true,
        ..codec(true)
    };
    let list = list(
        true,
        0x80,
        14,
        &bytes("0002010920010db80000000000 00 20 20010db8"),
    );
    let message = message(&[], &list, &bytes("18c00002"));
    let Ok(Message::Update(update)) = Message::decode(&message, &codec) else {
        panic!("not read");
    };
    assert_eq!(update.disabled, Families::from_iter([Family::Ipv6]));
    // The other family's prefix has attributes of which one could not be read.
    assert!(update.announced.is_empty());
}

#[test]
fn paths_of_old_speakers_are_merged() {
    let old = Codec {
        four_octet: false,
        ..codec(true)
    };
    let read = |path: &str, four: &str, extra: &[u8]| {
        let mut attributes = Vec::new();
        for (flags, code, value) in [(0x40, 1, "00"), (0x40, 2, path), (0x40, 3, "0a000001")] {
            attributes.extend(attribute(flags, code, &bytes(value)));
        }
        attributes.extend(extra);
        attributes.extend(attribute(0xc0, 17, &bytes(four)));
        let message = message(&[], &attributes, &bytes("18c00002"));
        match Message::decode(&message, &old) {
            Ok(Message::Update(update)) => update.attributes,
            other => panic!("{other:?}"),
        }
    };
    let path = |numbers: &[u32]| AsPath(numbers.iter().copied().map(Asn).collect());
    let four = "0202 00010001 00010002";
    assert_eq!(
        read("0203 fde9 5ba0 5ba0", four, &[]).as_path,
        path(&[65001, 65537, 65538])
    );
    // Longer than the path: of no use.
    assert_eq!(read("0201 fde9", four, &[]).as_path, path(&[65001]));
    // Malformed: of no use.
    assert_eq!(
        read("0203 fde9 5ba0 5ba0", "0902 00010001", &[]).as_path,
        path(&[65001, 23456, 23456])
    );
    // An AGGREGATOR that is not AS_TRANS beside AS4_AGGREGATOR: both new ones are ignored.
    let mut extra = attribute(0xc0, 7, &bytes("fde9 0a000002"));
    extra.extend(attribute(0xc0, 18, &bytes("00010001 0a000002")));
    let attributes = read("0203 fde9 5ba0 5ba0", four, &extra);
    assert_eq!(attributes.as_path, path(&[65001, 23456, 23456]));
    assert_eq!(attributes.aggregator.map(|it| it.asn), Some(Asn(65001)));
    let mut extra = attribute(0xc0, 7, &bytes("5ba0 0a000002"));
    extra.extend(attribute(0xc0, 18, &bytes("00010001 0a000002")));
    let attributes = read("0203 fde9 5ba0 5ba0", four, &extra);
    assert_eq!(attributes.as_path, path(&[65001, 65537, 65538]));
    assert_eq!(attributes.aggregator.map(|it| it.asn), Some(Asn(65537)));
}

#[test]
fn unknown_transitive_attributes_are_kept_with_the_partial_bit() {
    let list = list(true, 0xc0, 254, &bytes("deadbeef"));
    let Ok(Message::Update(update)) =
        Message::decode(&message(&[], &list, &bytes("18c00002")), &codec(true))
    else {
        panic!("not read");
    };
    let kept = Opaque {
        flags: 0xe0,
        code: 254,
        value: bytes("deadbeef"),
    };
    assert_eq!(update.attributes.opaque, [kept]);
}

#[test]
fn link_bandwidth_has_both_types() {
    for (transitive, kind) in [(true, 0x00), (false, 0x40)] {
        let value = LinkBandwidth {
            asn: 64512,
            bytes_per_second: 1_250_000.0,
            transitive,
        };
        let community = ExtendedCommunity::link_bandwidth(value);
        assert_eq!(community.0, [kind, 4, 0xfc, 0, 0x49, 0x98, 0x96, 0x80]);
        assert_eq!(community.as_link_bandwidth(), Some(value));
        assert_eq!(community.is_transitive(), transitive);
    }
    let nonsense = ExtendedCommunity([0, 4, 0, 1, 0x7f, 0xc0, 0, 0]);
    assert_eq!(nonsense.as_link_bandwidth(), None);
    assert_eq!(
        ExtendedCommunity::route_target(Asn(65000), 7),
        Some(ExtendedCommunity([0, 2, 0xfd, 0xe8, 0, 0, 0, 7]))
    );
    assert_eq!(ExtendedCommunity::route_target(Asn(70000), 70000), None);
}
