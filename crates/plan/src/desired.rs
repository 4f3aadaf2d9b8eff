//! What this node's agent should bring about: a value with no choices left in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::announce::bgp::{self, Bgp};
use crate::announce::l2::{self, Announcement};
use crate::announce::linux::{self, Placing};
use crate::forward::{self, HealthCheck, Locality, Mode, NodePorts, PortKey, ServicePort, Sources};
use crate::name::{Name, ServiceKey};
use crate::world::{Dirty, World};

/// Who plans: the node and what it forwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// The node's name.
    pub node: Name,
    /// What it forwards.
    pub mode: Mode,
    /// What it is told of sources.
    pub sources: Sources,
    /// Where its node ports are.
    pub node_ports: NodePorts,
}

impl Agent {
    /// What sources change on this node, as far as `world` knows it.
    pub fn locality(&self, world: &World) -> Locality {
        let node = world.node(&self.node);
        let mut locality = self.sources.on(node);
        // Beside another proxy they are its own matter.
        if self.mode == Mode::All {
            locality = locality.within(world.cluster_ranges());
            locality.loopback = self.node_ports.loopback(node);
        }
        locality
    }
}

/// The desired state of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Desired {
    /// The addresses it answers ARP and NDP for.
    pub l2: BTreeMap<IpAddr, Announcement>,
    /// The addresses that it has on [`linux::DEVICE`].
    pub linux: BTreeMap<IpAddr, Placing>,
    /// The sessions it holds and the routes it advertises on them.
    pub bgp: Bgp,
    /// The ports it forwards.
    pub forward: Forwarding,
    /// The health checks it answers.
    pub health: BTreeMap<ServiceKey, HealthCheck>,
}

/// The ports of a node, by Service.
pub type Forwarding = BTreeMap<ServiceKey, BTreeMap<PortKey, ServicePort>>;

/// What a replan changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Addresses to announce, or to withdraw.
    pub l2: Vec<(IpAddr, Option<Announcement>)>,
    /// Addresses to put on [`linux::DEVICE`], or to take away.
    pub linux: Vec<(IpAddr, Option<Placing>)>,
    /// Sessions and routes, in the order in which they are to be taken.
    pub bgp: Vec<bgp::Change>,
    /// Ports to program, or to remove.
    pub forward: Vec<(PortKey, Option<ServicePort>)>,
    /// Those of them whose last endpoint on this node has gone ([`ServicePort::lingering`]).
    pub left: Vec<PortKey>,
    /// Health checks to answer, or no longer.
    pub health: Vec<(ServiceKey, Option<HealthCheck>)>,
}

impl Changes {
    /// Nothing changed.
    pub fn is_empty(&self) -> bool {
        self.l2.is_empty()
            && self.linux.is_empty()
            && self.bgp.is_empty()
            && self.forward.is_empty()
            && self.health.is_empty()
    }
}

impl Desired {
    /// Plans the dirty keys anew, puts the result in place and returns what changed. Replanning
    /// everything gives the same value as replanning what was dirty.
    pub fn replan(&mut self, world: &World, agent: &Agent, dirty: &Dirty) -> Changes {
        let mut changes = Changes::default();
        for address in &dirty.addresses {
            let new = l2::plan(world, &agent.node, *address);
            if self.l2.get(address) != new.as_ref() {
                match new.clone() {
                    Some(announcement) => self.l2.insert(*address, announcement),
                    None => self.l2.remove(address),
                };
                changes.l2.push((*address, new));
            }
        }
        changes.linux = self.replan_linux(world, &agent.node, dirty);
        changes.bgp = self.bgp.replan(world, &agent.node, dirty);
        let moved = dirty.places.contains(&agent.node);
        let everything = world.services().filter(|_| moved);
        let services: BTreeSet<&ServiceKey> = everything
            .map(|service| &service.key)
            .chain(&dirty.forward)
            .collect();
        for service in services {
            let new = forward::plan(world, &agent.node, agent.mode, &agent.node_ports, service);
            let old = self.forward.remove(service).unwrap_or_default();
            for key in old.keys().filter(|key| !new.contains_key(*key)) {
                changes.forward.push((key.clone(), None));
            }
            for (key, port) in &new {
                let before = old.get(key);
                if before.is_some_and(|it| !it.local.is_empty()) && port.local.is_empty() {
                    changes.left.push(key.clone());
                }
                if before != Some(port) {
                    changes.forward.push((key.clone(), Some(port.clone())));
                }
            }
            let check =
                forward::health_check(world, &agent.node, agent.mode, &agent.node_ports, service);
            if self.health.get(service) != check.as_ref() {
                match check.clone() {
                    Some(check) => self.health.insert(service.clone(), check),
                    None => self.health.remove(service),
                };
                changes.health.push((service.clone(), check));
            }
            if !new.is_empty() {
                self.forward.insert(service.clone(), new);
            }
        }
        changes
    }

    fn replan_linux(
        &mut self,
        world: &World,
        me: &Name,
        dirty: &Dirty,
    ) -> Vec<(IpAddr, Option<Placing>)> {
        if world.config().linux.is_empty() && self.linux.is_empty() {
            return Vec::new();
        }
        let mut addresses: BTreeSet<IpAddr> = &dirty.addresses | &dirty.routes;
        if dirty.bgp || dirty.nodes.contains(me) {
            addresses.extend(world.addresses());
            addresses.extend(self.linux.keys());
        }
        let mut changes = Vec::new();
        for address in addresses {
            let new = linux::plan(world, me, address);
            if self.linux.get(&address) != new.as_ref() {
                match new.clone() {
                    Some(placing) => self.linux.insert(address, placing),
                    None => self.linux.remove(&address),
                };
                changes.push((address, new));
            }
        }
        changes
    }
}
