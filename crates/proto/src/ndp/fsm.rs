//! The responder of one interface (RFC 4861 §7.2; MetalLB §4.3).

use std::{
    collections::{HashMap, HashSet},
    net::Ipv6Addr,
};

use super::{ALL_NODES, Message, Packet, multicast_mac};
use crate::{
    ethernet::Mac,
    responder::{self, Counters, DropReason},
};

/// What a received frame asks of the caller.
pub type Outcome = responder::Outcome<Ipv6Addr, Vec<u8>>;

/// Answers neighbour solicitations on one interface for the addresses announced there.
///
/// Two differences from MetalLB, both deliberate:
/// - Answers carry Override=1. RFC 4861 §7.2.4 asks for 0 only of anycast and proxied addresses;
///   ours is a unicast address that this node owns. With 0 a client that still holds the previous
///   owner's MAC address would keep it (§7.2.5) until its own probes fail.
/// - Solicitations without source link-layer option are answered, to the frame's sender: clients
///   probe so by unicast (§7.2.2), and lose the address for a moment if nobody answers.
#[derive(Clone, Debug)]
pub struct Responder {
    mac: Mac,
    announced: HashMap<Ipv6Addr, Option<Mac>>,
    watched: HashSet<Ipv6Addr>,
    counters: Counters,
}

impl Responder {
    /// A responder without addresses for the interface with this MAC address.
    pub fn new(mac: Mac) -> Self {
        Self {
            mac,
            announced: HashMap::new(),
            watched: HashSet::new(),
            counters: Counters::default(),
        }
    }

    /// The interface's MAC address.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// The interface has a new MAC address; the caller then sends unsolicited advertisements.
    pub fn set_mac(&mut self, mac: Mac) {
        self.mac = mac;
    }

    /// Starts answering for `ip`, with `mac` or else with the interface's own; false if it already
    /// did answer. The caller keeps [`super::Groups`].
    pub fn announce(&mut self, ip: Ipv6Addr, mac: Option<Mac>) -> bool {
        self.watched.remove(&ip);
        self.announced.insert(ip, mac).is_none()
    }

    /// Stops answering for `ip`; false if it did not answer for it.
    pub fn withdraw(&mut self, ip: Ipv6Addr) -> bool {
        self.watched.remove(&ip);
        self.announced.remove(&ip).is_some()
    }

    /// Tells who else has `ip`, though it is not answered for; until it is announced or withdrawn.
    pub fn watch(&mut self, ip: Ipv6Addr) {
        if !self.announces(ip) {
            self.watched.insert(ip);
        }
    }

    /// Whether `ip` is answered for.
    pub fn announces(&self, ip: Ipv6Addr) -> bool {
        self.announced.contains_key(&ip)
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Takes a frame received on the interface.
    pub fn on_frame(&mut self, frame: &[u8]) -> Outcome {
        let outcome = match Packet::parse(frame) {
            Ok(packet) => self.take(&packet),
            Err(error) => Outcome::Ignored((&error).into()),
        };
        self.counters.note(&outcome);
        outcome
    }

    fn take(&self, packet: &Packet) -> Outcome {
        // Whom the message ties to which link-layer address.
        let (owner, option) = match packet.message {
            Message::Solicitation { source_mac, .. } => (packet.source, source_mac),
            Message::Advertisement {
                target, target_mac, ..
            } => (target, target_mac),
        };
        let mac = option.unwrap_or(packet.link_source);
        if mac == self.mac {
            return Outcome::Ignored(DropReason::Own);
        }
        if let Some(own) = self.announced.get(&owner) {
            let mac = if *own == Some(mac) {
                // From the address's own MAC address: another node of ours, if it says so.
                packet.station().filter(|station| *station != self.mac)
            } else {
                Some(mac)
            };
            return mac.map_or(Outcome::Ignored(DropReason::Own), |mac| Outcome::Conflict {
                ip: owner,
                mac,
            });
        }
        if self.watched.contains(&owner) {
            return Outcome::Conflict { ip: owner, mac };
        }
        match packet.message {
            Message::Solicitation { target, .. } => self.answer(packet, target, mac),
            Message::Advertisement { .. } => Outcome::Ignored(DropReason::NotRequest),
        }
    }

    fn answer(&self, packet: &Packet, target: Ipv6Addr, mac: Mac) -> Outcome {
        let group = multicast_mac(packet.destination);
        let to_group = packet.destination.is_multicast() && packet.link_destination == group;
        let announced = self.announced.get(&target).copied();
        let own = announced.flatten().unwrap_or(self.mac);
        if ![self.mac, own].contains(&packet.link_destination) && !to_group {
            return Outcome::Ignored(DropReason::NotForUs);
        }
        if announced.is_none() {
            return Outcome::Ignored(DropReason::NotAnnounced);
        }
        if !mac.is_unicast() || packet.source.is_multicast() {
            return Outcome::Ignored(DropReason::BadSender);
        }
        // RFC 4861 §7.2.4: an asker without address (duplicate address detection) is told by way
        // of all nodes; that defends the address.
        let anonymous = packet.source.is_unspecified();
        let reply = Packet {
            link_destination: if anonymous {
                multicast_mac(ALL_NODES)
            } else {
                mac
            },
            link_source: own,
            source: target,
            destination: if anonymous { ALL_NODES } else { packet.source },
            message: Message::Advertisement {
                target,
                router: false,
                solicited: !anonymous,
                override_: true,
                target_mac: Some(own),
                source_mac: None,
            },
        };
        Outcome::Reply(reply.build())
    }
}
