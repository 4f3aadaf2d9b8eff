//! The index of layer 2: for each address its best three nodes, for each node the addresses that
//! rank it. A node's death touches only the addresses that rank it; a join costs one hash each.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use crate::announce::election::Rank;
use crate::name::{Name, ServiceKey};

/// How many nodes an address remembers: the owner and two that follow it.
pub const DEPTH: usize = 3;

/// How well a node's subnets suit an address; the greatest counts. Those that hold the address
/// itself come first, then those that hold more of the Service's addresses: so both addresses of a
/// dual-stack Service go to one node wherever one node can reach both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fit {
    /// A subnet of the node holds the address.
    pub address: bool,
    /// How many of the Service's addresses some subnet of the node holds.
    pub of_service: usize,
}

/// The candidates of an address, best first, cut to [`DEPTH`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The best candidates with their ranks; never empty.
    pub best: Vec<(Rank, Name)>,
    /// Only nodes whose subnets suit this well stand: none suits better.
    pub fit: Fit,
    /// The Service whose claim decided: the first, by name, that has a candidate.
    pub claimant: ServiceKey,
}

impl Standing {
    /// The node that announces the address.
    pub fn owner(&self) -> Option<&Name> {
        self.best.first().map(|(_, node)| node)
    }

    /// With a node more that suits as well as those here; `None` when it is not among the best.
    pub(crate) fn with(&self, rank: Rank, node: &Name) -> Option<Self> {
        let place = self.best.partition_point(|(other, _)| *other < rank);
        if place >= DEPTH {
            return None;
        }
        let mut standing = self.clone();
        standing.best.insert(place, (rank, node.clone()));
        standing.best.truncate(DEPTH);
        Some(standing)
    }

    /// Without `node`; `None` when nobody is left.
    pub(super) fn without(&self, node: &str) -> Option<Self> {
        let mut standing = self.clone();
        standing.best.retain(|(_, other)| **other != *node);
        (!standing.best.is_empty()).then_some(standing)
    }
}

/// The standings of every address that some Service holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranking {
    standings: HashMap<IpAddr, Standing>,
    ranked: HashMap<Name, BTreeSet<IpAddr>>,
}

impl Ranking {
    pub(super) fn get(&self, address: IpAddr) -> Option<&Standing> {
        self.standings.get(&address)
    }

    /// The addresses that rank `node`.
    pub(super) fn ranking(&self, node: &str) -> impl Iterator<Item = IpAddr> + '_ {
        self.ranked.get(node).into_iter().flatten().copied()
    }

    /// Puts an address's new standing in place; says whether it changed.
    pub(super) fn set(&mut self, address: IpAddr, standing: Option<Standing>) -> bool {
        if self.standings.get(&address) == standing.as_ref() {
            return false;
        }
        if let Some(old) = self.standings.remove(&address) {
            for (_, node) in old.best {
                if let Some(addresses) = self.ranked.get_mut(&node) {
                    addresses.remove(&address);
                    if addresses.is_empty() {
                        self.ranked.remove(&node);
                    }
                }
            }
        }
        if let Some(standing) = standing {
            for (_, node) in &standing.best {
                self.ranked.entry(node.clone()).or_default().insert(address);
            }
            self.standings.insert(address, standing);
        }
        true
    }
}
