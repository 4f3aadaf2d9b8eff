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

/// The holders of one address: nearly always one.
#[derive(Clone, Debug, PartialEq)]
enum Held {
    One(ServiceKey),
    Many(Box<Many>),
}

#[derive(Clone, Debug, PartialEq)]
struct Many {
    keys: BTreeSet<ServiceKey>,
    /// Who was known first of those that are there now; after it left, the first by name.
    first: ServiceKey,
}

impl Held {
    fn first(&self) -> &ServiceKey {
        match self {
            Self::One(key) => key,
            Self::Many(many) => &many.first,
        }
    }

    /// In order.
    fn keys(&self) -> impl Iterator<Item = &ServiceKey> + '_ {
        let (one, many) = match self {
            Self::One(key) => (Some(key), None),
            Self::Many(many) => (None, Some(&many.keys)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    fn add(&mut self, service: &ServiceKey) {
        match self {
            Self::One(key) if key == service => {}
            Self::One(key) => {
                *self = Self::Many(Box::new(Many {
                    keys: [key.clone(), service.clone()].into(),
                    first: key.clone(),
                }));
            }
            Self::Many(many) => {
                many.keys.insert(service.clone());
            }
        }
    }

    /// Without `service`; `None`: nobody is left.
    fn without(self, service: &ServiceKey) -> Option<Self> {
        match self {
            Self::One(key) => (key != *service).then_some(Self::One(key)),
            Self::Many(mut many) => {
                many.keys.remove(service);
                let next = many.keys.first()?.clone();
                if many.keys.len() == 1 {
                    return Some(Self::One(next));
                }
                if many.first == *service {
                    many.first = next;
                }
                Some(Self::Many(many))
            }
        }
    }
}

/// The holders of every address.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Holders(BTreeMap<IpAddr, Held>);

impl Holders {
    /// `service` holds `address`.
    pub(super) fn add(&mut self, address: IpAddr, service: &ServiceKey) {
        let held = self.0.entry(address);
        held.and_modify(|held| held.add(service))
            .or_insert_with(|| Held::One(service.clone()));
    }

    /// `service` does not hold `address` any more.
    pub(super) fn remove(&mut self, address: IpAddr, service: &ServiceKey) {
        let held = self.0.remove(&address);
        if let Some(left) = held.and_then(|held| held.without(service)) {
            self.0.insert(address, left);
        }
    }

    /// Takes no more memory than it needs.
    pub(super) fn pack(&mut self) {
        super::pack(&mut self.0);
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
        Some(self.0.get(&address)?.first())
    }

    /// Whether `address` has more than one holder.
    pub(super) fn several(&self, address: IpAddr) -> bool {
        matches!(self.0.get(&address), Some(Held::Many(_)))
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
        let mut all: Vec<&Service> = held.keys().filter_map(find).collect();
        if all.len() < 2 {
            return all;
        }
        let is_first = |service: &&Service| *held.first() == service.key;
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
