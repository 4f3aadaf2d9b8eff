//! The Services that lack an address, found by what would help them: a change of one allocation
//! looks only at those that it concerns.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::allocator::{Pending, Wants};
use crate::name::{Name, ServiceKey};

/// The waiting Services, and the index of what each of them wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Waiters {
    pending: BTreeMap<ServiceKey, Pending>,
    by_address: BTreeMap<IpAddr, BTreeSet<ServiceKey>>,
    by_pool: BTreeMap<Name, BTreeSet<ServiceKey>>,
    any: BTreeSet<ServiceKey>,
}

/// What the change of an allocation means for those that wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Addresses that were given up, or are used in another way.
    pub(super) freed: Vec<IpAddr>,
    /// Addresses in use since.
    pub(super) taken: Vec<IpAddr>,
    /// The pools of the freed addresses.
    pub(super) pools: Vec<Name>,
}

impl Waiters {
    pub(super) fn get(&self, service: &ServiceKey) -> Option<&Pending> {
        self.pending.get(service)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ServiceKey, &Pending)> {
        self.pending.iter()
    }

    /// `service` waits for this from now on.
    pub(super) fn insert(&mut self, service: &ServiceKey, pending: Pending) {
        self.remove(service);
        match &pending.wants {
            Wants::Nothing => {}
            Wants::Addresses(ips) => {
                for ip in ips {
                    let waiters = self.by_address.entry(*ip).or_default();
                    waiters.insert(service.clone());
                }
            }
            Wants::Pool(pool) => {
                let waiters = self.by_pool.entry(pool.clone()).or_default();
                waiters.insert(service.clone());
            }
            Wants::Any => {
                self.any.insert(service.clone());
            }
        }
        self.pending.insert(service.clone(), pending);
    }

    /// `service` waits no longer.
    pub(super) fn remove(&mut self, service: &ServiceKey) {
        let Some(pending) = self.pending.remove(service) else {
            return;
        };
        match pending.wants {
            Wants::Nothing => {}
            Wants::Addresses(ips) => {
                for ip in ips {
                    take_out(&mut self.by_address, &ip, service);
                }
            }
            Wants::Pool(pool) => take_out(&mut self.by_pool, &pool, service),
            Wants::Any => {
                self.any.remove(service);
            }
        }
    }

    /// Those whose wish the change meets; one with several wishes may come several times.
    pub(super) fn met_by(&self, change: &Change) -> impl Iterator<Item = &ServiceKey> {
        let Change {
            freed,
            taken,
            pools,
        } = change;
        let addresses = freed.iter().chain(taken);
        let by_address = addresses.filter_map(|ip| self.by_address.get(ip)).flatten();
        let by_pool = pools.iter().filter_map(|pool| self.by_pool.get(pool));
        let any = (!pools.is_empty()).then_some(&self.any);
        by_address
            .chain(by_pool.flatten())
            .chain(any.into_iter().flatten())
    }
}

fn take_out<K: Ord>(index: &mut BTreeMap<K, BTreeSet<ServiceKey>>, key: &K, service: &ServiceKey) {
    if let Some(waiters) = index.get_mut(key) {
        waiters.remove(service);
        if waiters.is_empty() {
            index.remove(key);
        }
    }
}
