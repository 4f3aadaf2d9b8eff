//! The responder of one interface (MetalLB §4.3).

use std::{collections::HashSet, net::Ipv4Addr};

use super::{Frame, Operation, Packet};
use crate::{
    ethernet::Mac,
    responder::{self, Counters, DropReason},
};

/// What a received frame asks of the caller.
pub type Outcome = responder::Outcome<Ipv4Addr, Frame>;

/// Answers ARP on one interface for the addresses announced there.
///
/// One responder per interface: an address announced on two interfaces is in two responders.
#[derive(Clone, Debug)]
pub struct Responder {
    mac: Mac,
    announced: HashSet<Ipv4Addr>,
    counters: Counters,
}

impl Responder {
    /// A responder without addresses for the interface with this MAC address.
    pub fn new(mac: Mac) -> Self {
        Self {
            mac,
            announced: HashSet::new(),
            counters: Counters::default(),
        }
    }

    /// The interface's MAC address, as used in answers.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// The interface has a new MAC address; the caller then sends gratuitous frames.
    pub fn set_mac(&mut self, mac: Mac) {
        self.mac = mac;
    }

    /// Starts answering for `ip`; false if it already did.
    pub fn announce(&mut self, ip: Ipv4Addr) -> bool {
        self.announced.insert(ip)
    }

    /// Stops answering for `ip`; false if it did not answer for it.
    pub fn withdraw(&mut self, ip: Ipv4Addr) -> bool {
        self.announced.remove(&ip)
    }

    /// Whether `ip` is answered for.
    pub fn announces(&self, ip: Ipv4Addr) -> bool {
        self.announced.contains(&ip)
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
        if self.announced.contains(&packet.sender_ip) {
            return Outcome::Conflict {
                ip: packet.sender_ip,
                mac: packet.sender_mac,
            };
        }
        if packet.operation != Operation::Request {
            return Outcome::Ignored(DropReason::NotRequest);
        }
        if packet.destination != Mac::BROADCAST && packet.destination != self.mac {
            return Outcome::Ignored(DropReason::NotForUs);
        }
        if !self.announced.contains(&packet.target_ip) {
            return Outcome::Ignored(DropReason::NotAnnounced);
        }
        if !packet.sender_mac.is_unicast() {
            return Outcome::Ignored(DropReason::BadSender);
        }
        // A probe (sender 0.0.0.0) is answered like any request: that answer is the defence
        // against a stranger who is about to take the address (RFC 5227 §2.1.1).
        let reply = Packet {
            destination: packet.sender_mac,
            source: self.mac,
            operation: Operation::Reply,
            sender_mac: self.mac,
            sender_ip: packet.target_ip,
            target_mac: packet.sender_mac,
            target_ip: packet.sender_ip,
        };
        Outcome::Reply(reply.build())
    }
}
