//! The packet tracer: a model of the constant rules, walked over the elements of a table.
//!
//! It answers what becomes of the first packet of a connection, the endpoint included: the hash
//! is the kernel's. It knows of no earlier connection, which session affinity goes by. The same cases run against the kernel in `dataplane`'s tests.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::element::{Class, Element, Front, SlotsId};
use super::jhash::{SEED, jhash, scale};
use crate::net::{Family, Protocol};

/// Where a packet enters the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A socket of this host sent it.
    Host,
    /// It came in by an interface.
    Interface,
}

/// The first packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it enters.
    pub from: Origin,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its source.
    pub source: SocketAddr,
    /// Its destination.
    pub destination: SocketAddr,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes to an endpoint.
    Dnat {
        /// Which.
        to: SocketAddr,
        /// From this node's address.
        masquerade: bool,
    },
    /// It is discarded.
    Drop,
    /// It is answered with port unreachable.
    Reject,
    /// It is none of ours.
    Pass,
}

/// The elements of a whole table, indexed as the kernel's sets are.
#[derive(Clone, Debug, Default)]
pub struct Tracer {
    slots: HashMap<(Family, SlotsId, u32), SocketAddr>,
    hairpins: HashSet<IpAddr>,
    ranges: HashMap<SlotsId, Vec<IpNet>>,
    cluster_ips: HashSet<IpAddr>,
    hosts: HashMap<Front, (SlotsId, u32)>,
    fronts: HashMap<Front, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: SlotsId,
    class: Class,
    masquerade: bool,
    restricted: bool,
}

impl<'a> FromIterator<&'a Element> for Tracer {
    fn from_iter<T: IntoIterator<Item = &'a Element>>(elements: T) -> Self {
        let mut tracer = Self::default();
        for element in elements {
            match *element {
                Element::Slot {
                    id,
                    index,
                    endpoint,
                } => {
                    let family = Family::of(endpoint.ip());
                    tracer.slots.insert((family, id, index), endpoint);
                }
                Element::Hairpin(address) => {
                    tracer.hairpins.insert(address);
                }
                Element::Range { id, sources } => {
                    tracer.ranges.entry(id).or_default().push(sources);
                }
                // Whom a client was led to before is not known here.
                Element::Member { .. } => {}
                Element::ClusterIp(address) => {
                    tracer.cluster_ips.insert(address);
                }
                Element::Host {
                    front, id, modulus, ..
                } => {
                    tracer.hosts.insert(front, (id, modulus));
                }
                Element::Front {
                    front,
                    id,
                    class,
                    masquerade,
                    restricted,
                    ..
                } => {
                    let entry = Entry {
                        id,
                        class,
                        masquerade,
                        restricted,
                    };
                    tracer.fronts.insert(front, entry);
                }
            }
        }
        tracer
    }
}

impl Tracer {
    /// What becomes of `packet`.
    pub fn trace(&self, packet: &Packet) -> Fate {
        let front = Front {
            address: packet.destination.ip(),
            protocol: packet.protocol,
            port: packet.destination.port(),
        };
        let entry = self.fronts.get(&front);
        // Chains `guard-*`, before any rewriting.
        if entry.is_some_and(|entry| entry.restricted && !self.admits(entry.id, packet.source)) {
            return Fate::Drop;
        }
        // Chains `nat-*`: the host's own connections look into `host` first.
        if packet.from == Origin::Host
            && let Some((id, modulus)) = self.hosts.get(&front)
            && let Some(to) = self.pick(*id, *modulus, packet)
        {
            return Fate::Dnat {
                to,
                masquerade: true,
            };
        }
        if let Some(entry) = entry
            && let Class::Pick(modulus) = entry.class
            && let Some(to) = self.pick(entry.id, modulus, packet)
        {
            let hairpin = packet.source.ip() == to.ip() && self.hairpins.contains(&to.ip());
            return Fate::Dnat {
                to,
                masquerade: entry.masquerade || hairpin,
            };
        }
        // Chains `fate-*`: what was not rewritten.
        match entry.map(|entry| entry.class) {
            Some(Class::Drop) => Fate::Drop,
            Some(Class::Reject) => Fate::Reject,
            _ if self.cluster_ips.contains(&front.address) => Fate::Reject,
            _ => Fate::Pass,
        }
    }

    fn admits(&self, id: SlotsId, source: SocketAddr) -> bool {
        let ranges = self.ranges.get(&id).map_or(&[][..], Vec::as_slice);
        ranges.iter().any(|range| range.contains(&source.ip()))
    }

    fn pick(&self, id: SlotsId, modulus: u32, packet: &Packet) -> Option<SocketAddr> {
        let family = Family::of(packet.destination.ip());
        let index = scale(hash(packet), modulus);
        self.slots.get(&(family, id, index)).copied()
    }
}

/// The hash of a packet's five addresses, laid out as the rules load them.
fn hash(packet: &Packet) -> u32 {
    let mut bytes = Vec::with_capacity(40);
    for address in [packet.source.ip(), packet.destination.ip()] {
        match address {
            IpAddr::V4(address) => bytes.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => bytes.extend_from_slice(&address.octets()),
        }
    }
    bytes.extend_from_slice(&[packet.protocol.number(), 0, 0, 0]);
    bytes.extend_from_slice(&packet.source.port().to_be_bytes());
    bytes.extend_from_slice(&packet.destination.port().to_be_bytes());
    let (words, _) = bytes.as_chunks::<4>();
    let words: Vec<u32> = words.iter().map(|word| u32::from_ne_bytes(*word)).collect();
    jhash(&words, SEED)
}
