//! Path attributes (RFC 4271 §5; RFC 1997, 4360, 4456, 4760, 6793, 8092, 8950, 9234).

mod as_path;
mod community;
mod decode;
mod encode;
mod flaw;
mod mp;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use as_path::AsPath;
pub use community::{Community, ExtendedCommunity, LargeCommunity, LinkBandwidth};
pub use flaw::{AttributeFault, Disposition, Flaw};

use super::{Asn, Codec, Family, Role};
pub(super) use decode::{Decoded, decode};
pub(super) use encode::encode;
pub(super) use mp::encode_next_hop;

/// Attribute types.
pub(super) mod number {
    pub(crate) const ORIGIN: u8 = 1;
    pub(crate) const AS_PATH: u8 = 2;
    pub(crate) const NEXT_HOP: u8 = 3;
    pub(crate) const MED: u8 = 4;
    pub(crate) const LOCAL_PREF: u8 = 5;
    pub(crate) const ATOMIC_AGGREGATE: u8 = 6;
    pub(crate) const AGGREGATOR: u8 = 7;
    pub(crate) const COMMUNITIES: u8 = 8;
    pub(crate) const ORIGINATOR_ID: u8 = 9;
    pub(crate) const CLUSTER_LIST: u8 = 10;
    pub(crate) const MP_REACH: u8 = 14;
    pub(crate) const MP_UNREACH: u8 = 15;
    pub(crate) const EXTENDED_COMMUNITIES: u8 = 16;
    pub(crate) const AS4_PATH: u8 = 17;
    pub(crate) const AS4_AGGREGATOR: u8 = 18;
    pub(crate) const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
    pub(crate) const AIGP: u8 = 26;
    pub(crate) const LARGE_COMMUNITIES: u8 = 32;
    pub(crate) const ONLY_TO_CUSTOMER: u8 = 35;
}

pub(super) const OPTIONAL: u8 = 0x80;
pub(super) const TRANSITIVE: u8 = 0x40;
pub(super) const PARTIAL: u8 = 0x20;
pub(super) const EXTENDED_LENGTH: u8 = 0x10;

/// LOCAL_PREF toward internal peers when nothing else is said.
pub const DEFAULT_LOCAL_PREF: u32 = 100;

/// Where a route comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The system itself.
    #[default]
    Igp = 0,
    /// RFC 904.
    Egp = 1,
    /// Anything else.
    Incomplete = 2,
}

/// Who aggregated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Aggregator {
    /// Its system.
    pub asn: Asn,
    /// Its identifier.
    pub address: Ipv4Addr,
}

/// An optional transitive attribute that we do not know, to be passed on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Opaque {
    /// As they are sent; those read have the Partial bit (RFC 4271 §5).
    pub flags: u8,
    /// Attribute type.
    pub code: u8,
    /// Its value.
    pub value: Vec<u8>,
}

/// What a route says beside prefix and next hop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH.
    pub as_path: AsPath,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AGGREGATOR.
    pub aggregator: Option<Aggregator>,
    /// COMMUNITIES.
    pub communities: Vec<Community>,
    /// ORIGINATOR_ID, of a route reflector.
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST, of route reflectors.
    pub cluster_list: Vec<Ipv4Addr>,
    /// EXTENDED COMMUNITIES.
    pub extended_communities: Vec<ExtendedCommunity>,
    /// LARGE_COMMUNITY.
    pub large_communities: Vec<LargeCommunity>,
    /// ONLY_TO_CUSTOMER.
    pub only_to_customer: Option<Asn>,
    /// The rest, by type.
    pub opaque: Vec<Opaque>,
}

impl Attributes {
    /// As a route of our own goes to this peer: our AS in front and no LOCAL_PREF outside,
    /// LOCAL_PREF inside (RFC 4271 §5.1.2, §5.1.5); ONLY_TO_CUSTOMER where our role demands it
    /// (RFC 9234 §5).
    pub fn toward(&self, local_as: Asn, role: Option<Role>, codec: &Codec) -> Self {
        let mut out = self.clone();
        if codec.external {
            out.as_path.prepend(local_as);
            out.local_pref = None;
            out.originator_id = None;
            out.cluster_list.clear();
            if role.is_some_and(Role::marks) {
                out.only_to_customer.get_or_insert(local_as);
            }
        } else {
            out.local_pref.get_or_insert(DEFAULT_LOCAL_PREF);
        }
        out
    }
}

/// Where traffic goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    /// IPv4.
    V4(Ipv4Addr),
    /// IPv6: global, or link-local alone.
    V6(Ipv6Addr),
    /// IPv6 with both addresses (RFC 2545 §3).
    V6Both {
        /// The global one.
        global: Ipv6Addr,
        /// The link-local one.
        link_local: Ipv6Addr,
    },
}

impl NextHop {
    /// The first address.
    pub fn address(&self) -> IpAddr {
        match *self {
            Self::V4(address) => address.into(),
            Self::V6(global) | Self::V6Both { global, .. } => global.into(),
        }
    }

    /// Whether a host can have it (RFC 4271 §6.3).
    pub(super) fn is_host(&self) -> bool {
        match self.address() {
            IpAddr::V4(v4) => {
                !(v4.is_unspecified() || v4.is_loopback() || v4.is_multicast() || v4.is_broadcast())
            }
            IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_loopback() || v6.is_multicast()),
        }
    }

    /// Whether it goes into MP_REACH_NLRI for this family.
    pub(super) fn needs_mp(&self, family: Family) -> bool {
        !matches!((family, self), (Family::Ipv4, Self::V4(_)))
    }
}
