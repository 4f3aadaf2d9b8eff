//! The virtual servers that carry a node's service ports where IPVS balances.
//!
//! IPVS balances and nothing else: rejections, source ranges, masquerading and what depends on the
//! client stay with the rule set. [`elements`] is what that needs of a service port's elements,
//! [`Server`] is the rest. [`Servers`] holds both for a node and says what a change changes.
//!
//! A front whose service port has no endpoints has a server too, without destinations: connections
//! to endpoints that have left go on, and the rule set turns new ones away.

mod scheduling;
#[cfg(test)]
mod tests;
mod weights;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;
use std::sync::Arc;

use super::element::{Element, Elements, Front, SlotsId};
use super::{FrontendKind, PortKey, ServicePort, Table};
use crate::net::Protocol;
pub use scheduling::{BadScheduling, Scheduling};
pub(super) use weights::Asked;
pub use weights::Weights;

/// A virtual server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// How it chooses.
    pub scheduling: Scheduling,
    /// How long a client stays at its destination, in seconds.
    pub keep: Option<u32>,
    /// Its destinations with their weights.
    pub destinations: BTreeMap<SocketAddr, u32>,
    /// Its address is the node's own: it stands on an interface already.
    pub is_nodes: bool,
}

/// What changes: the new form of a server, or none where it goes.
pub type Changes = BTreeMap<Front, Option<Server>>;

/// The virtual servers of a node.
#[derive(Clone, Debug, Default)]
pub struct Servers {
    table: Table,
    usual: Scheduling,
    servers: BTreeMap<Front, Server>,
    /// The fronts of each service port that are in force.
    fronts: BTreeMap<Arc<PortKey>, BTreeSet<Front>>,
}

impl Servers {
    /// None yet; Services that say nothing else get `usual`.
    pub fn new(usual: Scheduling) -> Self {
        Self {
            usual,
            ..Self::default()
        }
    }

    /// Sets or removes one service port; says what changes, for it and for those that it takes an
    /// address from or leaves one to.
    pub fn set(&mut self, key: &PortKey, port: Option<ServicePort>) -> Changes {
        let key = Arc::new(key.clone());
        let mut affected = BTreeSet::from([Arc::clone(&key)]);
        let deltas = self.table.set(&key, port);
        affected.extend(deltas.into_iter().map(|delta| delta.key));
        let mut new = Changes::new();
        for key in affected {
            for front in self.fronts.remove(&key).unwrap_or_default() {
                new.entry(front).or_insert(None);
            }
            let servers = self.compile(&key);
            if !servers.is_empty() {
                let fronts = servers.iter().map(|(front, _)| *front).collect();
                self.fronts.insert(key, fronts);
            }
            new.extend(
                servers
                    .into_iter()
                    .map(|(front, server)| (front, Some(server))),
            );
        }
        new.retain(|front, server| self.servers.get(front) != server.as_ref());
        for (front, server) in &new {
            match server {
                Some(server) => self.servers.insert(*front, server.clone()),
                None => self.servers.remove(front),
            };
        }
        new
    }

    /// The server at a front.
    pub fn get(&self, front: &Front) -> Option<&Server> {
        self.servers.get(front)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Front, &Server)> {
        self.servers.iter()
    }

    /// The fronts of all of them behind this one, in order.
    pub fn after(&self, front: Option<Front>) -> impl Iterator<Item = Front> {
        let from = front.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.servers.range((from, Bound::Unbounded));
        behind.map(|(front, _)| *front)
    }

    /// The service ports whose servers are at this front.
    pub fn holder(&self, front: &Front) -> Option<&PortKey> {
        let mut all = self.fronts.iter();
        all.find(|(_, fronts)| fronts.contains(front))
            .map(|(key, _)| &**key)
    }

    /// Some server needs the address on an interface of ours.
    pub fn needs(&self, address: IpAddr) -> bool {
        let first = Front {
            address,
            protocol: Protocol::Tcp,
            port: 0,
        };
        let at = |front: &Front| front.address == address;
        // Addresses come first in the order of fronts, protocols in that of their kind.
        let mut those = self
            .servers
            .range(first..)
            .take_while(|(front, _)| at(front));
        those.any(|(_, server)| !server.is_nodes)
    }

    /// The addresses that servers need on an interface of ours.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        let needed = self.servers.iter().filter(|(_, server)| !server.is_nodes);
        needed.map(|(front, _)| front.address).collect()
    }

    /// The servers of a service port that are in force.
    fn compile(&self, key: &PortKey) -> Vec<(Front, Server)> {
        let Some(port) = self.table.get(key) else {
            return Vec::new();
        };
        let elements = self.table.elements(key);
        let fronts = elements.iter().filter_map(|element| match element {
            // IPVS cannot route what has a loopback address: the rule set translates it.
            Element::Front { front, .. } => Some(*front).filter(|it| !it.address.is_loopback()),
            _ => None,
        });
        let frontend = |front: &Front| {
            let mut frontends = port.frontends.iter();
            frontends.find(|it| it.address == front.address && it.port == front.port)
        };
        fronts
            .filter_map(|front| Some((front, frontend(&front)?)))
            .map(|(front, frontend)| {
                let endpoints = port.endpoints(frontend.policy).iter();
                let weight = |at: &SocketAddr| port.weights.as_ref().map_or(1, |it| it.of(at));
                let server = Server {
                    scheduling: scheduling(port).and_then(Result::ok).unwrap_or(self.usual),
                    keep: port.keep(),
                    destinations: endpoints.map(|at| (*at, weight(at))).collect(),
                    is_nodes: is_nodes(port, frontend.kind, frontend.address),
                };
                (front, server)
            })
            .collect()
    }
}

/// What the Service itself says of how its servers choose; where that is no scheduler, they choose as
/// usual.
pub fn scheduling(port: &ServicePort) -> Option<Result<Scheduling, BadScheduling>> {
    port.scheduler.as_deref().map(str::parse)
}

/// The address is on an interface of the node already.
fn is_nodes(port: &ServicePort, kind: FrontendKind, address: IpAddr) -> bool {
    kind == FrontendKind::NodePort || port.of_node.contains(&address)
}

/// What the rule set needs of a service port's elements where IPVS balances. Slots are for the
/// connections that it translates still: the short cuts to endpoints that other clients do not
/// reach from here. All addresses of Services are guarded, since they are this host's now: without,
/// its own servers could be reached at them.
pub(super) fn elements(port: &ServicePort, elements: &Elements) -> Elements {
    let ids = elements.iter().filter_map(|element| match element {
        Element::Host { id, .. } => Some(*id),
        _ => None,
    });
    let translated: BTreeSet<SlotsId> = ids.collect();
    let stays = |element: &&Element| match element {
        Element::Slot { id, .. } | Element::Member { id, .. } => translated.contains(id),
        _ => true,
    };
    let guarded = port.frontends.iter();
    let guarded = guarded.filter(|it| !is_nodes(port, it.kind, it.address));
    let guarded = guarded.map(|frontend| Element::ClusterIp(frontend.address));
    elements
        .iter()
        .filter(stays)
        .copied()
        .chain(guarded)
        .collect()
}
