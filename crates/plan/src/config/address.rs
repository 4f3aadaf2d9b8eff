//! Entries of `spec.addresses`: CIDRs and ranges, and sets of blocks that do not overlap.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

/// Why an entry is not a set of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AddressError {
    /// Neither CIDR nor range.
    #[error("invalid CIDR {0:?}")]
    Cidr(String),
    /// A single address.
    #[error("invalid CIDR {0:?}: a single address needs its prefix length")]
    Bare(String),
    /// One end of a range is not an address.
    #[error("invalid IP range {range:?}: invalid {end} IP {text:?}")]
    RangeEnd {
        /// The entry.
        range: String,
        /// `start` or `end`.
        end: &'static str,
        /// The end as written.
        text: String,
    },
    /// One end is IPv4, the other IPv6.
    #[error("invalid IP range {0:?}: start and end are of different families")]
    MixedRange(String),
    /// The range runs backwards.
    #[error("invalid IP range {range:?}: start IP {start} is after the end IP {end}")]
    Backwards {
        /// The entry.
        range: String,
        /// Its start.
        start: IpAddr,
        /// Its end.
        end: IpAddr,
    },
    /// IPv4 addresses written as IPv6.
    #[error("{0:?} holds IPv4 addresses in IPv6 form")]
    Mapped(String),
}

impl AddressError {
    /// What to write instead.
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::Bare(text) => {
                let length = if text.contains(':') { 128 } else { 32 };
                format!("write {text}/{length}")
            }
            Self::Backwards { start, end, .. } => format!("write {end}-{start}"),
            Self::MixedRange(_) => "write one range for each family".to_owned(),
            Self::Mapped(_) => "write them as IPv4 addresses".to_owned(),
            Self::Cidr(_) | Self::RangeEnd { .. } => {
                "write a CIDR like 192.0.2.0/24 or a range like 192.0.2.10-192.0.2.20".to_owned()
            }
        }
    }
}

/// The blocks of one entry, in order; a range becomes the fewest blocks.
pub(super) fn parse(entry: &str) -> Result<Vec<IpNet>, AddressError> {
    let Some((start, end)) = entry.split_once('-') else {
        if entry.parse::<IpAddr>().is_ok() {
            return Err(AddressError::Bare(entry.to_owned()));
        }
        let block: IpNet = entry
            .parse()
            .map_err(|_| AddressError::Cidr(entry.to_owned()))?;
        return match block {
            IpNet::V6(net) if net.addr().to_ipv4_mapped().is_some() => {
                Err(AddressError::Mapped(entry.to_owned()))
            }
            block => Ok(vec![block.trunc()]),
        };
    };
    let read = |end: &'static str, text: &str| {
        let ip: Result<IpAddr, _> = text.trim().parse();
        ip.map(|ip| ip.to_canonical())
            .map_err(|_| AddressError::RangeEnd {
                range: entry.to_owned(),
                end,
                text: text.trim().to_owned(),
            })
    };
    let (start, end) = (read("start", start)?, read("end", end)?);
    let backwards = || AddressError::Backwards {
        range: entry.to_owned(),
        start,
        end,
    };
    match (start, end) {
        (IpAddr::V4(a), IpAddr::V4(b)) if a <= b => {
            Ok(Ipv4Subnets::new(a, b, 0).map(IpNet::V4).collect())
        }
        (IpAddr::V6(a), IpAddr::V6(b)) if a <= b => {
            Ok(Ipv6Subnets::new(a, b, 0).map(IpNet::V6).collect())
        }
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => Err(backwards()),
        _ => Err(AddressError::MixedRange(entry.to_owned())),
    }
}

/// Blocks that do not overlap, each with an owner.
#[derive(Debug)]
pub(super) struct Blocks<T>(BTreeMap<IpAddr, (IpNet, T)>);

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Blocks<T> {
    /// A block that `block` overlaps.
    pub(super) fn meets(&self, block: &IpNet) -> Option<&(IpNet, T)> {
        let (_, found) = self.0.range(..=block.broadcast()).next_back()?;
        (found.0.broadcast() >= block.network()).then_some(found)
    }

    /// Adds a block that overlaps none.
    pub(super) fn insert(&mut self, block: IpNet, owner: T) {
        self.0.insert(block.network(), (block, owner));
    }

    /// What of `block` belongs to none of these, in order.
    pub(super) fn rest_of(&self, block: IpNet) -> Vec<IpNet> {
        let Some((other, _)) = self.meets(&block) else {
            return vec![block];
        };
        if other.contains(&block) {
            return Vec::new();
        }
        // Two blocks that overlap are one within the other: `block` is the larger one here.
        match block.subnets(block.prefix_len().saturating_add(1)) {
            Ok(halves) => halves.flat_map(|half| self.rest_of(half)).collect(),
            Err(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(text: &str) -> Vec<IpNet> {
        text.split_whitespace()
            .map(|net| net.parse().expect("a block"))
            .collect()
    }

    #[test]
    fn entries() {
        for (entry, want) in [
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.77/24", "192.0.2.0/24"),
            ("192.0.2.7/32", "192.0.2.7/32"),
            ("192.0.2.0-192.0.2.255", "192.0.2.0/24"),
            (
                "192.0.2.1 - 192.0.2.6",
                "192.0.2.1/32 192.0.2.2/31 192.0.2.4/31 192.0.2.6/32",
            ),
            ("192.0.2.9-192.0.2.9", "192.0.2.9/32"),
            (
                "10.0.0.101-10.0.0.150",
                "10.0.0.101/32 10.0.0.102/31 10.0.0.104/29 10.0.0.112/28 \
              10.0.0.128/28 10.0.0.144/30 10.0.0.148/31 10.0.0.150/32",
            ),
            ("0.0.0.0-255.255.255.255", "0.0.0.0/0"),
            ("2001:db8::/64", "2001:db8::/64"),
            ("2001:db8::-2001:db8::2", "2001:db8::/127 2001:db8::2/128"),
            ("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0"),
            ("::ffff:192.0.2.0-::ffff:192.0.2.1", "192.0.2.0/31"),
        ] {
            assert_eq!(parse(entry), Ok(nets(want)), "{entry}");
        }
        for (entry, want) in [
            ("", "invalid CIDR \"\""),
            ("192.0.2.0/33", "invalid CIDR \"192.0.2.0/33\""),
            (" 192.0.2.0/24", "invalid CIDR \" 192.0.2.0/24\""),
            ("192.0.2.1", "a single address needs"),
            ("-", "invalid start IP \"\""),
            ("192.0.2.1-", "invalid end IP \"\""),
            (
                "192.0.2.1-192.0.2.2-192.0.2.3",
                "invalid end IP \"192.0.2.2-192.0.2.3\"",
            ),
            ("192.0.2.1-5", "invalid end IP \"5\""),
            ("192.0.2.9-192.0.2.1", "is after the end IP 192.0.2.1"),
            ("192.0.2.1-2001:db8::1", "different families"),
            ("2001:db8::1-192.0.2.1", "different families"),
            ("::ffff:192.0.2.0/120", "in IPv6 form"),
        ] {
            let error = parse(entry).expect_err(entry).to_string();
            assert!(error.contains(want), "{entry}: {error}");
        }
    }

    #[test]
    fn the_rest_of_a_block() {
        let mut blocks = Blocks::default();
        for taken in nets("192.0.2.64/26 192.0.2.129/32") {
            assert!(blocks.meets(&taken).is_none());
            blocks.insert(taken, ());
        }
        let rest = |text: &str| -> Vec<IpNet> {
            nets(text)
                .into_iter()
                .flat_map(|block| blocks.rest_of(block))
                .collect()
        };
        assert_eq!(rest("192.0.2.0/25"), nets("192.0.2.0/26"));
        assert_eq!(rest("192.0.2.70/32"), []);
        assert_eq!(
            rest("192.0.2.128/30"),
            nets("192.0.2.128/32 192.0.2.130/31")
        );
        assert_eq!(rest("2001:db8::/32"), nets("2001:db8::/32"));
    }
}
