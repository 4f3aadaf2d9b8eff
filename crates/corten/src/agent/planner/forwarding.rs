//! Jobs for the executor of forwarding, and what waits for them.

use std::net::IpAddr;
use std::time::Instant;

use plan::announce::bgp::Change;
use plan::announce::linux::Placing;
use plan::forward::Locality;

use super::Planner;
use crate::agent::forward::{Done, Job};
use crate::agent::interfaces;

impl Planner {
    /// Gives `forward` its next job, if it is free and there is one. The first job is the whole
    /// table, also when it is empty: what an earlier agent left behind is adopted or removed.
    pub(super) async fn hand_out(&mut self) {
        let Some(forward) = &self.parts.forward else {
            self.ready();
            return;
        };
        if !self.adopted {
            self.gate.force();
        }
        let Some((number, ports)) = self.gate.job() else {
            return;
        };
        if let Some(locality) = self.new_locality() {
            self.locality = locality.clone();
            let _ = forward.send(Job::Locality(locality)).await;
        }
        let job = if self.adopted {
            Job::Apply(number, ports)
        } else {
            Job::Adopt(number, ports)
        };
        self.adopted = true;
        self.tally.handed_out();
        let _ = forward.send(job).await;
    }

    /// Node ports may be on other addresses now.
    pub(super) fn look_for_node_ports(&mut self) {
        let ports = &mut self.parts.agent.node_ports;
        if ports.ranges.is_none() {
            return;
        }
        let ours = |address: &IpAddr| {
            self.desired.l2.contains_key(address) || self.placed.contains_key(address)
        };
        let own = interfaces::own_addresses(&self.snapshot, ours);
        if ports.own != own {
            ports.own = own;
            self.dirty.places.insert(self.parts.agent.node.clone());
        }
    }

    /// What sources change now, if it is something else than before.
    pub(super) fn new_locality(&self) -> Option<Locality> {
        let agent = &self.parts.agent;
        let locality = agent.sources.on(self.world.node(&agent.node));
        (locality != self.locality).then_some(locality)
    }

    pub(super) async fn forwarded(&mut self, done: Done) {
        self.ready();
        let ready = self.gate.done(done.number);
        self.tally.programmed();
        let more = self.gate.barrier().is_some();
        self.parts.proxy.updated(Instant::now(), more);
        self.announce(ready).await;
        let programmed = |_: &_, (job, _): &mut (u64, Change)| *job <= done.number;
        let free: Vec<Change> = self
            .routes
            .extract_if(.., programmed)
            .map(|(_, (_, change))| change)
            .collect();
        for change in free {
            self.parts.bgp.apply(change, None).await;
        }
        let programmed = |_: &_, (job, _): &mut (u64, Placing)| *job <= done.number;
        let free: Vec<(IpAddr, Placing)> = self
            .placings
            .extract_if(.., programmed)
            .map(|(address, (_, placing))| (address, placing))
            .collect();
        for (address, placing) in free {
            self.place(address, placing).await;
        }
        let news = self.said.programmed(&self.world, done.number);
        self.say(news).await;
        self.ready_routes().await;
        self.settle().await;
    }

    pub(super) fn ready(&self) {
        if self.synced {
            self.parts.health.set_synced();
        }
    }
}
