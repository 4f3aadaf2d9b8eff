//! The packet tracer: a model of the constant rules, walked over the elements of a table.
//!
//! It answers what becomes of the first packet of a connection, the endpoint included: the hash
//! is the kernel's, and what session affinity goes by is remembered ([`Tracer::connect`]). The same
//! cases run against the kernel in `dataplane`'s tests.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::Locality;
use super::element::{Class, Element, Front, SlotsId};
use super::jhash::{SEED, jhash, scale};
use crate::net::{Family, Protocol};

/// Where a packet enters the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin<'a> {
    /// A socket of this host sent it, from an address of this host.
    Host,
    /// It came in by the interface with this name.
    Interface(&'a str),
}

impl<'a> Origin<'a> {
    const fn interface(self) -> Option<&'a str> {
        match self {
            Self::Host => None,
            Self::Interface(name) => Some(name),
        }
    }
}

/// The first packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Where it enters.
    pub from: Origin<'a>,
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
    members: HashSet<(SlotsId, SocketAddr)>,
    locality: Locality,
    /// Where clients were led to, and until when that counts.
    kept: HashMap<(IpAddr, SlotsId), (SocketAddr, u64)>,
    /// Seconds that have passed.
    now: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: SlotsId,
    class: Class,
    masquerade: bool,
    restricted: bool,
    keep: u32,
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
                Element::Member { id, endpoint } => {
                    tracer.members.insert((id, endpoint));
                }
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
                    keep,
                } => {
                    let entry = Entry {
                        id,
                        class,
                        masquerade,
                        restricted,
                        keep,
                    };
                    tracer.fronts.insert(front, entry);
                }
            }
        }
        tracer
    }
}

impl Tracer {
    /// With these rules for sources.
    #[must_use]
    pub fn with(mut self, locality: Locality) -> Self {
        self.locality = locality;
        self
    }

    /// The same elements changed to `elements`: who was led where stays known.
    #[must_use]
    pub fn changed<'a>(self, elements: impl IntoIterator<Item = &'a Element>) -> Self {
        Self {
            locality: self.locality,
            kept: self.kept,
            now: self.now,
            ..elements.into_iter().collect()
        }
    }

    /// Time passes.
    pub const fn pass(&mut self, seconds: u64) {
        self.now += seconds;
    }

    /// What becomes of `packet`, which is sent: where its client is led to is remembered.
    pub fn connect(&mut self, packet: &Packet<'_>) -> Fate {
        let fate = self.trace(packet);
        let packet = &self.sent_on(packet);
        // Chains `keep-*`.
        if let (Fate::Dnat { to, .. }, Some(entry)) = (fate, self.fronts.get(&front(packet)))
            && entry.keep > 0
        {
            let until = self.now + u64::from(entry.keep);
            let client = (packet.source.ip(), entry.id.of_port());
            self.kept.insert(client, (to, until));
        }
        fate
    }

    /// What becomes of `packet`.
    pub fn trace(&self, packet: &Packet<'_>) -> Fate {
        let front = front(packet);
        let entry = self.fronts.get(&front);
        // Chain `loopback-output`, before all others, and what `guard-prerouting` says of it.
        let loopback = packet.destination.ip().is_loopback() && entry.is_some();
        if loopback && packet.from != Origin::Host {
            return Fate::Drop;
        }
        let packet = &self.sent_on(packet);
        let (source, interface) = (packet.source.ip(), packet.from.interface());
        let pod = self.locality.is_pod(source, interface);
        // Chains `guard-*`, before any rewriting.
        if entry.is_some_and(|entry| entry.restricted && !self.admits(entry.id, packet.source)) {
            return Fate::Drop;
        }
        let hairpin = |to: SocketAddr| source == to.ip() && self.hairpins.contains(&to.ip());
        // Chains `nat-*`: local Pods and the host look into `host` first.
        if (pod || packet.from == Origin::Host)
            && let Some((id, modulus)) = self.hosts.get(&front)
            && let Some(to) = self.pick(*id, *modulus, packet)
        {
            return Fate::Dnat {
                to,
                masquerade: !pod || hairpin(to) || loopback,
            };
        }
        if let Some(entry) = entry
            && let Class::Pick(modulus) = entry.class
            && let Some(to) = self.pick(entry.id, modulus, packet)
        {
            let foreign = self.cluster_ips.contains(&front.address)
                && self.locality.masquerades(source, interface);
            return Fate::Dnat {
                to,
                masquerade: entry.masquerade || hairpin(to) || foreign,
            };
        }
        // Chains `fate-*`: what was not rewritten.
        match entry.map(|entry| entry.class) {
            Some(Class::Drop) => Fate::Drop,
            Some(Class::Reject) => Fate::Reject,
            _ if self.cluster_ips.contains(&front.address) => Fate::Reject,
            // The rules spare this host's own addresses, of which the model knows nothing.
            _ if self.locality.is_cluster_ip(front.address) => Fate::Drop,
            _ => Fate::Pass,
        }
    }

    /// The packet with the source with which it goes on, if it is for a node port on the loopback.
    fn sent_on<'p>(&self, packet: &Packet<'p>) -> Packet<'p> {
        let mut packet = *packet;
        let of_loopback = packet.from == Origin::Host
            && packet.source.ip().is_loopback()
            && packet.destination.ip().is_loopback();
        let family = Family::of(packet.destination.ip());
        if let Some(source) = self.locality.loopback.source(family)
            && of_loopback
            && self.hosts.contains_key(&front(&packet))
        {
            packet.source.set_ip(source);
        }
        packet
    }

    fn admits(&self, id: SlotsId, source: SocketAddr) -> bool {
        let ranges = self.ranges.get(&id).map_or(&[][..], Vec::as_slice);
        ranges.iter().any(|range| range.contains(&source.ip()))
    }

    /// The endpoint that the client is kept at, or the one that the hash picks.
    fn pick(&self, id: SlotsId, modulus: u32, packet: &Packet<'_>) -> Option<SocketAddr> {
        let keeps = self.fronts.get(&front(packet)).is_some_and(|e| e.keep > 0);
        let kept = self.kept.get(&(packet.source.ip(), id.of_port()));
        if let Some((endpoint, until)) = kept
            && keeps
            && *until > self.now
            && self.members.contains(&(id, *endpoint))
        {
            return Some(*endpoint);
        }
        let family = Family::of(packet.destination.ip());
        let index = scale(hash(packet), modulus);
        self.slots.get(&(family, id, index)).copied()
    }
}

fn front(packet: &Packet<'_>) -> Front {
    Front {
        address: packet.destination.ip(),
        protocol: packet.protocol,
        port: packet.destination.port(),
    }
}

/// The hash of a packet's five addresses, laid out as the rules load them.
fn hash(packet: &Packet<'_>) -> u32 {
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
