//! Which address to give: proposals, which change nothing.

use std::net::IpAddr;

use super::allocator::{Allocation, Allocator};
use super::error::AllocationError;
use super::pool::{Fit, PoolUse};
use super::request::{self, Want};
use super::runs::next;
use crate::name::Name;
use crate::net::Family;
use crate::world::{Labels, Service};

/// A Service with what else counts for its address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker<'a> {
    pub(super) service: &'a Service,
    /// `None`: not known yet.
    pub(super) namespace_labels: Option<&'a Labels>,
}

impl Allocator {
    /// The pool that holds all of `ips` and gives them.
    fn pool_for(&self, ips: &[IpAddr]) -> Result<&PoolUse, AllocationError> {
        let refused = || AllocationError::NotInPool(ips.to_vec());
        let first = ips.first().ok_or_else(refused)?;
        let used = self.pool_use(*first).ok_or_else(refused)?;
        let gives = |ip: &IpAddr| {
            !used.pool.avoids(*ip) && self.pool_of(*ip).is_some_and(|p| p.name == used.pool.name)
        };
        ips.iter().all(gives).then_some(used).ok_or_else(refused)
    }

    /// Whether the Service may go on using `held`; the allocation says from which pool.
    pub(super) fn keep(
        &self,
        asker: Asker<'_>,
        held: &[IpAddr],
    ) -> Result<Allocation, AllocationError> {
        let used = self.pool_for(held)?;
        if !used.pool.frozen && used.pool.fit(asker.service, asker.namespace_labels) == Fit::No {
            return Err(AllocationError::NotCompatible(used.pool.name.clone()));
        }
        self.checked(asker, used, held.to_vec())
    }

    /// The addresses asked for, which the Service does not have; of `pool`, if that is asked for
    /// too.
    pub(super) fn explicit(
        &self,
        asker: Asker<'_>,
        ips: &[IpAddr],
        pool: Option<Name>,
    ) -> Result<Allocation, AllocationError> {
        let used = self.pool_for(ips)?;
        // Before the users of the address are looked at: they can not mend it.
        if let Some(pool) = pool.filter(|pool| *pool != used.pool.name) {
            return Err(AllocationError::NotInRequestedPool {
                addresses: ips.to_vec(),
                pool,
            });
        }
        self.may_give(asker, used)?;
        self.checked(asker, used, ips.to_vec())
    }

    /// From the pool asked for.
    pub(super) fn in_pool(
        &self,
        asker: Asker<'_>,
        name: &Name,
        want: Want,
    ) -> Result<Allocation, AllocationError> {
        let used = self
            .pool_use_named(name)
            .ok_or_else(|| AllocationError::UnknownPool(name.clone()))?;
        self.may_give(asker, used)?;
        let found = self.lowest(asker, used, want);
        match found
            .choose(want)
            .or_else(|| found.primary(want))
            .or_else(|| found.secondary(want))
        {
            Some(ips) => Ok(request::allocation(asker.service, name.clone(), ips)),
            None => Err(AllocationError::PoolExhausted {
                pool: name.clone(),
                families: want.families(),
            }),
        }
    }

    /// A second address, of the other family than `held`, from the pool of `held`.
    pub(super) fn second(
        &self,
        asker: Asker<'_>,
        held: IpAddr,
    ) -> Result<Allocation, AllocationError> {
        let used = self.pool_for(&[held])?;
        self.may_give(asker, used)?;
        let family = Family::of(held).other();
        let found = self.lowest(asker, used, Want::One(family));
        match found.choose(Want::One(family)) {
            Some(ips) => {
                let ips = [held].into_iter().chain(ips).collect();
                self.checked(asker, used, ips)
            }
            None => Err(AllocationError::PoolExhausted {
                pool: used.pool.name.clone(),
                families: Want::One(family).families(),
            }),
        }
    }

    /// From any pool: those meant for the Service by priority, then those meant for all.
    pub(super) fn anywhere(
        &self,
        asker: Asker<'_>,
        want: Want,
    ) -> Result<Allocation, AllocationError> {
        let open = |used: &&PoolUse| used.pool.auto_assign && !used.pool.frozen;
        let mut pinned: Vec<(u64, &PoolUse)> = self
            .pool_uses()
            .filter(open)
            .filter_map(|used| {
                let allocation = used.pool.allocation.as_ref()?;
                let fits = used.pool.fit(asker.service, asker.namespace_labels) == Fit::Yes;
                let rank = match allocation.priority {
                    0 => u64::MAX,
                    priority => u64::from(priority),
                };
                fits.then_some((rank, used))
            })
            .collect();
        // Stable: pools of one priority stay in the order of their names.
        pinned.sort_by_key(|(rank, _)| *rank);
        let for_all = self
            .pool_uses()
            .filter(open)
            .filter(|used| used.pool.allocation.is_none());
        self.best(asker, pinned.into_iter().map(|(_, used)| used), want)
            .or_else(|| self.best(asker, for_all, want))
            .ok_or(AllocationError::Exhausted)
    }

    /// The first pool that gives all that is wanted; else, where one address will do, the first
    /// with the preferred family; else the first with the other.
    fn best<'a>(
        &'a self,
        asker: Asker<'_>,
        pools: impl Iterator<Item = &'a PoolUse>,
        want: Want,
    ) -> Option<Allocation> {
        let (mut primary, mut secondary) = (None, None);
        for used in pools {
            let found = self.lowest(asker, used, want);
            let with_pool = |ips| (used, ips);
            if let Some(ips) = found.choose(want) {
                return Some(request::allocation(
                    asker.service,
                    used.pool.name.clone(),
                    ips,
                ));
            }
            primary = primary.or_else(|| found.primary(want).map(with_pool));
            secondary = secondary.or_else(|| found.secondary(want).map(with_pool));
        }
        let (used, ips) = primary.or(secondary)?;
        Some(request::allocation(
            asker.service,
            used.pool.name.clone(),
            ips,
        ))
    }

    /// The lowest address of each wanted family.
    fn lowest(&self, asker: Asker<'_>, used: &PoolUse, want: Want) -> Found {
        let find = |family| match want {
            Want::One(wanted) if wanted != family => None,
            _ => self.lowest_of(asker, used, family),
        };
        Found {
            v4: find(Family::V4),
            v6: find(Family::V6),
        }
    }

    /// The first address, in the order of the pool's blocks, that is free or can be shared.
    fn lowest_of(&self, asker: Asker<'_>, used: &PoolUse, family: Family) -> Option<IpAddr> {
        let service = asker.service;
        let own: &[IpAddr] = self.allocation(&service.key).map_or(&[], |own| &own.ips);
        let sharing = request::sharing(service);
        let ports = request::ports(service);
        used.spans
            .iter()
            .filter(|span| Family::of(span.first) == family)
            .find_map(|span| {
                let free = used.first_free(span.first, span.last);
                let shareable = sharing.as_ref().and_then(|key| {
                    self.lowest_shareable(used, key, &ports, span.first, free.unwrap_or(span.last))
                });
                // What the Service has itself is not in its way.
                let kept = own.iter().copied().filter(|ip| {
                    (span.first..=span.last).contains(ip)
                        && !used.pool.avoids(*ip)
                        && self
                            .check_sharing(&service.key, *ip, sharing.as_ref(), &ports)
                            .is_ok()
                });
                free.into_iter().chain(shareable).chain(kept).min()
            })
    }

    fn lowest_shareable(
        &self,
        used: &PoolUse,
        key: &super::SharingKey,
        ports: &[super::Port],
        first: IpAddr,
        last: IpAddr,
    ) -> Option<IpAddr> {
        let mut from = first;
        loop {
            let ip = self.first_shareable(key, ports, from, last)?;
            if !used.pool.avoids(ip) {
                return Some(ip);
            }
            from = next(ip)?;
        }
    }

    fn may_give(&self, asker: Asker<'_>, used: &PoolUse) -> Result<(), AllocationError> {
        if used.pool.fit(asker.service, asker.namespace_labels) != Fit::Yes {
            Err(AllocationError::NotCompatible(used.pool.name.clone()))
        } else if used.pool.frozen {
            Err(AllocationError::Frozen(used.pool.name.clone()))
        } else {
            Ok(())
        }
    }

    fn checked(
        &self,
        asker: Asker<'_>,
        used: &PoolUse,
        ips: Vec<IpAddr>,
    ) -> Result<Allocation, AllocationError> {
        request::check_count(&ips)?;
        let allocation = request::allocation(asker.service, used.pool.name.clone(), ips);
        for ip in &allocation.ips {
            self.check_sharing(
                &asker.service.key,
                *ip,
                allocation.sharing.as_ref(),
                &allocation.ports,
            )?;
        }
        Ok(allocation)
    }
}

/// The lowest address of each family that a pool has to give.
#[derive(Clone, Copy, Debug)]
struct Found {
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
}

impl Found {
    const fn of(self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    /// All that is wanted; both families in the order v4, v6.
    fn choose(self, want: Want) -> Option<Vec<IpAddr>> {
        match want {
            Want::One(family) => Some(vec![self.of(family)?]),
            Want::Both | Want::Prefer(_) => Some(vec![self.v4?, self.v6?]),
        }
    }

    fn primary(self, want: Want) -> Option<Vec<IpAddr>> {
        match want {
            Want::Prefer(family) => Some(vec![self.of(family)?]),
            Want::One(_) | Want::Both => None,
        }
    }

    fn secondary(self, want: Want) -> Option<Vec<IpAddr>> {
        match want {
            Want::Prefer(family) => Some(vec![self.of(family.other())?]),
            Want::One(_) | Want::Both => None,
        }
    }
}
