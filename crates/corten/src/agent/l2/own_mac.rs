//! MAC addresses of the addresses' own: what the kernel is to receive, what the network carries,
//! and the fall back to the interface's where one of the two refuses (docs/adr/0010).

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use plan::announce::l2::Announcement;
use proto::ethernet::Mac;

use super::Manager;
use crate::agent::port;
use crate::agent::reception::{Stations, Wanted};
use crate::sink::{Component, Report, Subject};

/// After its own MAC address could not be received for, that is tried again this often.
const AGAIN: Duration = Duration::from_secs(30);
/// Frames for an address's own MAC address are received that long after the address was given up:
/// the switches send them here until the next owner has spoken.
const LINGER: Duration = Duration::from_secs(2);

impl Manager {
    /// Tells the ports which other nodes are on their link.
    pub(super) async fn introduce(&mut self) {
        let snapshot = self.context.interfaces.borrow().clone();
        for (index, port) in &mut self.ports {
            let found = snapshot.iter().find(|interface| interface.index == *index);
            let subnets = found.into_iter().flat_map(|it| &it.addresses);
            let subnets: Vec<IpNet> = subnets
                .filter_map(|(ip, length)| IpNet::new(*ip, *length).ok())
                .collect();
            let near = |ip: &Ipv4Addr| subnets.iter().any(|net| net.contains(&IpAddr::V4(*ip)));
            let all = self.neighbours.iter().filter_map(|node| node.first());
            let all = all.filter_map(|(ip, _)| match ip {
                IpAddr::V4(ip) => Some(*ip),
                IpAddr::V6(_) => None,
            });
            let neighbours: Vec<Ipv4Addr> = all.filter(near).collect();
            if neighbours != port.neighbours {
                port.neighbours.clone_from(&neighbours);
                let command = port::Command::Neighbours(neighbours);
                let _ = port.commands.send(command).await;
            }
        }
    }

    /// Has the kernel receive frames for addresses' own MAC addresses, where that is wanted.
    pub(super) async fn receive(&mut self) {
        let now = Instant::now();
        self.lingering.retain(|_, (until, _)| *until > now);
        let mut wanted = Wanted::new();
        let lingering = self.lingering.iter().map(|(ip, (_, it))| (ip, it));
        for (address, announcement) in self.announced.iter().chain(lingering) {
            let Some(mac) = announcement.mac else {
                continue;
            };
            for (index, port) in &self.ports {
                if announcement.interfaces.contains(&port.name)
                    && !self.refused.contains(&(*index, *address))
                {
                    let stations = wanted.entry(*index).or_insert_with(|| Stations {
                        name: port.name.clone(),
                        ..Stations::default()
                    });
                    stations.macs.insert(Mac(mac.0));
                }
            }
        }
        let received = self.context.reception.want(wanted).await;
        let lingers = self.lingering.values().map(|(until, _)| *until).min();
        let again = received.is_err().then(|| now + AGAIN);
        self.again = lingers.into_iter().chain(again).min();
        let why = received.err();
        if why.is_some() == self.unreceived.is_some() {
            return;
        }
        match &why {
            Some(why) => self.fall_back(
                "kernel",
                "VirtualMacUnavailable",
                format!("addresses answer with the interface's MAC address, not their own: {why}"),
            ),
            None => self.report(
                false,
                "VirtualMacAvailable",
                "addresses answer with MAC addresses of their own again".to_owned(),
            ),
        }
        self.unreceived = why;
        self.bring_all().await;
    }

    /// The network at an interface does not carry an address's own MAC address.
    pub(super) async fn refuse(&mut self, index: u32, address: IpAddr) {
        let mac = self.announced.get(&address).and_then(|it| it.mac);
        let (Some(mac), Some(port)) = (mac, self.ports.get(&index)) else {
            return;
        };
        let name = port.name.clone();
        if !self.refused.insert((index, address)) {
            return;
        }
        self.fall_back(
            "network",
            "VirtualMacRefused",
            format!(
                "the network at {name} does not carry frames of {mac}: \"{address}\" answers with \
                 the MAC address of {name}; remedy: allow more MAC addresses at this port of the \
                 switch or hypervisor, or use mac: Node"
            ),
        );
        if self.bring(address).await {
            self.announcer.trigger(self.start.elapsed(), address);
        }
        self.receive().await;
    }

    fn fall_back(&self, cause: &str, reason: &'static str, message: String) {
        let fallbacks = &self.context.metrics.virtual_mac_fallbacks;
        fallbacks.with_label_values(&[cause]).inc();
        tracing::warn!("{message}");
        self.report(true, reason, message);
    }

    fn report(&self, warning: bool, reason: &'static str, message: String) {
        self.context.reporter.report(Report {
            component: Component::Speaker,
            about: Subject::Node(self.context.node.clone()),
            warning,
            reason,
            message,
        });
    }

    /// Goes on receiving what is under way to an address that was given up.
    pub(super) fn linger(&mut self, address: IpAddr, old: Option<&Announcement>) {
        if let Some(old) = old.filter(|old| old.mac.is_some()) {
            let until = Instant::now() + LINGER;
            self.lingering.insert(address, (until, old.clone()));
            self.again = Some(self.again.map_or(until, |again| again.min(until)));
        }
    }
}
