//! Bounds-checked reads and the Internet checksum, shared by the codecs.

use std::net::Ipv4Addr;

use crate::ethernet::Mac;

/// The `N` bytes at offset `at`, if they are there.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

pub(crate) fn mac(bytes: &[u8], at: usize) -> Option<Mac> {
    array(bytes, at).map(Mac)
}

pub(crate) fn ipv4(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    array::<4>(bytes, at).map(Ipv4Addr::from)
}

/// Internet checksum (RFC 1071) over parts, each padded to whole words, and a number: the value to
/// store where the field is zero; zero where the stored value is right.
pub(crate) fn checksum(parts: &[&[u8]], number: u64) -> u16 {
    let words = parts.iter().flat_map(|part| {
        part.chunks(2).map(|pair| match *pair {
            [high, low] => u64::from(u16::from_be_bytes([high, low])),
            [high] => u64::from(high) << 8,
            _ => 0,
        })
    });
    let mut sum = words.sum::<u64>() + number;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
