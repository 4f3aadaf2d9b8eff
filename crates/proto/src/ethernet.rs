//! Ethernet II headers and MAC addresses.

use std::fmt;

use thiserror::Error;

use crate::bytes;

/// Length of an untagged Ethernet II header.
pub const HEADER_LEN: usize = 14;
/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherTypes of VLAN tags: IEEE 802.1Q, 802.1ad.
const VLAN: [u16; 2] = [0x8100, 0x88a8];

/// An Ethernet (EUI-48) address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// `00:00:00:00:00:00`, "not known" in ARP.
    pub const ZERO: Self = Self([0; 6]);

    /// A single station's address: neither a group (broadcast too) nor all zero.
    pub fn is_unicast(self) -> bool {
        self != Self::ZERO && self.0[0] & 1 == 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a frame's header is not usable.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// The frame ends inside the header.
    #[error("Ethernet frame of {length} bytes ends inside its header")]
    Truncated {
        /// Bytes that are there.
        length: usize,
    },
    /// The frame carries a VLAN tag: it belongs to another segment than the bare interface.
    #[error("Ethernet frame carries a VLAN tag of type {tag:#06x} at offset 12")]
    Vlan {
        /// EtherType of the tag.
        tag: u16,
    },
}

/// The header of an untagged frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Destination address.
    pub destination: Mac,
    /// Source address.
    pub source: Mac,
    /// EtherType of the body.
    pub ethertype: u16,
}

impl Header {
    /// Splits a frame into its header and its body (padding included).
    pub fn parse(frame: &[u8]) -> Result<(Self, &[u8]), Error> {
        let short = || Error::Truncated {
            length: frame.len(),
        };
        let destination = bytes::mac(frame, 0).ok_or_else(short)?;
        let source = bytes::mac(frame, 6).ok_or_else(short)?;
        let ethertype = bytes::be16(frame, 12).ok_or_else(short)?;
        if VLAN.contains(&ethertype) {
            return Err(Error::Vlan { tag: ethertype });
        }
        let body = frame.get(HEADER_LEN..).ok_or_else(short)?;
        Ok((
            Self {
                destination,
                source,
                ethertype,
            },
            body,
        ))
    }

    /// The header's bytes.
    pub fn build(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..6].copy_from_slice(&self.destination.0);
        out[6..12].copy_from_slice(&self.source.0);
        out[12..].copy_from_slice(&self.ethertype.to_be_bytes());
        out
    }
}
