//! Prefixes and their form on the wire (RFC 4271 §4.3, RFC 7911 §3).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use thiserror::Error;

use super::{Family, reader::Reader};

/// A prefix without host bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Why a text or a pair is not a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text} is not a prefix")]
pub struct PrefixError {
    text: String,
}

impl Prefix {
    /// Clears the host bits.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, PrefixError> {
        let masked = match address {
            IpAddr::V4(v4) if length <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) if length <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
            _ => {
                return Err(PrefixError {
                    text: format!("{address}/{length}"),
                });
            }
        };
        Ok(Self {
            address: masked,
            length,
        })
    }

    /// The prefix of one address.
    pub fn host(address: IpAddr) -> Self {
        Self {
            address,
            length: Family::of_address(address).bits(),
        }
    }

    /// First address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Bits that count.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Its family.
    pub fn family(&self) -> Family {
        Family::of_address(self.address)
    }

    /// Whether it can be the destination of a unicast route (RFC 4271 §6.3: a prefix that is
    /// semantically wrong is ignored).
    pub fn is_unicast(&self) -> bool {
        match self.address {
            IpAddr::V4(v4) => !(v4.is_multicast() || v4.is_loopback() && self.length >= 8),
            IpAddr::V6(v6) => {
                !(v6.is_multicast()
                    || v6.is_unicast_link_local() && self.length >= 10
                    || v6.is_loopback() && self.length == 128)
            }
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let parts = text
            .split_once('/')
            .and_then(|(address, length)| Some((address.parse().ok()?, length.parse().ok()?)));
        let Some((address, length)) = parts else {
            return Err(PrefixError { text: text.into() });
        };
        Self::new(address, length)
    }
}

/// A prefix and, with add-path, which of its paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nlri {
    /// The destination.
    pub prefix: Prefix,
    /// 0 where add-path is not in use.
    pub path_id: u32,
}

impl From<Prefix> for Nlri {
    fn from(prefix: Prefix) -> Self {
        Self { prefix, path_id: 0 }
    }
}

impl Nlri {
    /// Bytes of the longest in a family.
    pub(super) fn max_len(family: Family, add_path: bool) -> usize {
        1 + usize::from(family.bits()) / 8 + if add_path { 4 } else { 0 }
    }

    pub(super) fn encode(&self, add_path: bool, out: &mut Vec<u8>) {
        if add_path {
            out.extend(self.path_id.to_be_bytes());
        }
        let used = usize::from(self.prefix.length).div_ceil(8);
        out.push(self.prefix.length);
        match self.prefix.address {
            IpAddr::V4(v4) => out.extend(v4.octets().iter().take(used)),
            IpAddr::V6(v6) => out.extend(v6.octets().iter().take(used)),
        }
    }

    /// Reads until the end. The error is the offset of the first one that is wrong.
    pub(super) fn decode_all(
        reader: &mut Reader<'_>,
        family: Family,
        add_path: bool,
    ) -> Result<Vec<Self>, usize> {
        let mut all = Vec::new();
        while !reader.is_empty() {
            let offset = reader.offset();
            all.push(Self::decode(reader, family, add_path).ok_or(offset)?);
        }
        Ok(all)
    }

    fn decode(reader: &mut Reader<'_>, family: Family, add_path: bool) -> Option<Self> {
        let path_id = if add_path { reader.u32()? } else { 0 };
        let length = reader.u8()?;
        if length > family.bits() {
            return None;
        }
        let bytes = reader.take(usize::from(length).div_ceil(8))?;
        let address = match family {
            Family::Ipv4 => IpAddr::from(padded::<4>(bytes)?),
            Family::Ipv6 => IpAddr::from(padded::<16>(bytes)?),
        };
        // Bits beyond the length are irrelevant (RFC 4271 §4.3), so they are cleared.
        let prefix = Prefix::new(address, length).ok()?;
        Some(Self { prefix, path_id })
    }
}

fn padded<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let mut all = [0; N];
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(all)
}
