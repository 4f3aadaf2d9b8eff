//! All service ports of a node and the elements that they amount to together.
//!
//! [`Table::set`] changes one port and says which elements go and come. Ports meet in two ways: a
//! shared element (an endpoint's address) stays while some port needs it; and a front or an id
//! belongs to one port only. Of several that claim it the same one wins in whatever order they
//! came, so a table changed step by step equals one built anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::compile::{compile_with, slots_id};
use super::element::{Element, Elements, Front, SlotsId};
use super::{FrontendKind, PortKey, ServicePort, ipvs};
use crate::world::Policy;

/// What only one service port can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Claim {
    /// An address and port.
    Front(Front),
    /// A name of slots: two that collide is one chance in 10^19 per pair.
    Slots(SlotsId),
}

/// A claim that lost: that part of the service port is not forwarded, the rest is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was claimed.
    pub claim: Claim,
    /// Who has it.
    pub holder: PortKey,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.claim {
            Claim::Front(front) => write!(
                f,
                "{front} is taken by {}; give one of the two another address or port",
                self.holder
            ),
            Claim::Slots(id) => {
                write!(f, "digest {id} is that of {} too; rename one", self.holder)
            }
        }
    }
}

/// How the elements of one service port change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Whose.
    pub key: Arc<PortKey>,
    /// Elements that go, in order.
    pub removed: Vec<Element>,
    /// Elements that come, in order.
    pub added: Vec<Element>,
}

/// Who claims something, the winner first: addresses that an allocator gave beat `externalIPs`,
/// which anybody can write, and those come before addresses that were given twice
/// ([`ServicePort::second`]); then the smaller key wins.
type Claimants = Vec<(Rank, Arc<PortKey>)>;
type Rank = u8;

/// The service ports of a node.
#[derive(Clone, Debug)]
pub struct Table {
    ports: BTreeMap<Arc<PortKey>, ServicePort>,
    claims: BTreeMap<Claim, Claimants>,
    /// Claims with more than one claimant.
    contested: BTreeSet<Claim>,
    /// How many ports need a shared element: (is it `ClusterIp`, its address).
    shared: BTreeMap<(bool, IpAddr), u32>,
    id: fn(&PortKey, Policy) -> SlotsId,
    /// IPVS balances, not the rule set.
    with_ipvs: bool,
}

impl Default for Table {
    fn default() -> Self {
        Self::with_ids(slots_id)
    }
}

impl Table {
    /// A table whose ids come from `id`.
    pub(super) fn with_ids(id: fn(&PortKey, Policy) -> SlotsId) -> Self {
        Self {
            ports: BTreeMap::new(),
            claims: BTreeMap::new(),
            contested: BTreeSet::new(),
            shared: BTreeMap::new(),
            id,
            with_ipvs: false,
        }
    }

    /// A table of what the rule set needs where IPVS balances.
    pub fn for_ipvs() -> Self {
        Self {
            with_ipvs: true,
            ..Self::default()
        }
    }

    /// The service port `key`.
    pub fn get(&self, key: &PortKey) -> Option<&ServicePort> {
        self.ports.get(key)
    }

    /// How many service ports there are.
    pub fn len(&self) -> usize {
        self.ports.len()
    }

    /// No service port.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<PortKey>> {
        self.ports.keys()
    }

    /// The elements of one service port that are in force, shared ones among them.
    pub fn elements(&self, key: &PortKey) -> Elements {
        let Some(port) = self.ports.get(key) else {
            return Elements::default();
        };
        let mut elements = compile_with(self.id, key, port);
        if self.with_ipvs {
            elements = ipvs::elements(port, &elements);
        }
        elements.retain(|element| match *element {
            Element::Front { front, id, .. } | Element::Host { front, id, .. } => {
                self.holds(key, Claim::Front(front)) && self.holds(key, Claim::Slots(id))
            }
            Element::Slot { id, .. } | Element::Member { id, .. } | Element::Range { id, .. } => {
                self.holds(key, Claim::Slots(id))
            }
            Element::Hairpin(_) | Element::ClusterIp(_) => true,
        });
        elements
    }

    /// Sets or removes one service port; says what changes, for it and for those that it takes a
    /// claim from or leaves one to.
    pub fn set(&mut self, key: &PortKey, port: Option<ServicePort>) -> Vec<Delta> {
        if self.ports.get(key) == port.as_ref() {
            return Vec::new();
        }
        let key = match self.ports.get_key_value(key) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::new(key.clone()),
        };
        let old_claims = self.claims_of(&key, self.ports.get(&key));
        let new_claims = self.claims_of(&key, port.as_ref());
        let affected = self.affected(&key, old_claims.keys().chain(new_claims.keys()));
        let before: Vec<_> = affected.iter().map(|key| self.elements(key)).collect();

        for claim in old_claims.keys().filter(|c| !new_claims.contains_key(c)) {
            self.withdraw(&key, *claim);
        }
        for (claim, rank) in &new_claims {
            self.enter(&key, *claim, *rank);
        }
        match port {
            Some(port) => {
                self.ports.insert(key, port);
            }
            None => {
                self.ports.remove(&key);
            }
        }

        let mut deltas = Vec::new();
        for (key, before) in affected.into_iter().zip(before) {
            let (mut removed, mut added) = before.diff(&self.elements(&key));
            added.retain(|element| self.need(element));
            removed.retain(|element| self.no_longer_need(element));
            if !removed.is_empty() || !added.is_empty() {
                deltas.push(Delta {
                    key,
                    removed,
                    added,
                });
            }
        }
        // What lost a front leaves before the winner enters.
        deltas.sort_by_key(|delta| !delta.added.is_empty());
        deltas
    }

    /// Every claim that lost, and to whom.
    pub fn refused(&self) -> impl Iterator<Item = (&PortKey, Refusal)> {
        self.contested.iter().flat_map(|claim| {
            let claimants = self.claims.get(claim).map_or(&[][..], Vec::as_slice);
            let (holder, losers) = match claimants.split_first() {
                Some(((_, holder), losers)) => (Some(holder), losers),
                None => (None, claimants),
            };
            losers.iter().filter_map(move |(_, loser)| {
                let refusal = Refusal {
                    claim: *claim,
                    holder: PortKey::clone(holder?),
                };
                Some((&**loser, refusal))
            })
        })
    }

    fn claims_of(&self, key: &PortKey, port: Option<&ServicePort>) -> BTreeMap<Claim, Rank> {
        let mut claims = BTreeMap::new();
        let Some(port) = port else {
            return claims;
        };
        for policy in [Policy::Cluster, Policy::Local] {
            claims.insert(Claim::Slots((self.id)(key, policy)), 0);
        }
        for frontend in &port.frontends {
            let rank = match frontend.kind {
                FrontendKind::ClusterIp | FrontendKind::NodePort => 0,
                FrontendKind::LoadBalancer if port.second.contains(&frontend.address) => 3,
                FrontendKind::LoadBalancer => 1,
                FrontendKind::ExternalIp => 2,
            };
            let front = Front {
                address: frontend.address,
                protocol: key.protocol,
                port: frontend.port,
            };
            let best = claims.entry(Claim::Front(front)).or_insert(rank);
            *best = rank.min(*best);
        }
        claims
    }

    /// `key` and all that share one of `claims` with it.
    fn affected<'a>(
        &self,
        key: &Arc<PortKey>,
        claims: impl Iterator<Item = &'a Claim>,
    ) -> Vec<Arc<PortKey>> {
        let mut affected = vec![Arc::clone(key)];
        for (_, other) in claims.filter_map(|claim| self.claims.get(claim)).flatten() {
            if !affected.contains(other) {
                affected.push(Arc::clone(other));
            }
        }
        affected
    }

    fn holds(&self, key: &PortKey, claim: Claim) -> bool {
        let holder = self
            .claims
            .get(&claim)
            .and_then(|claimants| claimants.first());
        holder.is_some_and(|(_, holder)| **holder == *key)
    }

    fn enter(&mut self, key: &Arc<PortKey>, claim: Claim, rank: Rank) {
        let claimants = self
            .claims
            .entry(claim)
            .or_insert_with(|| Vec::with_capacity(1));
        claimants.retain(|(_, other)| other != key);
        let entry = (rank, Arc::clone(key));
        let place = claimants.partition_point(|other| *other < entry);
        claimants.insert(place, entry);
        if claimants.len() > 1 {
            self.contested.insert(claim);
        }
    }

    fn withdraw(&mut self, key: &PortKey, claim: Claim) {
        let Some(claimants) = self.claims.get_mut(&claim) else {
            return;
        };
        claimants.retain(|(_, other)| **other != *key);
        match claimants.len() {
            0 => {
                self.claims.remove(&claim);
            }
            1 => {}
            _ => return,
        }
        self.contested.remove(&claim);
    }

    /// One port more needs the element; true when it is the first, or the only one that can.
    fn need(&mut self, element: &Element) -> bool {
        let Some(shared) = shared(element) else {
            return true;
        };
        let users = self.shared.entry(shared).or_insert(0);
        *users += 1;
        *users == 1
    }

    /// One port fewer needs the element; true when none is left.
    fn no_longer_need(&mut self, element: &Element) -> bool {
        let Some(shared) = shared(element) else {
            return true;
        };
        let Some(users) = self.shared.get_mut(&shared) else {
            return true;
        };
        *users -= 1;
        if *users == 0 {
            self.shared.remove(&shared);
            return true;
        }
        false
    }
}

const fn shared(element: &Element) -> Option<(bool, IpAddr)> {
    match *element {
        Element::Hairpin(address) => Some((false, address)),
        Element::ClusterIp(address) => Some((true, address)),
        _ => None,
    }
}
