//! Whether the network carries frames of a MAC address that is not the interface's own.
//!
//! A switch may take only the MAC addresses that it knows at a port, and a hypervisor may refuse a
//! guest all but one; neither says so. So a neighbour, another node on the link, is asked by ARP
//! twice in a row: from the address in question, then from the interface's own. An answer that
//! reaches the first has gone both ways, and all is well. When only the second is answered, three
//! times in a row, the network refuses the first. A neighbour that answers neither says nothing.
//!
//! The questions are probes (RFC 5227 §1.1: sender 0.0.0.0), so that nobody's cache learns from
//! them. The two answers come one after the other by one way, so that a slow machine is not taken
//! for a refusal.

use std::net::Ipv4Addr;

use crate::arp::{self, Frame, Operation, Packet};
use crate::ethernet::Mac;

/// So many answers to the interface's own address alone, one after the other, are a refusal.
const REFUSALS: u8 = 3;
/// After so many rounds nobody is asked any more.
const ROUNDS: u8 = 20;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Frames go both ways.
    Carried,
    /// They do not, though the interface's own do.
    Refused,
}

/// The trial of one MAC address on one interface.
#[derive(Clone, Debug)]
pub struct Trial {
    mac: Mac,
    station: Mac,
    rounds: u8,
    refusals: u8,
    /// Who is asked, until it has answered the interface's own address.
    asked: Option<Ipv4Addr>,
}

impl Trial {
    /// Of `mac`, on the interface with the MAC address `station`.
    pub fn new(mac: Mac, station: Mac) -> Self {
        Self {
            mac,
            station,
            rounds: 0,
            refusals: 0,
            asked: None,
        }
    }

    /// A round: the frames to send, in this order, to one of the neighbours. `None` when it is over
    /// without a verdict, or there is nobody to ask.
    pub fn ask(&mut self, neighbours: &[Ipv4Addr]) -> Option<[Frame; 2]> {
        if self.rounds == ROUNDS || neighbours.is_empty() {
            return None;
        }
        let target = *neighbours.get(usize::from(self.rounds) % neighbours.len())?;
        self.rounds += 1;
        self.asked = Some(target);
        Some([self.mac, self.station].map(|mac| arp::probe(mac, target)))
    }

    /// Takes a frame that the interface received.
    pub fn on_frame(&mut self, packet: &Packet) -> Option<Verdict> {
        if packet.operation != Operation::Reply || self.asked != Some(packet.sender_ip) {
            return None;
        }
        if packet.destination == self.mac {
            return Some(Verdict::Carried);
        }
        if packet.destination == self.station && packet.target_mac == self.station {
            self.asked = None;
            self.refusals += 1;
            return (self.refusals == REFUSALS).then_some(Verdict::Refused);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0xc0, 10, 0, 0, 101]);
    const STATION: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const PEERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 12), Ipv4Addr::new(10, 0, 0, 13)];

    /// What a neighbour says to a question, as a Linux kernel does.
    fn answer(question: &Frame) -> Packet {
        let question = Packet::parse(question).unwrap();
        assert!(question.sender_ip.is_unspecified());
        let mac = Mac([2, 0, 0, 0, 0, question.target_ip.octets()[3]]);
        Packet {
            destination: question.sender_mac,
            source: mac,
            operation: Operation::Reply,
            sender_mac: mac,
            sender_ip: question.target_ip,
            target_mac: question.sender_mac,
            target_ip: question.sender_ip,
        }
    }

    #[test]
    fn an_answer_has_gone_both_ways() {
        let mut trial = Trial::new(MAC, STATION);
        let [from_mac, from_station] = trial.ask(&PEERS).unwrap();
        assert_eq!(Packet::parse(&from_mac).unwrap().source, MAC);
        assert_eq!(Packet::parse(&from_station).unwrap().source, STATION);
        assert_eq!(trial.on_frame(&answer(&from_mac)), Some(Verdict::Carried));
    }

    #[test]
    fn three_answers_to_the_interface_alone_are_a_refusal() {
        let mut trial = Trial::new(MAC, STATION);
        let mut last = None;
        for round in 0..3 {
            assert_eq!(last, None, "{round}");
            let [_, from_station] = trial.ask(&PEERS).unwrap();
            let reply = answer(&from_station);
            assert_eq!(reply.sender_ip, PEERS[round % 2], "each is asked in turn");
            last = trial.on_frame(&reply);
            // An answer counts once.
            if last.is_none() {
                assert_eq!(trial.on_frame(&reply), None);
            }
        }
        assert_eq!(last, Some(Verdict::Refused));
    }

    #[test]
    fn who_answers_nothing_says_nothing() {
        let mut trial = Trial::new(MAC, STATION);
        assert_eq!(trial.ask(&[]), None, "nobody to ask");
        let mut rounds = 0;
        while trial.ask(&PEERS[..1]).is_some() {
            rounds += 1;
        }
        assert_eq!(rounds, ROUNDS);
    }

    #[test]
    fn what_others_say_is_nothing() {
        let mut trial = Trial::new(MAC, STATION);
        let [_, from_station] = trial.ask(&PEERS[..1]).unwrap();
        let reply = answer(&from_station);
        let from_another = Packet {
            sender_ip: PEERS[1],
            ..reply
        };
        let request = Packet {
            operation: Operation::Request,
            ..reply
        };
        let to_all = Packet {
            destination: Mac::BROADCAST,
            ..reply
        };
        for packet in [from_another, request, to_all] {
            for _ in 0..REFUSALS {
                assert_eq!(trial.on_frame(&packet), None, "{packet:?}");
            }
        }
        assert_eq!(trial.refusals, 0);
    }
}
