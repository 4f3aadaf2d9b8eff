//! Layer 2's announcements: begun once this node knows the others, and told of.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use plan::announce::l2::Announcement;
use plan::name::{Name, ServiceKey};
use proto::ethernet::Mac;

use super::{HEARING, Planner};
use crate::agent::l2::Neighbour;
use crate::agent::member;
use crate::sink::{Component, Report, Subject};

impl Planner {
    /// Who has an address that stays is said by beats first: what the API says may be older.
    pub(super) fn has_met_everybody(&mut self) -> bool {
        let alive = |peer: &&Name| self.world.presumed_alive(peer);
        let mut there = self.peers.keys().filter(alive);
        if !there
            .clone()
            .all(|peer| self.world.node_state(peer).is_some())
        {
            self.hearing = None;
            return false;
        }
        if !self.world.config().stays() || there.all(|peer| self.heard.contains(peer)) {
            return true;
        }
        let now = Instant::now();
        *self.hearing.get_or_insert(now + HEARING) <= now
    }

    /// Tells failure detection who the other nodes are.
    pub(super) async fn meet(&mut self) {
        let peers: BTreeMap<Name, IpAddr> = self
            .world
            .node_names()
            .filter(|name| **name != self.parts.agent.node)
            .filter_map(|name| {
                let address = *self.world.node(name)?.addresses.first()?;
                Some((name.clone(), address))
            })
            .collect();
        if peers != self.peers {
            self.peers.clone_from(&peers);
            let _ = self.parts.member.send(member::Command::Peers(peers)).await;
        }
    }

    /// Tells layer 2 where this node is, and the others, when that may have changed.
    pub(super) async fn introduce(&mut self) {
        if !std::mem::take(&mut self.unintroduced) {
            return;
        }
        let addresses = |name: &str| {
            let node = self.world.node(name);
            node.map(|node| node.addresses.clone()).unwrap_or_default()
        };
        let others: Vec<Neighbour> = self
            .peers
            .keys()
            .map(|name| {
                let addresses = addresses(name).into_iter();
                addresses.map(|ip| (ip, self.mac(name, ip))).collect()
            })
            .collect();
        let all = (addresses(&self.parts.agent.node), others);
        if all != self.introduced {
            self.introduced.clone_from(&all);
            self.parts.l2.neighbours(all.0, all.1).await;
        }
    }

    /// The MAC address that a node told of the interface with this address.
    fn mac(&self, node: &str, address: IpAddr) -> Option<Mac> {
        let mut interfaces = self.world.node_state(node)?.interfaces.values();
        let near = |subnet: &IpNet| subnet.contains(&address);
        let found = interfaces.find(|it| it.subnets.iter().any(near))?;
        found.mac.map(Mac)
    }

    pub(super) async fn announce(&mut self, ready: Vec<(IpAddr, Announcement)>) {
        let ready = self.hold_back(ready);
        let nowhere = self.parts.l2.announce(ready.clone()).await;
        if self.world.config().stays() {
            self.unsettled
                .extend(ready.iter().map(|(address, _)| *address));
        }
        for (address, announcement) in ready {
            let up = (!nowhere.contains(&address)).then(|| announcement.clone());
            self.parts.statuses.set(address, up).await;
            let told = self.told.insert(address, announcement.services.clone());
            let told = told.unwrap_or_default();
            for service in announcement
                .services
                .iter()
                .filter(|service| !told.contains(service))
            {
                if nowhere.contains(&address) {
                    let message =
                        format!("no interface that \"{address}\" may be announced on is usable");
                    self.report(service, true, "announceFailed", message);
                    continue;
                }
                // One text for all Services of an address: tools compare it (`spec/metallb.md`
                // §12.1).
                let node = &self.parts.agent.node;
                let message = format!("announcing from node \"{node}\" with protocol \"layer2\"");
                self.report(service, false, "nodeAssigned", message);
            }
        }
    }

    pub(super) fn report(
        &self,
        service: &ServiceKey,
        warning: bool,
        reason: &'static str,
        message: String,
    ) {
        let Some(found) = self.world.service(service) else {
            return;
        };
        self.parts.reporter.report(Report {
            component: Component::Speaker,
            about: Subject::Service {
                key: service.clone(),
                uid: found.uid.clone(),
            },
            warning,
            reason,
            message,
        });
    }
}
