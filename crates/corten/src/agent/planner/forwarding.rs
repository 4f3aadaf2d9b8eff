//! Jobs for the executor of forwarding, and what waits for them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use plan::announce::bgp::Change;
use plan::announce::linux::Placing;
use plan::forward::{self, INCORRECT_IP_VERSION, Locality, PortKey};
use plan::name::ServiceKey;

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

    /// What the constant rules depend on, if it is something else than before.
    pub(super) fn new_locality(&self) -> Option<Locality> {
        let locality = self.parts.agent.locality(&self.world);
        (locality != self.locality).then_some(locality)
    }

    /// Says what these Services' fields name that is of another family than theirs, when that has
    /// changed.
    pub(super) fn tell_foreign(&mut self, services: &BTreeSet<ServiceKey>) {
        let mode = self.parts.agent.mode;
        for service in services {
            let found = forward::foreign(&self.world, mode, service);
            let before = match found.is_empty() {
                true => self.foreign.remove(service),
                false => self.foreign.insert(service.clone(), found.clone()),
            };
            let before = before.unwrap_or_default();
            for message in found.into_iter().filter(|it| !before.contains(it)) {
                self.report(service, true, INCORRECT_IP_VERSION, message);
            }
        }
    }

    /// Takes in what `forward` says.
    pub(super) async fn hear_of_forwarding(&mut self, done: Done) {
        match done {
            Done::Job(number) => self.forwarded(number).await,
            Done::Refused(ports) => {
                for (port, reason) in ports {
                    let message = refusal(&self.parts.agent.node, &port, &reason);
                    self.report(&port.service, true, "FailedToForward", message);
                }
            }
        }
    }

    async fn forwarded(&mut self, number: u64) {
        self.ready();
        let ready = self.gate.done(number);
        self.tally.programmed();
        let more = self.gate.barrier().is_some();
        self.parts.proxy.updated(Instant::now(), more);
        self.announce(ready).await;
        let programmed = |_: &_, (job, _): &mut (u64, Change)| *job <= number;
        let free: Vec<Change> = self
            .routes
            .extract_if(.., programmed)
            .map(|(_, (_, change))| change)
            .collect();
        for change in free {
            self.parts.bgp.apply(change, None).await;
        }
        let programmed = |_: &_, (job, _): &mut (u64, Placing)| *job <= number;
        let free: Vec<(IpAddr, Placing)> = self
            .placings
            .extract_if(.., programmed)
            .map(|(address, (_, placing))| (address, placing))
            .collect();
        for (address, placing) in free {
            self.place(address, placing).await;
        }
        let news = self.said.programmed(&self.world, number);
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

/// What an event says of a port that is not forwarded as it should be.
fn refusal(node: &str, port: &PortKey, reason: &str) -> String {
    let name = match &*port.port {
        "" => String::new(),
        name => format!(" {name:?}"),
    };
    format!(
        "node {node} failed to forward port{name} ({}, {}): {reason}",
        port.protocol, port.family
    )
}

#[cfg(test)]
mod tests {
    use plan::net::{Family, Protocol};

    use super::*;

    #[test]
    fn an_event_names_node_port_and_reason() {
        let port = |name: &str| PortKey {
            service: ServiceKey::new("default", "web"),
            port: name.into(),
            protocol: Protocol::Udp,
            family: Family::V6,
        };
        assert_eq!(
            refusal("n1", &port("dns"), "it is taken"),
            "node n1 failed to forward port \"dns\" (UDP, IPv6): it is taken"
        );
        assert_eq!(
            refusal("n1", &port(""), "no"),
            "node n1 failed to forward port (UDP, IPv6): no"
        );
    }
}
