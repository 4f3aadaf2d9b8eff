//! The cases of RFC 7606, and what must come of each: an UPDATE with one attribute that may be
//! wrong. One table, for the decoder's tests and for those that hold a session (feature `cases`).

/// What becomes of the UPDATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it counts.
    Taken,
    /// The attribute does not count, the rest does.
    Discarded,
    /// Its prefixes are treated as withdrawn.
    Withdrawn,
    /// The session ends, by an UPDATE Message Error of this subcode.
    Reset(u8),
}
use Outcome::{Discarded, Reset, Taken, Withdrawn};

/// One attribute and what it makes of its UPDATE.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it is.
    pub name: &'static str,
    /// Attribute flags.
    pub flags: u8,
    /// Attribute type.
    pub code: u8,
    value: &'static str,
    external: Outcome,
    internal: Outcome,
}

impl Case {
    /// The attribute's value.
    pub fn value(&self) -> Vec<u8> {
        bytes(self.value)
    }

    /// What must come of it, from an external or an internal peer.
    pub const fn outcome(&self, external: bool) -> Outcome {
        if external {
            self.external
        } else {
            self.internal
        }
    }

    /// An UPDATE with it that announces these prefixes.
    pub fn update(&self, external: bool, nlri: &[u8]) -> Vec<u8> {
        let list = list(external, self.flags, self.code, &self.value());
        message(&[], &list, nlri)
    }
}

/// ORIGIN, AS_PATH and NEXT_HOP as they should be: flags, type, value.
pub const ATTRIBUTES: [(u8, u8, &str); 3] = [
    (0x40, 1, "00"),
    (0x40, 2, "02010000fde9"),
    (0x40, 3, "0a000001"),
];

/// Hexadecimal digits as bytes; what is between them does not count.
pub fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .filter_map(|char| char.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    let byte = |pair: &[u8]| pair.iter().fold(0, |byte, digit| byte << 4 | digit);
    digits.chunks(2).map(byte).collect()
}

/// One attribute.
pub fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![flags, code];
    if flags & 0x10 != 0 {
        out.extend((value.len() as u16).to_be_bytes());
    } else {
        out.push(value.len() as u8);
    }
    out.extend(value);
    out
}

/// An UPDATE of these fields.
pub fn message(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
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

/// A good list in which the attribute stands in place of the one of its type, or last.
pub fn list(external: bool, flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
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

const fn both(
    name: &'static str,
    flags: u8,
    code: u8,
    value: &'static str,
    outcome: Outcome,
) -> Case {
    each(name, flags, code, value, outcome, outcome)
}

const fn each(
    name: &'static str,
    flags: u8,
    code: u8,
    value: &'static str,
    external: Outcome,
    internal: Outcome,
) -> Case {
    Case {
        name,
        flags,
        code,
        value,
        external,
        internal,
    }
}

/// All of them, by attribute type.
#[rustfmt::skip]
pub fn cases() -> Vec<Case> {
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
        each("local pref", 0x40, 5, "00000064", Discarded, Taken),
        each("local pref of 3 bytes", 0x40, 5, "000000", Discarded, Withdrawn),
        each("local pref of 5 bytes", 0x40, 5, "0000000064", Discarded, Withdrawn),
        each("local pref of 0 bytes", 0x40, 5, "", Discarded, Withdrawn),
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
        each("originator", 0x80, 9, "0a000002", Discarded, Taken),
        each("originator of 3 bytes", 0x80, 9, "0a0000", Discarded, Withdrawn),
        each("originator of 5 bytes", 0x80, 9, "0a00000200", Discarded, Withdrawn),
        both("originator transitive", 0xc0, 9, "0a000002", Withdrawn),
        // §7.10 CLUSTER_LIST
        each("cluster list", 0x80, 10, "0a0000020a000003", Discarded, Taken),
        each("cluster list of 0 bytes", 0x80, 10, "", Discarded, Withdrawn),
        each("cluster list of 5 bytes", 0x80, 10, "0a00000200", Discarded, Withdrawn),
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
