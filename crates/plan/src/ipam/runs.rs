//! Sets of addresses kept as runs of neighbours: memory is proportional to the number of runs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address after `ip` in its family.
pub(super) fn next(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => u32::from(ip)
            .checked_add(1)
            .map(|n| IpAddr::V4(Ipv4Addr::from(n))),
        IpAddr::V6(ip) => u128::from(ip)
            .checked_add(1)
            .map(|n| IpAddr::V6(Ipv6Addr::from(n))),
    }
}

/// The address before `ip` in its family.
pub(super) fn previous(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => u32::from(ip)
            .checked_sub(1)
            .map(|n| IpAddr::V4(Ipv4Addr::from(n))),
        IpAddr::V6(ip) => u128::from(ip)
            .checked_sub(1)
            .map(|n| IpAddr::V6(Ipv6Addr::from(n))),
    }
}

/// A set of addresses as maximal runs, first → last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs(BTreeMap<IpAddr, IpAddr>);

impl Runs {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The run that holds `ip`.
    pub(super) fn holding(&self, ip: IpAddr) -> Option<(IpAddr, IpAddr)> {
        let (first, last) = self.0.range(..=ip).next_back()?;
        (*last >= ip).then_some((*first, *last))
    }

    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        self.holding(ip).is_some()
    }

    /// Adds `first..=last`, merging it with every run that it meets.
    pub(super) fn insert(&mut self, first: IpAddr, last: IpAddr) {
        let (mut first, mut last) = (first, last);
        if let Some((start, end)) = self.holding(previous(first).unwrap_or(first)) {
            first = first.min(start);
            last = last.max(end);
            self.0.remove(&start);
        }
        let reach = |last: IpAddr| next(last).unwrap_or(last);
        while let Some((start, end)) = self
            .0
            .range(first..=reach(last))
            .next()
            .map(|(start, end)| (*start, *end))
        {
            self.0.remove(&start);
            last = last.max(end);
        }
        self.0.insert(first, last);
    }

    /// Takes `ip` out of its run; what is left on either side stays if `keep` says so.
    pub(super) fn remove(&mut self, ip: IpAddr, keep: impl Fn(IpAddr, IpAddr) -> bool) {
        let Some((first, last)) = self.holding(ip) else {
            return;
        };
        self.0.remove(&first);
        if let Some(end) = previous(ip).filter(|end| *end >= first)
            && keep(first, end)
        {
            self.0.insert(first, end);
        }
        if let Some(start) = next(ip).filter(|start| *start <= last)
            && keep(start, last)
        {
            self.0.insert(start, last);
        }
    }
}
