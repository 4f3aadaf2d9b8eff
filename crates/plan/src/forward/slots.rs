//! Slots: how many a number of endpoints takes, and which endpoint stands in each.
//!
//! Up to [`EXACT`] endpoints have one slot each. Above, a table of at least sixteen slots per
//! endpoint (up to [`LARGEST`] slots) is filled as Maglev does (NSDI 2016, §3.4): endpoints take turns, each claiming the next free
//! slot of its own permutation, so shares differ by one slot at most and a change of the
//! endpoints moves few others. All is a function of the sorted endpoints: every node computes the
//! same.

use std::net::{IpAddr, SocketAddr};

use super::element::{Element, SlotsId};

/// So many endpoints have one slot each.
pub const EXACT: u32 = 64;
/// The smallest table above.
pub const SMALLEST: u32 = 2048;
/// The largest table.
pub const LARGEST: u32 = 65_536;
/// Slots per endpoint at least, while the table can grow.
const SPREAD: u32 = 16;

/// Every number of slots that exists: the rule set has a chain for each.
pub fn sizes() -> impl Iterator<Item = u32> {
    let tables = std::iter::successors(Some(SMALLEST), |size| Some(size * 2));
    (1..=EXACT).chain(tables.take_while(|size| *size <= LARGEST))
}

/// How many slots `endpoints` endpoints take.
pub fn size(endpoints: usize) -> u32 {
    match u32::try_from(endpoints) {
        Ok(exact @ ..=EXACT) => exact,
        Ok(many) => many
            .saturating_mul(SPREAD)
            .clamp(SMALLEST, LARGEST)
            .next_power_of_two(),
        Err(_) => LARGEST,
    }
}

/// The slots of `endpoints`, which are sorted and without duplicates.
pub fn fill(id: SlotsId, endpoints: &[SocketAddr]) -> impl Iterator<Item = Element> + '_ {
    let size = size(endpoints.len());
    let turns = (size > EXACT).then(|| maglev(endpoints, size));
    (0..size).filter_map(move |index| {
        let chosen = match &turns {
            None => index,
            Some(turns) => *turns.get(index as usize)?,
        };
        Some(Element::Slot {
            id,
            index,
            endpoint: *endpoints.get(chosen as usize)?,
        })
    })
}

/// Which endpoint stands in each of `size` slots, a power of two.
fn maglev(endpoints: &[SocketAddr], size: u32) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    let mask = size - 1;
    // Each walks from its own start in its own odd step, which visits all of a power of two.
    let mut walks: Vec<(u32, u32)> = endpoints
        .iter()
        .map(|endpoint| {
            let hash = digest(endpoint);
            (hash as u32 & mask, (hash >> 32) as u32 | 1)
        })
        .collect();
    let mut table = vec![FREE; size as usize];
    let mut free = size;
    'turns: loop {
        for (number, (at, step)) in walks.iter_mut().enumerate() {
            if free == 0 {
                break 'turns;
            }
            loop {
                let slot = table.get_mut(*at as usize);
                *at = at.wrapping_add(*step) & mask;
                match slot {
                    Some(slot) if *slot == FREE => {
                        *slot = number as u32;
                        free -= 1;
                        break;
                    }
                    _ => {}
                }
            }
        }
        if walks.is_empty() {
            break;
        }
    }
    table
}

/// A well-mixed number for an endpoint: FNV-1a over address and port, then the finaliser of
/// MurmurHash3, because FNV's upper bits are weak.
fn digest(endpoint: &SocketAddr) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    match endpoint.ip() {
        IpAddr::V4(address) => add(&address.octets()),
        IpAddr::V6(address) => add(&address.octets()),
    }
    add(&endpoint.port().to_be_bytes());
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(count: u16) -> Vec<SocketAddr> {
        (0..count)
            .map(|n| SocketAddr::from(([10, 1, (n >> 8) as u8, n as u8], 8080)))
            .collect()
    }

    fn counts(list: &[SocketAddr]) -> Vec<usize> {
        let mut counts = vec![0; list.len()];
        for element in fill(SlotsId::new(2), list) {
            let Element::Slot { endpoint, .. } = element else {
                panic!("not a slot");
            };
            counts[list.iter().position(|e| *e == endpoint).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn sizes_follow_the_number_of_endpoints() {
        let table = [
            (0, 0),
            (1, 1),
            (64, 64),
            (65, 2048),
            (128, 2048),
            (129, 4096),
            (4096, 65_536),
            (50_000, 65_536),
        ];
        for (endpoints, expected) in table {
            assert_eq!(size(endpoints), expected, "{endpoints} endpoints");
            assert!(expected == 0 || sizes().any(|size| size == expected));
        }
        assert_eq!(sizes().count(), 70);
    }

    #[test]
    fn shares_are_equal() {
        for count in [1u16, 2, 63, 64, 65, 100, 200] {
            let counts = counts(&endpoints(count));
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "{count} endpoints: {least} to {most}");
            assert!(*least > 0);
        }
    }

    #[test]
    fn a_leaving_endpoint_moves_few_others() {
        let all = endpoints(100);
        let mut fewer = all.clone();
        let gone = fewer.remove(50);
        let (before, after): (Vec<_>, Vec<_>) = (
            fill(SlotsId::new(2), &all).collect(),
            fill(SlotsId::new(2), &fewer).collect(),
        );
        assert_eq!(before.len(), after.len());
        let moved = before
            .iter()
            .zip(&after)
            .filter(|(a, b)| a != b)
            .filter(|(a, _)| !matches!(a, Element::Slot { endpoint, .. } if *endpoint == gone))
            .count();
        assert!(
            moved * 100 < before.len() * 10,
            "{moved} of {}",
            before.len()
        );
    }
}
