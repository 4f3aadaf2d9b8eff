//! Addresses that stay with their owners (`handBack: false`).
//!
//! A node that has such an address says so in its `NodeState`, with a term. Who says so stands
//! before all others in the election; of several the one with the latest term, and of equals the
//! first in the order. There is no traffic but the states.
//!
//! A term counts owners, and says how the owner came to it:
//!
//! | of four times the count | who has it |
//! |---|---|
//! | +0 | who fell silent since, or started anew: another one may have taken it |
//! | +1 | who took it over while it heard nobody else: its owner may be alive |
//! | +2 | who took it over in company, or had company since |
//!
//! Who takes an address over in company counts one more than all that it has heard of. So it stays
//! with whoever took it from an owner that was lost, when that comes back; with its owner, when a
//! node comes back that was cut off and alone; and where the parts of a split network had company
//! each, with whoever took it over last.
use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::world::{NodeState, Standing, Term, World};

/// The latest terms that a node has heard of: more than World shows, where only what is said now
/// counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms(BTreeMap<IpAddr, Term>);

impl Terms {
    /// Takes in what a node says.
    pub fn note(&mut self, state: &NodeState) {
        for (address, term) in &state.tenures {
            let latest = self.0.entry(*address).or_default();
            *latest = (*latest).max(*term);
        }
    }

    fn next(&self, address: IpAddr, company: bool) -> Term {
        let latest = self.0.get(&address).copied().unwrap_or(0) / LEVELS;
        if company {
            latest.saturating_add(1).saturating_mul(LEVELS) | FIRM
        } else {
            (latest * LEVELS) | ALONE
        }
    }
}

const LEVELS: Term = 4;
const ALONE: Term = 1;
const FIRM: Term = 2;

/// Whether its owner has had company in this term, without falling silent.
pub const fn is_firm(term: Term) -> bool {
    term % LEVELS >= FIRM
}

/// What is left of a term after its owner fell silent, or started anew: of what it took while it
/// was alone, nothing.
pub const fn shaken(term: Term) -> Option<Term> {
    match term % LEVELS {
        ALONE => None,
        _ => Some(term - term % LEVELS),
    }
}

/// What is left of what a node said, once it is silent, or held for dead: should it be heard again,
/// it counts until it has said more. `None`: it is the same.
pub fn after_silence(state: &NodeState) -> Option<NodeState> {
    let left = state.tenures.iter();
    let left = left.filter_map(|(address, term)| Some((*address, shaken(*term)?)));
    let left = NodeState {
        tenures: left.collect(),
        ..state.clone()
    };
    (left != *state).then_some(left)
}

/// Whether `address` stays with its owner.
pub fn stays(world: &World, address: IpAddr) -> bool {
    let Some(pool) = world.allocator().pool_of(address) else {
        return false;
    };
    let ads = world.config().l2.values();
    let mut staying = ads.filter(|ad| !ad.hand_back && ad.pools.contains(&pool.name));
    staying.any(|ad| {
        let mut holders = world.holders(address);
        holders.any(|service| ad.allows_service(&service.labels))
    })
}

/// The term in which `me` has `address`, as it should say; `None`: it has it not, or the address
/// does not stay. `announced`: it answers for it. `company`: for a while now it has heard others.
pub fn of(
    world: &World,
    me: &str,
    address: IpAddr,
    announced: bool,
    company: bool,
    terms: &Terms,
) -> Option<Term> {
    if !stays(world, address) {
        return None;
    }
    let state = world.node_state(me);
    let mine = state.and_then(|state| state.tenures.get(&address).copied());
    match world.standing(address).and_then(Standing::owner) {
        // Nobody can have it just now, for want of endpoints perhaps: it is where it was.
        None => mine,
        Some(owner) if &**owner != me => None,
        Some(_) if !announced => mine,
        Some(_) => match mine {
            Some(term) if is_firm(term) || !company => mine,
            _ => Some(terms.next(address, company)),
        },
    }
}
