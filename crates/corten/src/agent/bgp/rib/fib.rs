//! What the kernel should have of the received routes, against what it has. Pure.
//!
//! Routes that an earlier agent left are adopted: they stay as they are until the peers of their
//! table have sent all they have (RFC 4724 §4.1 defers the choice likewise), or time is over.

use std::collections::{BTreeMap, BTreeSet};

use linux::netlink::{Hop, Interface};
use proto::bgp::adj_in::Change;
use proto::bgp::loc_rib::{LocRib, Offer};
use proto::bgp::{Nlri, Prefix};

use super::hop::{Origin, hop};
use super::{Giver, Message};

/// A route in the kernel: table and destination.
pub(super) type Key = (u32, Prefix);

#[derive(Debug, Default)]
struct Source {
    table: u32,
    origin: Origin,
    given: BTreeSet<Nlri>,
}

#[derive(Debug, Default)]
pub(super) struct Fib {
    tables: BTreeMap<u32, LocRib<Giver>>,
    peers: BTreeMap<Giver, Source>,
    /// What the kernel has of ours.
    kernel: BTreeMap<Key, Vec<Hop>>,
    /// Those of it that an earlier agent made and that nobody has confirmed.
    adopted: BTreeSet<Key>,
    /// Peers that have not sent all yet, with their table.
    awaited: BTreeMap<Giver, u32>,
    /// Every peer of the configuration is known.
    ready: bool,
    /// Nobody is waited for any more.
    late: bool,
    /// The kernel was read once.
    read: bool,
    dirty: BTreeSet<Key>,
}

impl Fib {
    /// What the kernel has of ours, read anew.
    pub(super) fn found(&mut self, kernel: BTreeMap<Key, Vec<Hop>>) {
        if self.read {
            self.adopted.retain(|key| kernel.contains_key(key));
        } else {
            self.adopted = kernel.keys().copied().collect();
            self.read = true;
        }
        self.dirty.extend(self.kernel.keys().chain(kernel.keys()));
        for (table, rib) in &self.tables {
            let keys = rib.prefixes().map(|prefix| (*table, prefix));
            self.dirty.extend(keys);
        }
        self.kernel = kernel;
        self.release();
    }

    /// News of a peer.
    pub(super) fn take(&mut self, message: Message) {
        match message {
            Message::Expect(peer, Some(table)) => {
                self.awaited.insert(peer, table);
            }
            Message::Expect(peer, None) | Message::Complete(peer) => {
                self.awaited.remove(&peer);
            }
            Message::Gone(peer) => {
                self.awaited.remove(&peer);
                self.forget(&peer);
            }
            Message::Ready => self.ready = true,
            Message::Routes {
                giver: peer,
                table,
                origin,
                changes,
            } => self.change(peer, table, origin, changes),
        }
        self.release();
    }

    /// The time for peers to come back is over.
    pub(super) fn expire(&mut self) {
        self.late = true;
        self.release();
    }

    /// Whether an earlier agent's routes are still there.
    pub(super) fn waits(&self) -> bool {
        !(self.read && self.adopted.is_empty())
    }

    /// How many routes the kernel has of ours.
    pub(super) fn len(&self) -> usize {
        self.kernel.len()
    }

    /// Whether [`Fib::next`] may have something.
    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// A route that the kernel should have otherwise, with its next hops (none: it should go), and
    /// whether the kernel has it.
    pub(super) fn next(&mut self, interfaces: &[Interface]) -> Option<(Key, Vec<Hop>, bool)> {
        while let Some(key) = self.dirty.pop_first() {
            if self.adopted.contains(&key) {
                continue;
            }
            let wanted = self.wanted(key, interfaces);
            let known = self.kernel.get(&key);
            if known.map_or(&[][..], Vec::as_slice) != wanted {
                return Some((key, wanted, known.is_some()));
            }
        }
        None
    }

    /// The kernel has it so now.
    pub(super) fn done(&mut self, key: Key, hops: Vec<Hop>) {
        if hops.is_empty() {
            self.kernel.remove(&key);
        } else {
            self.kernel.insert(key, hops);
        }
    }

    fn wanted(&self, (table, prefix): Key, interfaces: &[Interface]) -> Vec<Hop> {
        let Some(rib) = self.tables.get(&table) else {
            return Vec::new();
        };
        rib.select(prefix, |peer, next_hop| {
            let source = self.peers.get(peer)?;
            hop(next_hop, &source.origin, interfaces)
        })
    }

    fn change(&mut self, peer: Giver, table: u32, origin: Origin, changes: Vec<Change>) {
        if self.peers.get(&peer).is_some_and(|it| it.table != table) {
            self.forget(&peer);
        }
        let source = self.peers.entry(peer.clone()).or_default();
        source.table = table;
        if source.origin != origin {
            // Its other routes may lead elsewhere now.
            self.dirty
                .extend(source.given.iter().map(|nlri| (table, nlri.prefix)));
            source.origin = origin;
        }
        let rib = self.tables.entry(table).or_default();
        for change in changes {
            let nlri = match change {
                Change::Route(nlri, path) => {
                    source.given.insert(nlri);
                    let external = origin.external;
                    rib.insert(peer.clone(), nlri, Offer { path, external });
                    nlri
                }
                Change::Gone(nlri) => {
                    source.given.remove(&nlri);
                    rib.remove(&peer, nlri);
                    nlri
                }
            };
            self.dirty.insert((table, nlri.prefix));
        }
    }

    fn forget(&mut self, peer: &Giver) {
        let Some(source) = self.peers.remove(peer) else {
            return;
        };
        let Some(rib) = self.tables.get_mut(&source.table) else {
            return;
        };
        for nlri in source.given {
            rib.remove(peer, nlri);
            self.dirty.insert((source.table, nlri.prefix));
        }
    }

    /// Lets go of adopted routes that nobody is awaited for.
    fn release(&mut self) {
        if !self.ready && !self.late {
            return;
        }
        let (awaited, late) = (&self.awaited, self.late);
        let free = |key: &Key| late || !awaited.values().any(|table| *table == key.0);
        self.dirty.extend(self.adopted.extract_if(.., free));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use linux::netlink::LinkFlags;
    use proto::bgp::{Attributes, LearnedPath, NextHop};

    use super::*;

    const TABLE: u32 = 254;

    fn interfaces() -> Vec<Interface> {
        vec![Interface {
            index: 2,
            name: "eth0".to_owned(),
            mac: None,
            up: true,
            carrier: true,
            flags: LinkFlags::default(),
            master: None,
            mtu: 1500,
            addresses: vec![([10, 0, 0, 11].into(), 24)],
        }]
    }

    fn prefix(text: &str) -> Prefix {
        text.parse().expect("a prefix")
    }

    fn giver(peer: &str) -> Giver {
        (peer.into(), 0)
    }

    fn hops(last: &[u8]) -> Vec<Hop> {
        let hop = |last: &u8| Hop {
            via: [10, 0, 0, *last].into(),
            device: 2,
        };
        last.iter().map(hop).collect()
    }

    fn routes(peer: &str, last: u8, prefixes: &[&str]) -> Message {
        let path = LearnedPath {
            next_hop: NextHop::V4([10, 0, 0, last].into()),
            attributes: Arc::new(Attributes::default()),
        };
        Message::Routes {
            giver: giver(peer),
            table: TABLE,
            origin: Origin {
                external: true,
                device: Some(2),
                vrf: None,
            },
            changes: prefixes
                .iter()
                .map(|text| Change::Route(prefix(text).into(), path.clone()))
                .collect(),
        }
    }

    fn gone(peer: &str, text: &str) -> Message {
        Message::Routes {
            giver: giver(peer),
            table: TABLE,
            origin: Origin {
                external: true,
                device: Some(2),
                vrf: None,
            },
            changes: vec![Change::Gone(prefix(text).into())],
        }
    }

    /// Brings the kernel about; what was done to it.
    fn apply(fib: &mut Fib) -> Vec<(String, Vec<Hop>, bool)> {
        let mut done = Vec::new();
        while let Some((key, hops, known)) = fib.next(&interfaces()) {
            fib.done(key, hops.clone());
            done.push((key.1.to_string(), hops, known));
        }
        done
    }

    fn fresh() -> Fib {
        let mut fib = Fib::default();
        fib.found(BTreeMap::new());
        fib.take(Message::Ready);
        fib
    }

    #[test]
    fn peers_share_a_prefix_and_leave_it() {
        let mut fib = fresh();
        let net = "192.0.2.0/24".to_owned();
        fib.take(routes("a", 1, &[&net, "198.51.100.0/24"]));
        fib.take(routes("b", 2, &[&net]));
        let other = ("198.51.100.0/24".to_owned(), hops(&[1]), false);
        assert_eq!(
            apply(&mut fib),
            [(net.clone(), hops(&[1, 2]), false), other.clone()]
        );
        assert_eq!(apply(&mut fib), []);
        fib.take(gone("b", &net));
        assert_eq!(apply(&mut fib), [(net.clone(), hops(&[1]), true)]);
        fib.take(Message::Gone(giver("a")));
        let ended = [(net, vec![], true), (other.0, vec![], true)];
        assert_eq!(apply(&mut fib), ended);
        assert_eq!(fib.len(), 0);
    }

    #[test]
    fn what_the_kernel_lost_is_put_back_and_what_it_refused_is_tried_again() {
        let mut fib = fresh();
        fib.take(routes("a", 1, &["192.0.2.0/24"]));
        assert_eq!(apply(&mut fib).len(), 1);
        fib.found(BTreeMap::new());
        assert_eq!(apply(&mut fib).len(), 1);
        // Not done: it comes again when the kernel is read again.
        fib.take(routes("a", 2, &["192.0.2.0/24"]));
        assert!(fib.next(&interfaces()).is_some());
        fib.found(BTreeMap::from([(
            (TABLE, prefix("192.0.2.0/24")),
            hops(&[1]),
        )]));
        let again = [("192.0.2.0/24".to_owned(), hops(&[2]), true)];
        assert_eq!(apply(&mut fib), again);
        // Without its interface the next hop leads nowhere.
        fib.found(BTreeMap::from([(
            (TABLE, prefix("192.0.2.0/24")),
            hops(&[2]),
        )]));
        let ended = fib.next(&[]).map(|(_, hops, _)| hops);
        assert_eq!(ended, Some(vec![]));
    }

    fn adopting(of: &[&str]) -> Fib {
        let mut fib = Fib::default();
        fib.found(
            of.iter()
                .map(|text| ((TABLE, prefix(text)), hops(&[1, 2])))
                .collect(),
        );
        fib
    }

    #[test]
    fn adopted_routes_stay_until_their_peers_have_said_all() {
        let (kept, lost, new) = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24");
        let mut fib = adopting(&[kept, lost]);
        fib.take(Message::Expect(giver("a"), Some(TABLE)));
        fib.take(Message::Expect(giver("b"), Some(TABLE)));
        fib.take(Message::Expect(giver("elsewhere"), Some(7)));
        fib.take(Message::Ready);
        fib.take(routes("a", 1, &[kept, new]));
        fib.take(Message::Complete(giver("a")));
        // One of two hops is back: the other is not taken away before its peer had its say.
        assert_eq!(apply(&mut fib), [(new.to_owned(), hops(&[1]), false)]);
        assert!(fib.waits());
        fib.take(routes("b", 2, &[kept]));
        fib.take(Message::Complete(giver("b")));
        assert_eq!(apply(&mut fib), [(lost.to_owned(), vec![], true)]);
        assert!(!fib.waits());
    }

    #[test]
    fn adopted_routes_go_when_nobody_is_configured_to_give_them_or_in_time() {
        let net = "192.0.2.0/24";
        let went = [(net.to_owned(), vec![], true)];
        let mut fib = adopting(&[net]);
        assert_eq!(apply(&mut fib), [], "the configuration is not known yet");
        fib.take(Message::Ready);
        assert_eq!(apply(&mut fib), went);

        let mut fib = adopting(&[net]);
        fib.take(Message::Expect(giver("a"), Some(TABLE)));
        fib.take(Message::Ready);
        assert_eq!(apply(&mut fib), []);
        // A link changes: the kernel is read again, and nothing is forgotten.
        fib.found(BTreeMap::from([((TABLE, prefix(net)), hops(&[1]))]));
        assert_eq!(apply(&mut fib), []);
        fib.expire();
        assert_eq!(apply(&mut fib), went);

        let mut fib = adopting(&[net]);
        fib.take(Message::Expect(giver("a"), Some(TABLE)));
        fib.take(Message::Ready);
        fib.take(Message::Expect(giver("a"), None));
        assert_eq!(apply(&mut fib), went, "it takes none any more");
    }
}
