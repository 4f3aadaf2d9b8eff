//! Everything recorded about pools, allocations and waiting Services, as one value with indexes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::decide::Decision;
use super::error::{AllocationError, Conflict};
use super::pool::{Counters, Pool, PoolUse};
use super::runs::Runs;
use super::waiters::{Change, Waiters};
use crate::name::{Name, ServiceKey};
use crate::net::Protocol;

/// A port as it counts for sharing.
pub type Port = (Protocol, u16);

/// Two Services may share an address if their keys are equal and their ports differ.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SharingKey {
    /// The annotation `allow-shared-ip`, never empty.
    pub sharing: Name,
    /// The Service's selector under policy Local, where both must lead to the same pods.
    pub backend: Name,
}

/// The addresses that a Service has, and how it uses them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// One address, or one of each family; the first one drives the layer 2 election.
    pub ips: Vec<IpAddr>,
    /// The pool they came from.
    pub pool: Name,
    /// `None`: not shared.
    pub sharing: Option<SharingKey>,
    /// The Service's ports, sorted.
    pub ports: Vec<Port>,
}

/// Whose release would help a Service that lacks an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wants {
    /// Nobody's: only another form of the Service or of the configuration helps.
    Nothing,
    /// These addresses.
    Addresses(Vec<IpAddr>),
    /// Any address of this pool.
    Pool(Name),
    /// Any address.
    Any,
}

/// A Service that lacks an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Why.
    pub error: AllocationError,
    /// What would help.
    pub wants: Wants,
    /// The addresses in its status that were found to be no longer its own: told once.
    pub cleared: Vec<IpAddr>,
}

/// Where one key is in use: the addresses of each port, as runs, so that a search passes a row of
/// addresses with the port taken in one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct KeyUse {
    addresses: BTreeSet<IpAddr>,
    ports: BTreeMap<Port, Runs>,
}

/// The users of an address; nearly always one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Users {
    One(ServiceKey),
    Many(BTreeSet<ServiceKey>),
}

impl Users {
    fn iter(&self) -> Box<dyn Iterator<Item = &ServiceKey> + '_> {
        match self {
            Self::One(service) => Box::new(std::iter::once(service)),
            Self::Many(services) => Box::new(services.iter()),
        }
    }
}

/// The index of pools and recorded allocations. See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocator {
    pools: BTreeMap<Name, PoolUse>,
    /// First address of every block → its last address and its pool.
    blocks: BTreeMap<IpAddr, (IpAddr, Name)>,
    allocations: BTreeMap<ServiceKey, Allocation>,
    users: BTreeMap<IpAddr, Users>,
    keys: BTreeMap<SharingKey, KeyUse>,
    pending: Waiters,
}

impl Allocator {
    /// An allocator without pools.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes no more memory than it needs.
    pub(crate) fn pack(&mut self) {
        crate::world::pack(&mut self.allocations);
        crate::world::pack(&mut self.users);
    }

    /// Replaces the pools. What is recorded stays, also where no pool holds it any more; the
    /// answer names the Services to decide again: users of a pool that changed or went, and all
    /// that lack an address.
    ///
    /// Configuration never gives overlapping blocks; of two that overlap, the second (by pool
    /// name, then order) is left out here.
    pub fn set_pools(&mut self, pools: impl IntoIterator<Item = Pool>) -> Vec<ServiceKey> {
        let old = std::mem::take(&mut self.pools);
        let old_blocks = std::mem::take(&mut self.blocks);
        let pools: BTreeMap<Name, Pool> = pools
            .into_iter()
            .map(|pool| (pool.name.clone(), pool))
            .collect();
        for (name, pool) in pools {
            let blocks: Vec<IpNet> = pool
                .blocks
                .iter()
                .copied()
                .filter(|block| self.add_block(block, &name))
                .collect();
            self.pools.insert(name, PoolUse::new(pool, &blocks));
        }
        let used: Vec<IpAddr> = self.users.keys().copied().collect();
        for ip in used {
            if let Some(pool) = self.pool_use_mut(ip) {
                pool.take(ip);
            }
        }
        let changed = |name: &Name| {
            old.get(name).map(|used| &used.pool) != self.pools.get(name).map(|used| &used.pool)
        };
        let mut again: BTreeSet<ServiceKey> =
            self.pending.iter().map(|(key, _)| key.clone()).collect();
        for (service, allocation) in &self.allocations {
            let moved = allocation.ips.iter().any(|ip| {
                let before = block_of(&old_blocks, *ip);
                before != block_of(&self.blocks, *ip) || before.is_none_or(&changed)
            });
            if moved {
                again.insert(service.clone());
            }
        }
        again.into_iter().collect()
    }

    /// Enters `block` unless it meets one that is there.
    fn add_block(&mut self, block: &IpNet, pool: &Name) -> bool {
        let (first, last) = (block.network(), block.broadcast());
        let meets = self
            .blocks
            .range(..=last)
            .next_back()
            .is_some_and(|(_, (end, _))| *end >= first);
        if !meets {
            self.blocks.insert(first, (last, pool.clone()));
        }
        !meets
    }

    /// Records what `service` has, `None` for nothing, and says which waiting Services are to be
    /// decided again for it. An allocation that breaks the sharing rule is refused and changes nothing: the one
    /// recorded first stays.
    pub fn record(
        &mut self,
        service: &ServiceKey,
        mut allocation: Option<Allocation>,
    ) -> Result<Vec<ServiceKey>, Conflict> {
        if let Some(new) = &mut allocation {
            new.ports.sort_unstable();
            new.ports.dedup();
            for ip in &new.ips {
                self.check_sharing(service, *ip, new.sharing.as_ref(), &new.ports)
                    .map_err(|reason| Conflict {
                        address: *ip,
                        holders: self
                            .users(*ip)
                            .filter(|user| *user != service)
                            .cloned()
                            .collect(),
                        refused: service.clone(),
                        reason: Box::new(reason),
                    })?;
            }
        }
        if self.allocations.get(service) == allocation.as_ref() {
            return Ok(Vec::new());
        }
        let old = self.allocations.remove(service);
        if let Some(old) = &old {
            self.release(service, old);
        }
        if let Some(new) = allocation {
            self.occupy(service, &new);
            self.allocations.insert(service.clone(), new);
        }
        Ok(self.concerned(service, old.as_ref()))
    }

    /// Records a decision: its allocation, and why the Service lacks an address if it does.
    pub fn commit(
        &mut self,
        service: &ServiceKey,
        decision: &Decision,
    ) -> Result<Vec<ServiceKey>, Conflict> {
        let again = self.record(service, decision.allocation.clone())?;
        match &decision.pending {
            Some(pending) => self.pending.insert(service, pending.clone()),
            None => self.pending.remove(service),
        }
        Ok(again)
    }

    /// Forgets a Service that was deleted, and says which waiting Services to decide again.
    pub fn forget(&mut self, service: &ServiceKey) -> Vec<ServiceKey> {
        self.pending.remove(service);
        // Recording nothing conflicts with nothing.
        self.record(service, None).unwrap_or_default()
    }

    /// What `service` has.
    pub fn allocation(&self, service: &ServiceKey) -> Option<&Allocation> {
        self.allocations.get(service)
    }

    /// All recorded allocations.
    pub fn allocations(&self) -> impl Iterator<Item = (&ServiceKey, &Allocation)> {
        self.allocations.iter()
    }

    /// Why `service` lacks an address.
    pub fn pending(&self, service: &ServiceKey) -> Option<&Pending> {
        self.pending.get(service)
    }

    /// The Services that lack an address.
    pub fn waiting(&self) -> impl Iterator<Item = (&ServiceKey, &Pending)> {
        self.pending.iter()
    }

    /// The pool called `name`.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.get(name).map(|used| &used.pool)
    }

    /// All pools, by name.
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.pools.values().map(|used| &used.pool)
    }

    /// The pool whose blocks hold `ip`.
    pub fn pool_of(&self, ip: IpAddr) -> Option<&Pool> {
        self.pool_use(ip).map(|used| &used.pool)
    }

    /// The Services that use `ip`.
    pub fn users(&self, ip: IpAddr) -> impl Iterator<Item = &ServiceKey> {
        self.users.get(&ip).into_iter().flat_map(Users::iter)
    }

    /// The Services that use an address of the pool called `name`, each once per address.
    pub fn users_of_pool(&self, name: &str) -> impl Iterator<Item = &ServiceKey> {
        let spans = self.pools.get(name).map_or(&[][..], |used| &used.spans);
        spans
            .iter()
            .flat_map(|span| self.users.range(span.first..=span.last))
            .flat_map(|(_, users)| users.iter())
    }

    /// The Services that share addresses of the pool called `name` under `key`.
    pub fn sharers(&self, name: &str, key: &SharingKey) -> BTreeSet<&ServiceKey> {
        let addresses = self
            .keys
            .get(key)
            .into_iter()
            .flat_map(|used| &used.addresses);
        addresses
            .filter(|ip| self.pool_of(**ip).is_some_and(|pool| *pool.name == *name))
            .flat_map(|ip| self.users(*ip))
            .collect()
    }

    /// Addresses of the pool called `name`, used and left.
    pub fn counters(&self, name: &str) -> Option<Counters> {
        self.pools.get(name).map(PoolUse::counters)
    }

    pub(super) fn pool_uses(&self) -> impl Iterator<Item = &PoolUse> {
        self.pools.values()
    }

    pub(super) fn pool_use(&self, ip: IpAddr) -> Option<&PoolUse> {
        self.pools.get(block_of(&self.blocks, ip)?)
    }

    fn pool_use_mut(&mut self, ip: IpAddr) -> Option<&mut PoolUse> {
        self.pools.get_mut(block_of(&self.blocks, ip)?)
    }

    pub(super) fn pool_use_named(&self, name: &str) -> Option<&PoolUse> {
        self.pools.get(name)
    }

    /// The sharing rule: may `service` use `ip` with this key and these ports?
    pub(super) fn check_sharing(
        &self,
        service: &ServiceKey,
        ip: IpAddr,
        sharing: Option<&SharingKey>,
        ports: &[Port],
    ) -> Result<(), AllocationError> {
        let Some(other) = self.users(ip).find(|user| *user != service) else {
            return Ok(());
        };
        // All users of an address have one key.
        let existing = self.allocations.get(other).and_then(|a| a.sharing.as_ref());
        let (Some(sharing), true) = (sharing, existing == sharing) else {
            return Err(AllocationError::InUse {
                service: service.clone(),
                address: ip,
                others: self
                    .users(ip)
                    .filter(|user| *user != service)
                    .cloned()
                    .collect(),
            });
        };
        let own: &[Port] = match self.allocations.get(service) {
            Some(own) if own.ips.contains(&ip) => &own.ports,
            _ => &[],
        };
        let used = self.keys.get(sharing);
        for port in ports {
            let taken = used
                .and_then(|used| used.ports.get(port))
                .is_some_and(|runs| runs.contains(ip));
            if taken && own.binary_search(port).is_err() {
                return Err(AllocationError::PortInUse {
                    protocol: port.0,
                    port: port.1,
                    address: ip,
                });
            }
        }
        Ok(())
    }

    /// The lowest address from `first` to `last` that has users under `key`, none of them on one
    /// of `ports`.
    pub(super) fn first_shareable(
        &self,
        key: &SharingKey,
        ports: &[Port],
        first: IpAddr,
        last: IpAddr,
    ) -> Option<IpAddr> {
        let used = self.keys.get(key)?;
        let taken: Vec<&Runs> = ports
            .iter()
            .filter_map(|port| used.ports.get(port))
            .collect();
        let mut from = first;
        loop {
            if from > last {
                return None;
            }
            let ip = *used.addresses.range(from..=last).next()?;
            match taken.iter().find_map(|runs| runs.holding(ip)) {
                Some((_, end)) => from = super::runs::next(end)?,
                None => return Some(ip),
            }
        }
    }

    fn occupy(&mut self, service: &ServiceKey, allocation: &Allocation) {
        for ip in &allocation.ips {
            match self.users.get_mut(ip) {
                None => {
                    self.users.insert(*ip, Users::One(service.clone()));
                    if let Some(pool) = self.pool_use_mut(*ip) {
                        pool.take(*ip);
                    }
                }
                Some(Users::Many(services)) => {
                    services.insert(service.clone());
                }
                Some(users @ Users::One(_)) => {
                    let mut services: BTreeSet<_> = users.iter().cloned().collect();
                    services.insert(service.clone());
                    if services.len() > 1 {
                        *users = Users::Many(services);
                    }
                }
            }
            if let Some(key) = &allocation.sharing {
                let used = self.keys.entry(key.clone()).or_default();
                used.addresses.insert(*ip);
                for port in &allocation.ports {
                    used.ports.entry(*port).or_default().insert(*ip, *ip);
                }
            }
        }
    }

    fn release(&mut self, service: &ServiceKey, allocation: &Allocation) {
        for ip in &allocation.ips {
            let last_user = match self.users.get_mut(ip) {
                Some(Users::Many(services)) => {
                    services.remove(service);
                    if services.len() == 1
                        && let Some(user) = services.pop_first()
                    {
                        self.users.insert(*ip, Users::One(user));
                    }
                    false
                }
                Some(Users::One(user)) if user != service => false,
                Some(Users::One(_)) => {
                    self.users.remove(ip);
                    if let Some(pool) = self.pool_use_mut(*ip) {
                        pool.give_back(*ip);
                    }
                    true
                }
                None => true,
            };
            let Some(key) = &allocation.sharing else {
                continue;
            };
            let Some(used) = self.keys.get_mut(key) else {
                continue;
            };
            if last_user {
                used.addresses.remove(ip);
            }
            for port in &allocation.ports {
                if let Some(runs) = used.ports.get_mut(port) {
                    runs.remove(*ip, |_, _| true);
                    if runs.is_empty() {
                        used.ports.remove(port);
                    }
                }
            }
            if used.addresses.is_empty() {
                self.keys.remove(key);
            }
        }
    }

    /// Which waiting Services the change of `service` from `old` concerns: an address was given up
    /// or is used in another way (under another key, on other ports), or one that they ask for has
    /// other users. Taking a free address helps nobody: whoever could share it could have had it.
    fn concerned(&self, service: &ServiceKey, old: Option<&Allocation>) -> Vec<ServiceKey> {
        let change = self.change(old, self.allocations.get(service));
        let met: BTreeSet<&ServiceKey> = self
            .pending
            .met_by(&change)
            .filter(|waiter| *waiter != service)
            .collect();
        met.into_iter().cloned().collect()
    }

    fn change(&self, old: Option<&Allocation>, new: Option<&Allocation>) -> Change {
        let ips = |a: Option<&Allocation>| a.map_or_else(Vec::new, |a| a.ips.clone());
        let freed = ips(old);
        let pools = freed.iter().filter_map(|ip| self.pool_of(*ip));
        Change {
            pools: pools.map(|pool| pool.name.clone()).collect(),
            taken: ips(new),
            freed,
        }
    }
}

/// The pool of the block that holds `ip`.
fn block_of(blocks: &BTreeMap<IpAddr, (IpAddr, Name)>, ip: IpAddr) -> Option<&Name> {
    let (_, (last, pool)) = blocks.range(..=ip).next_back()?;
    (*last >= ip).then_some(pool)
}
