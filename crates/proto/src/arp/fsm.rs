//! The responder of one interface (MetalLB §4.3).

use std::{
    collections::{HashMap, HashSet},
    net::Ipv4Addr,
};

use super::{Frame, Operation, Packet};
use crate::{
    ethernet::Mac,
    responder::{self, Counters, DropReason},
};

/// What a received frame asks of the caller.
pub type Outcome = responder::Outcome<Ipv4Addr, Frame>;

/// Answers ARP on one interface for the addresses announced there.
///
/// One responder per interface: an address announced on two interfaces is in two responders. An
/// address answers with the interface's MAC address, or with one of its own.
#[derive(Clone, Debug)]
pub struct Responder {
    mac: Mac,
    announced: HashMap<Ipv4Addr, Option<Mac>>,
    watched: HashSet<Ipv4Addr>,
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

    /// The interface has a new MAC address; the caller then sends gratuitous frames.
    pub fn set_mac(&mut self, mac: Mac) {
        self.mac = mac;
    }

    /// Starts answering for `ip`, with `mac` or else with the interface's own; false if it already
    /// did answer.
    pub fn announce(&mut self, ip: Ipv4Addr, mac: Option<Mac>) -> bool {
        self.watched.remove(&ip);
        self.announced.insert(ip, mac).is_none()
    }

    /// Stops answering for `ip`; false if it did not answer for it.
    pub fn withdraw(&mut self, ip: Ipv4Addr) -> bool {
        self.watched.remove(&ip);
        self.announced.remove(&ip).is_some()
    }

    /// Tells who else has `ip`, though it is not answered for; until it is announced or withdrawn.
    pub fn watch(&mut self, ip: Ipv4Addr) {
        if !self.announces(ip) {
            self.watched.insert(ip);
        }
    }

    /// Whether `ip` is answered for.
    pub fn announces(&self, ip: Ipv4Addr) -> bool {
        self.announced.contains_key(&ip)
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Takes a frame received on the interface.
    pub fn on_frame(&mut self, frame: &[u8]) -> Outcome {
        let outcome = match Packet::parse(frame) {
            Ok(packet) => self.answer(&packet),
            Err(error) => Outcome::Ignored((&error).into()),
        };
        self.counters.note(&outcome);
        outcome
    }

    fn answer(&self, packet: &Packet) -> Outcome {
        if packet.sender_mac == self.mac {
            return Outcome::Ignored(DropReason::Own);
        }
        // RFC 5227 §2.4: any ARP packet, whatever its operation and destination, whose sender
        // address is ours but whose sender is not.
        if let Some(own) = self.announced.get(&packet.sender_ip) {
            let mac = if *own == Some(packet.sender_mac) {
                // From the address's own MAC address: another node of ours, if it says so.
                packet.station().filter(|station| *station != self.mac)
            } else {
                Some(packet.sender_mac)
            };
            let ip = packet.sender_ip;
            return mac.map_or(Outcome::Ignored(DropReason::Own), |mac| Outcome::Conflict {
                ip,
                mac,
            });
        }
        if self.watched.contains(&packet.sender_ip) {
            return Outcome::Conflict {
                ip: packet.sender_ip,
                mac: packet.sender_mac,
            };
        }
        if packet.operation != Operation::Request {
            return Outcome::Ignored(DropReason::NotRequest);
        }
        let announced = self.announced.get(&packet.target_ip).copied();
        let mac = announced.flatten().unwrap_or(self.mac);
        if ![Mac::BROADCAST, self.mac, mac].contains(&packet.destination) {
            return Outcome::Ignored(DropReason::NotForUs);
        }
        if announced.is_none() {
            return Outcome::Ignored(DropReason::NotAnnounced);
        }
        if !packet.sender_mac.is_unicast() {
            return Outcome::Ignored(DropReason::BadSender);
        }
        // A probe (sender 0.0.0.0) is answered like any request: that answer is the defence
        // against a stranger who is about to take the address (RFC 5227 §2.1.1).
        let reply = Packet {
            destination: packet.sender_mac,
            source: mac,
            operation: Operation::Reply,
            sender_mac: mac,
            sender_ip: packet.target_ip,
            target_mac: packet.sender_mac,
            target_ip: packet.sender_ip,
        };
        Outcome::Reply(reply.build())
    }
}
