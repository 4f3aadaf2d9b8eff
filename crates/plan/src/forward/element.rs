//! Elements: what changes in the rule set when a Service does.
//!
//! The rules are constant. All that depends on Services stands in a few sets and maps, and this
//! is the type of their elements. Elements order by dependency: a [`Element::Front`], which lets
//! traffic in, comes after all that it leads to, so writing in order never opens a door to an
//! empty room; deletion goes the other way.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::net::{Family, Protocol};

/// An address, protocol and port that clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Front {
    /// The address.
    pub address: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = SocketAddr::new(self.address, self.port);
        write!(f, "{at}/{}", self.protocol)
    }
}

/// Names the slots of one service port under one policy: 64 bits of a digest, the same on every
/// node and after every restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlotsId(u64);

impl SlotsId {
    /// The id with these bits.
    pub const fn new(bits: u64) -> Self {
        Self(bits)
    }

    /// The bit that tells policy Local from policy Cluster.
    pub const LOCAL: u64 = 1;

    /// Its bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// What both policies of a service port have alike: clients are remembered by it.
    pub const fn of_port(self) -> Self {
        Self(self.0 & !Self::LOCAL)
    }
}

impl fmt::Display for SlotsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What becomes of a new connection to a front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// The hash of its addresses, scaled to 0..n, picks the slot that names the endpoint.
    Pick(u32),
    /// Silence: endpoints exist, but the policy keeps them from this node.
    Drop,
    /// ICMP port unreachable: nobody serves this.
    Reject,
}

/// One element of one set. Of two elements with equal [`Element::key`] only one can be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Element {
    /// Map `slot`: id and index to endpoint. Shared by all addresses of a service port.
    Slot {
        /// Whose.
        id: SlotsId,
        /// Which, below the class's number.
        index: u32,
        /// Where to.
        endpoint: SocketAddr,
    },
    /// Set `member`: an endpoint that clients may be kept at (session affinity).
    Member {
        /// Whose.
        id: SlotsId,
        /// It.
        endpoint: SocketAddr,
    },
    /// Set `hairpin`: an endpoint that reaches itself through a front must be masqueraded.
    Hairpin(IpAddr),
    /// Set `range`: sources that may connect to restricted fronts with this id.
    Range {
        /// Whose.
        id: SlotsId,
        /// The sources.
        sources: IpNet,
    },
    /// Set `clusterip`: an address whose ports without a front are rejected.
    ClusterIp(IpAddr),
    /// Map `host`: connections from this host itself, and from local Pods, to an external front
    /// with policy Local go to any endpoint, as kube-proxy does; the host's are masqueraded.
    Host {
        /// Where the client connects to.
        front: Front,
        /// The slots for policy Cluster.
        id: SlotsId,
        /// How many they are.
        modulus: u32,
        /// Session affinity: how long a client is kept at its endpoint, in seconds; 0 for none.
        keep: u32,
    },
    /// Map `front`: where clients connect to.
    Front {
        /// Address, protocol and port.
        front: Front,
        /// The slots it leads to.
        id: SlotsId,
        /// What becomes of new connections.
        class: Class,
        /// The source becomes this node's address, so that replies come back this way.
        masquerade: bool,
        /// Only sources in [`Element::Range`] with this id may connect.
        restricted: bool,
        /// Session affinity: how long a client is kept at its endpoint, in seconds; 0 for none.
        keep: u32,
    },
}

/// An element without its value: what it is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ElementKey {
    /// See [`Element::Slot`].
    Slot(Family, SlotsId, u32),
    /// See [`Element::Member`].
    Member(SlotsId, SocketAddr),
    /// See [`Element::Hairpin`].
    Hairpin(IpAddr),
    /// See [`Element::Range`].
    Range(SlotsId, IpNet),
    /// See [`Element::ClusterIp`].
    ClusterIp(IpAddr),
    /// See [`Element::Host`].
    Host(Front),
    /// See [`Element::Front`].
    Front(Front),
}

impl Element {
    /// What it is found by.
    pub const fn key(&self) -> ElementKey {
        match *self {
            Self::Slot {
                id,
                index,
                endpoint,
            } => ElementKey::Slot(Family::of(endpoint.ip()), id, index),
            Self::Member { id, endpoint } => ElementKey::Member(id, endpoint),
            Self::Hairpin(address) => ElementKey::Hairpin(address),
            Self::Range { id, sources } => ElementKey::Range(id, sources),
            Self::ClusterIp(address) => ElementKey::ClusterIp(address),
            Self::Host { front, .. } => ElementKey::Host(front),
            Self::Front { front, .. } => ElementKey::Front(front),
        }
    }

    /// It may come from several service ports at once, and stays while one of them needs it.
    pub const fn is_shared(&self) -> bool {
        matches!(self, Self::Hairpin(_) | Self::ClusterIp(_))
    }
}

/// Elements in order, without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elements(Vec<Element>);

impl Elements {
    /// The elements in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Element> {
        self.0.iter()
    }

    /// How many.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// None.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps those that `keep` says yes to.
    pub(super) fn retain(&mut self, keep: impl FnMut(&Element) -> bool) {
        self.0.retain(keep);
    }

    /// What must go and what must come to turn `self` into `new`, each in order. An element whose
    /// value changes is in both.
    pub fn diff(&self, new: &Self) -> (Vec<Element>, Vec<Element>) {
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        let (mut old, mut new) = (self.0.iter().peekable(), new.0.iter().peekable());
        loop {
            match (old.peek(), new.peek()) {
                (Some(a), Some(b)) if a == b => {
                    old.next();
                    new.next();
                }
                (Some(a), Some(b)) if a < b => gone.extend(old.next()),
                (Some(_), None) => gone.extend(old.next()),
                (_, Some(_)) => come.extend(new.next()),
                (None, None) => return (gone, come),
            }
        }
    }
}

impl FromIterator<Element> for Elements {
    fn from_iter<T: IntoIterator<Item = Element>>(iter: T) -> Self {
        let mut elements: Vec<_> = iter.into_iter().collect();
        elements.sort_unstable();
        elements.dedup();
        Self(elements)
    }
}

impl<'a> IntoIterator for &'a Elements {
    type Item = &'a Element;
    type IntoIter = std::slice::Iter<'a, Element>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
