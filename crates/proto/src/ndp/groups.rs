//! Solicited-node groups (RFC 4291 §2.7.1): which ones an interface must be in.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv6Addr,
};

use crate::ethernet::Mac;

/// `ff02::1:ff00:0/104` with the address's last 24 bits (RFC 4291 §2.7.1).
pub fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b] = ip.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (a & 0xff), b)
}

/// The Ethernet group of an IPv6 group: `33:33` and its last 32 bits (RFC 2464 §7).
pub fn multicast_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// What to do at the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Join this group.
    Join(Ipv6Addr),
    /// Leave this group.
    Leave(Ipv6Addr),
}

/// The groups of one interface, each with the addresses that need it: several addresses can share
/// a group. Addresses and not counts, so that an address added twice does no harm.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    members: BTreeMap<Ipv6Addr, BTreeSet<Ipv6Addr>>,
}

impl Groups {
    /// An address is announced from now on.
    pub fn add(&mut self, ip: Ipv6Addr) -> Option<Change> {
        let group = solicited_node(ip);
        let addresses = self.members.entry(group).or_default();
        let first = addresses.is_empty();
        addresses.insert(ip);
        first.then_some(Change::Join(group))
    }

    /// An address is no longer announced.
    pub fn remove(&mut self, ip: Ipv6Addr) -> Option<Change> {
        let group = solicited_node(ip);
        let addresses = self.members.get_mut(&group)?;
        addresses.remove(&ip);
        if !addresses.is_empty() {
            return None;
        }
        self.members.remove(&group);
        Some(Change::Leave(group))
    }

    /// All groups, in order: what a new socket must join.
    pub fn iter(&self) -> impl Iterator<Item = Ipv6Addr> + '_ {
        self.members.keys().copied()
    }
}
