//! What this node says of its BGP routes to people: which Services it hands to which peers. A
//! Service is spoken of once its routes have been handed over, and no longer as soon as they are
//! taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use plan::name::Name;
use plan::status::{self, News};
use plan::world::{Dirty, World};

#[derive(Debug)]
pub(super) struct Advertised {
    node: Name,
    table: status::Advertised,
    /// Addresses whose routes wait for this job of `forward`.
    waiting: BTreeMap<IpAddr, u64>,
}

impl Advertised {
    pub(super) fn new(node: Name) -> Self {
        Self {
            node,
            table: status::Advertised::default(),
            waiting: BTreeMap::new(),
        }
    }

    /// What `dirty` changes. What is new waits for the job `barrier`, as the routes do.
    pub(super) fn change(
        &mut self,
        world: &World,
        dirty: &Dirty,
        barrier: Option<u64>,
    ) -> Vec<(IpAddr, News)> {
        let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
        if dirty.bgp || dirty.nodes.contains(&self.node) {
            addresses.extend(self.table.addresses());
            addresses.extend(world.addresses());
        } else {
            addresses.extend(&dirty.routes);
        }
        if world.config().bgp.peers.is_empty() {
            // Nothing is said, but something may have been.
            addresses.retain(|address| self.table.contains(*address));
        }
        let mut news = Vec::new();
        for address in addresses {
            let mut claims = status::claims(world, &self.node, address);
            self.waiting.remove(&address);
            if let Some(job) = barrier {
                let wanted = claims.len();
                // Only what was said and still holds.
                claims.retain(|service, peers| {
                    let known = self.table.peers_at(address, service);
                    peers.retain(|peer| known.is_some_and(|known| known.contains(peer)));
                    !peers.is_empty()
                });
                if wanted > 0 {
                    self.waiting.insert(address, job);
                }
            }
            news.push((address, self.table.set(address, claims)));
        }
        news
    }

    /// `forward` has done this job: what waited for it.
    pub(super) fn programmed(&mut self, world: &World, job: u64) -> Vec<(IpAddr, News)> {
        let done = self.waiting.extract_if(.., |_, waits| *waits <= job);
        let free: Vec<IpAddr> = done.map(|(address, _)| address).collect();
        let tell = |address| {
            let claims = status::claims(world, &self.node, address);
            (address, self.table.set(address, claims))
        };
        free.into_iter().map(tell).collect()
    }

    /// What is said now.
    pub(super) fn table(&self) -> &status::Advertised {
        &self.table
    }
}
