//! A pool of addresses, and what is known of its use.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::runs::{Runs, next, previous};
use crate::config::{Selector, any_matches};
use crate::name::Name;
use crate::net::Family;
use crate::world::{Labels, Service};

/// An address pool as the allocator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The pool's name.
    pub name: Name,
    /// Its addresses in the order in which they are handed out. Blocks overlap neither each other
    /// nor another pool's.
    pub blocks: Vec<IpNet>,
    /// Services that name neither pool nor address may get one from here.
    pub auto_assign: bool,
    /// IPv4 addresses that end in .0 or .255 are not used.
    pub avoid_buggy_ips: bool,
    /// Which Services may use it; `None`: all, after the pools that are meant for them.
    pub allocation: Option<ServiceAllocation>,
    /// The pool's newest form is bad: nothing new is given from it and nothing is taken away.
    pub frozen: bool,
}

/// `spec.serviceAllocation`: what a pool is meant for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAllocation {
    /// 1 is first, then 2 and so on; 0 (unset) is last.
    pub priority: u32,
    /// Namespaces by name.
    pub namespaces: BTreeSet<Name>,
    /// Namespaces by label, in addition to those by name. MetalLB takes selectors that match no
    /// namespace for no restriction; here they match no namespace.
    pub namespace_selectors: Vec<Selector>,
    /// Services by label; empty: all.
    pub service_selectors: Vec<Selector>,
}

/// Whether a pool may serve a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Yes,
    No,
    /// It depends on the labels of a namespace that is not known yet.
    Unknown,
}

impl Pool {
    pub(super) fn fit(&self, service: &Service, namespace_labels: Option<&Labels>) -> Fit {
        let Some(allocation) = &self.allocation else {
            return Fit::Yes;
        };
        if !allocation.service_selectors.is_empty()
            && !any_matches(&allocation.service_selectors, &service.labels)
        {
            return Fit::No;
        }
        let (names, selectors) = (&allocation.namespaces, &allocation.namespace_selectors);
        if (names.is_empty() && selectors.is_empty()) || names.contains(&service.key.namespace) {
            return Fit::Yes;
        }
        match namespace_labels {
            _ if selectors.is_empty() => Fit::No,
            None => Fit::Unknown,
            Some(labels) if any_matches(selectors, labels) => Fit::Yes,
            Some(_) => Fit::No,
        }
    }

    /// `ip` is one of those that `avoidBuggyIPs` keeps out.
    pub(super) fn avoids(&self, ip: IpAddr) -> bool {
        self.avoid_buggy_ips && buggy(ip)
    }
}

/// An IPv4 address that some firmware takes for a network or broadcast address.
fn buggy(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if matches!(ip.octets()[3], 0 | 255))
}

/// Addresses of a pool, used and left, per family. An enormous range counts as `i64::MAX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// IPv4 addresses in use.
    pub assigned_v4: u64,
    /// IPv6 addresses in use.
    pub assigned_v6: u64,
    /// IPv4 addresses left.
    pub available_v4: u64,
    /// IPv6 addresses left.
    pub available_v6: u64,
}

/// The most that a counter of the pool's status can say.
const MOST: u64 = i64::MAX as u64;

/// How many addresses `block` gives.
fn capacity(block: &IpNet, avoid_buggy_ips: bool) -> u64 {
    let host_bits = u32::from(block.max_prefix_len() - block.prefix_len());
    if host_bits >= 62 {
        return MOST;
    }
    let size = 1u64 << host_bits;
    let lost = match block {
        IpNet::V4(_) if avoid_buggy_ips && host_bits >= 8 => 2u64 << (host_bits - 8),
        IpNet::V4(net) if avoid_buggy_ips => {
            // The set counts a /32 once.
            BTreeSet::from([net.network(), net.broadcast()])
                .into_iter()
                .filter(|ip| buggy(IpAddr::V4(*ip)))
                .count() as u64
        }
        _ => 0,
    };
    size - lost
}

/// Neighbouring blocks in one piece: searching it is searching them in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: IpAddr,
    pub(super) last: IpAddr,
}

/// A pool with its use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PoolUse {
    pub(super) pool: Pool,
    pub(super) spans: Vec<Span>,
    /// Used addresses. In a pool that avoids buggy addresses those next to a used one are in its
    /// run too, so that the address after a run is always one to give.
    taken: Runs,
    used_v4: u64,
    used_v6: u64,
    capacity_v4: u64,
    capacity_v6: u64,
}

impl PoolUse {
    /// An unused pool that gives the addresses of `blocks`.
    pub(super) fn new(pool: Pool, blocks: &[IpNet]) -> Self {
        let mut this = Self {
            pool,
            spans: Vec::new(),
            taken: Runs::default(),
            used_v4: 0,
            used_v6: 0,
            capacity_v4: 0,
            capacity_v6: 0,
        };
        for block in blocks {
            let total = match Family::of(block.addr()) {
                Family::V4 => &mut this.capacity_v4,
                Family::V6 => &mut this.capacity_v6,
            };
            *total = total
                .saturating_add(capacity(block, this.pool.avoid_buggy_ips))
                .min(MOST);
            let (first, last) = (block.network(), block.broadcast());
            match this.spans.last_mut() {
                Some(span) if next(span.last) == Some(first) => span.last = last,
                _ => this.spans.push(Span { first, last }),
            }
        }
        this
    }

    pub(super) fn counters(&self) -> Counters {
        Counters {
            assigned_v4: self.used_v4,
            assigned_v6: self.used_v6,
            available_v4: self.capacity_v4.saturating_sub(self.used_v4),
            available_v6: self.capacity_v6.saturating_sub(self.used_v6),
        }
    }

    /// `ip` got its first user.
    pub(super) fn take(&mut self, ip: IpAddr) {
        *self.used(ip) += 1;
        if self.pool.avoids(ip) {
            return;
        }
        let (mut first, mut last) = (ip, ip);
        while let Some(before) = previous(first).filter(|ip| self.pool.avoids(*ip)) {
            first = before;
        }
        while let Some(after) = next(last).filter(|ip| self.pool.avoids(*ip)) {
            last = after;
        }
        self.taken.insert(first, last);
    }

    /// `ip` lost its last user.
    pub(super) fn give_back(&mut self, ip: IpAddr) {
        let used = self.used(ip);
        *used = used.saturating_sub(1);
        if self.pool.avoids(ip) {
            return;
        }
        let pool = &self.pool;
        // A rest of avoided addresses only (.255 and .0 at most) has no used neighbour any more.
        self.taken.remove(ip, |first, last| {
            !pool.avoids(first) || next(first).is_some_and(|ip| ip <= last && !pool.avoids(ip)) || {
                let third = next(first).and_then(next);
                third.is_some_and(|ip| ip <= last)
            }
        });
    }

    /// The lowest free address from `from` to `last`.
    pub(super) fn first_free(&self, from: IpAddr, last: IpAddr) -> Option<IpAddr> {
        let mut ip = match self.taken.holding(from) {
            Some((_, end)) => next(end)?,
            None => from,
        };
        while self.pool.avoids(ip) {
            ip = next(ip)?;
        }
        (ip <= last).then_some(ip)
    }

    fn used(&mut self, ip: IpAddr) -> &mut u64 {
        match Family::of(ip) {
            Family::V4 => &mut self.used_v4,
            Family::V6 => &mut self.used_v6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cases after MetalLB's TestPoolCount (Apache-2.0).
    #[test]
    fn capacity_follows_the_rules() {
        for (block, avoid, want) in [
            ("1.2.3.0/24", false, 256),
            ("1.2.3.0/24", true, 254),
            ("1.2.0.0/16", true, 65536 - 512),
            ("1.2.3.0/25", true, 127),
            ("1.2.3.128/25", true, 127),
            ("1.2.3.64/26", true, 64),
            ("1.2.3.0/32", true, 0),
            ("1.2.3.255/32", true, 0),
            ("1.2.3.0/31", true, 1),
            ("0.0.0.0/0", true, (1 << 32) - (1 << 25)),
            ("1000::/120", true, 256),
            ("1000::/67", false, 1 << 61),
            ("1000::/66", false, MOST),
            ("::/0", false, MOST),
        ] {
            let block = block.parse().expect("a block");
            assert_eq!(capacity(&block, avoid), want, "{block} {avoid}");
        }
    }

    #[test]
    fn huge_ranges_saturate() {
        let pool = Pool {
            name: "huge".into(),
            blocks: Vec::new(),
            auto_assign: true,
            avoid_buggy_ips: false,
            allocation: None,
            frozen: false,
        };
        let blocks = ["2000::/3", "4000::/64", "6000::/120"].map(|b| b.parse().expect("a block"));
        let counters = PoolUse::new(pool, &blocks).counters();
        assert_eq!(counters.available_v6, MOST);
    }
}
