//! Who holds an address, by the statuses of the Services, and which of them counts.
//!
//! An allocator gives an address to several Services only where the sharing rule allows it. For a
//! moment a status may say otherwise: the write of a leader that was deposed while it was on its
//! way lands after its successor gave the address to another Service (design.md §4.9). Until the
//! new leader has cleared that, whoever was known first keeps the address: what is announced and
//! forwarded does not change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::Service;
use crate::ipam;
use crate::name::ServiceKey;

/// The holders of one address.
#[derive(Clone, Debug, Default, PartialEq)]
struct Held {
    keys: BTreeSet<ServiceKey>,
    /// Who was known first of those that are there now; after it left, the first by name.
    first: Option<ServiceKey>,
}

/// The holders of every address.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Holders(BTreeMap<IpAddr, Held>);

impl Holders {
    /// `service` holds `address`.
    pub(super) fn add(&mut self, address: IpAddr, service: &ServiceKey) {
        let held = self.0.entry(address).or_default();
        held.first.get_or_insert_with(|| service.clone());
        held.keys.insert(service.clone());
    }

    /// `service` does not hold `address` any more.
    pub(super) fn remove(&mut self, address: IpAddr, service: &ServiceKey) {
        let Some(held) = self.0.get_mut(&address) else {
            return;
        };
        held.keys.remove(service);
        if held.first.as_ref() == Some(service) {
            held.first = held.keys.first().cloned();
        }
        if held.keys.is_empty() {
            self.0.remove(&address);
        }
    }

    /// Every address that is held.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.0.keys().copied()
    }

    /// Those of `prefix` that are held, in order: the Services behind an aggregate.
    pub(super) fn within(&self, prefix: IpNet) -> impl Iterator<Item = IpAddr> + '_ {
        let all = prefix.network()..=prefix.broadcast();
        self.0.range(all).map(|(address, _)| *address)
    }

    /// Who was known first with `address`.
    #[cfg(test)]
    pub(super) fn first(&self, address: IpAddr) -> Option<&ServiceKey> {
        self.0.get(&address)?.first.as_ref()
    }

    /// Whether `address` has more than one holder.
    pub(super) fn several(&self, address: IpAddr) -> bool {
        self.0.get(&address).is_some_and(|held| held.keys.len() > 1)
    }

    /// Those holders of `address` that may have it together, in the order of their names: the first
    /// that was known, and who shares with it. `find` gives the Services that count at all.
    pub(super) fn of<'w>(
        &'w self,
        address: IpAddr,
        find: impl Fn(&'w ServiceKey) -> Option<&'w Service>,
    ) -> Vec<&'w Service> {
        let Some(held) = self.0.get(&address) else {
            return Vec::new();
        };
        let mut all: Vec<&Service> = held.keys.iter().filter_map(find).collect();
        if all.len() < 2 {
            return all;
        }
        let is_first = |service: &&Service| held.first.as_ref() == Some(&service.key);
        let first = all.iter().position(is_first).unwrap_or(0);
        let first = all.remove(first);
        let mut taken: BTreeSet<_> = ipam::service_ports(first).into_iter().collect();
        let key = ipam::sharing_key(first);
        all.retain(|service| {
            let ports = ipam::service_ports(service);
            let shares = key.is_some()
                && ipam::sharing_key(service) == key
                && ports.iter().all(|port| !taken.contains(port));
            if shares {
                taken.extend(ports);
            }
            shares
        });
        let place = all.partition_point(|service| service.key < first.key);
        all.insert(place, first);
        all
    }
}
