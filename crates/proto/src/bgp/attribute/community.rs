//! Communities of all three kinds (RFC 1997, RFC 4360, RFC 8092).

use std::fmt;

use super::super::Asn;

/// RFC 1997.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

impl Community {
    /// Lower the preference: the sender goes away (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Self = Self(0xffff_0000);
    /// Stale by RFC 9494.
    pub const LLGR_STALE: Self = Self(0xffff_0006);
    /// Not to be kept stale by RFC 9494.
    pub const NO_LLGR: Self = Self(0xffff_0007);
    /// Drop the traffic (RFC 7999).
    pub const BLACKHOLE: Self = Self(0xffff_029a);
    /// Not outside the confederation.
    pub const NO_EXPORT: Self = Self(0xffff_ff01);
    /// To nobody.
    pub const NO_ADVERTISE: Self = Self(0xffff_ff02);

    /// `high:low`.
    pub const fn new(high: u16, low: u16) -> Self {
        Self((high as u32) << 16 | low as u32)
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff)
    }
}

/// RFC 8092.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity {
    /// Whose numbers the others are.
    pub global: u32,
    /// First number.
    pub first: u32,
    /// Second number.
    pub second: u32,
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.global, self.first, self.second)
    }
}

/// RFC 4360: eight bytes whose first two are the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedCommunity(pub [u8; 8]);

const NON_TRANSITIVE: u8 = 0x40;
const LINK_BANDWIDTH: u8 = 0x04;
const ROUTE_TARGET: u8 = 0x02;

/// RFC 10005: how much a path can carry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkBandwidth {
    /// Of the sender, 2 bytes.
    pub asn: u16,
    /// Bytes a second.
    pub bytes_per_second: f32,
    /// Whether it goes on to other systems.
    pub transitive: bool,
}

impl ExtendedCommunity {
    /// A link bandwidth.
    pub fn link_bandwidth(value: LinkBandwidth) -> Self {
        let [a, b] = value.asn.to_be_bytes();
        let [c, d, e, f] = value.bytes_per_second.to_be_bytes();
        let kind = if value.transitive { 0 } else { NON_TRANSITIVE };
        Self([kind, LINK_BANDWIDTH, a, b, c, d, e, f])
    }

    /// If it is one, of either type, with a number that makes sense.
    pub fn as_link_bandwidth(&self) -> Option<LinkBandwidth> {
        let [kind, LINK_BANDWIDTH, a, b, c, d, e, f] = self.0 else {
            return None;
        };
        let bytes_per_second = f32::from_be_bytes([c, d, e, f]);
        let sound = bytes_per_second.is_finite() && bytes_per_second >= 0.0;
        (kind & !NON_TRANSITIVE == 0 && sound).then_some(LinkBandwidth {
            asn: u16::from_be_bytes([a, b]),
            bytes_per_second,
            transitive: kind & NON_TRANSITIVE == 0,
        })
    }

    /// A route target: of 2-octet style where the number fits, else of 4-octet style (RFC 5668),
    /// whose value has 2 bytes.
    pub fn route_target(asn: Asn, value: u32) -> Option<Self> {
        let [v0, v1, v2, v3] = value.to_be_bytes();
        if let Ok(short) = u16::try_from(asn.0) {
            let [a, b] = short.to_be_bytes();
            return Some(Self([0, ROUTE_TARGET, a, b, v0, v1, v2, v3]));
        }
        let [a, b, c, d] = asn.0.to_be_bytes();
        (value <= 0xffff).then_some(Self([2, ROUTE_TARGET, a, b, c, d, v2, v3]))
    }

    /// Whether it goes on to other systems.
    pub fn is_transitive(&self) -> bool {
        let [kind, ..] = self.0;
        kind & NON_TRANSITIVE == 0
    }
}
