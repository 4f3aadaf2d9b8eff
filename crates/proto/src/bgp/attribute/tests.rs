//! RFC 7606 case by case, AS4_PATH merging, link bandwidth.

use super::{
    super::cases::Outcome::{Discarded, Reset, Taken, Withdrawn},
    super::cases::{ATTRIBUTES, Outcome, attribute, bytes, cases, list, message},
    super::*,
    *,
};

fn codec(external: bool) -> Codec {
    Codec {
        external,
        ..Codec::default()
    }
}

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

#[test]
fn every_case_of_rfc_7606_has_its_outcome() {
    let mut wrong = Vec::new();
    for case in cases() {
        for external in [true, false] {
            let want = case.outcome(external);
            let found = outcome(&case.update(external, &bytes("18c00002")), &codec(external));
            if found != want {
                let name = case.name;
                wrong.push(format!(
                    "{name}, external {external}: {found:?}, not {want:?}"
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
