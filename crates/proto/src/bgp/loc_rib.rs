//! Loc-RIB: which of the routes that peers gave count (RFC 4271 §9.1.2).
//!
//! A host needs no single best path: all that are equal up to the tie-breaks by identifier and
//! address count together, as routers do with `multipath-relax` (AS paths of one length). What
//! asks to be left counts least: LOCAL_PREF 0 for GRACEFUL_SHUTDOWN (RFC 8326 §4.3), and last of
//! all for LLGR_STALE (RFC 9494 §4.3).

use std::collections::{BTreeMap, BTreeSet};

use super::{Asn, Attributes, Community, DEFAULT_LOCAL_PREF, LearnedPath, NextHop, Nlri, Prefix};

/// The most next hops of a prefix.
const MOST_HOPS: usize = 32;

/// A route as a peer gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What it says.
    pub path: LearnedPath,
    /// The peer is of another AS.
    pub external: bool,
}

/// The routes of all peers, by prefix. `K` names a peer.
#[derive(Debug)]
pub struct LocRib<K> {
    routes: BTreeMap<Prefix, BTreeMap<(K, u32), Offer>>,
}

impl<K> Default for LocRib<K> {
    fn default() -> Self {
        Self {
            routes: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> LocRib<K> {
    /// A peer's route is there, or there otherwise.
    pub fn insert(&mut self, peer: K, nlri: Nlri, offer: Offer) {
        let offers = self.routes.entry(nlri.prefix).or_default();
        offers.insert((peer, nlri.path_id), offer);
    }

    /// A peer's route is gone.
    pub fn remove(&mut self, peer: &K, nlri: Nlri) {
        if let Some(offers) = self.routes.get_mut(&nlri.prefix) {
            offers.remove(&(peer.clone(), nlri.path_id));
            if offers.is_empty() {
                self.routes.remove(&nlri.prefix);
            }
        }
    }

    /// Every prefix that somebody has a route for.
    pub fn prefixes(&self) -> impl Iterator<Item = Prefix> {
        self.routes.keys().copied()
    }

    /// The next hops of a prefix, in order, none twice; those of the routes that count among the
    /// ones whose next hop is `usable`.
    pub fn select<H: Ord>(
        &self,
        prefix: Prefix,
        usable: impl Fn(&K, &NextHop) -> Option<H>,
    ) -> Vec<H> {
        let offers = self.routes.get(&prefix).into_iter().flatten();
        let mut left: Vec<(&Offer, H)> = offers
            .filter_map(|((peer, _), offer)| Some((offer, usable(peer, &offer.path.next_hop)?)))
            .collect();
        keep_least(&mut left, rank);
        // MED counts only between routes of one neighbouring system (RFC 4271 §9.1.2.2 c).
        let mut least: BTreeMap<Option<Asn>, u32> = BTreeMap::new();
        for (offer, _) in &left {
            let med = med(offer);
            let least = least.entry(neighbour(offer)).or_insert(med);
            *least = med.min(*least);
        }
        left.retain(|(offer, _)| least.get(&neighbour(offer)) == Some(&med(offer)));
        keep_least(&mut left, |offer| !offer.external);
        let hops: BTreeSet<H> = left.into_iter().map(|(_, hop)| hop).collect();
        hops.into_iter().take(MOST_HOPS).collect()
    }
}

fn keep_least<H, O: Ord>(left: &mut Vec<(&Offer, H)>, rank: impl Fn(&Offer) -> O) {
    if let Some(least) = left.iter().map(|(offer, _)| rank(offer)).min() {
        left.retain(|(offer, _)| rank(offer) == least);
    }
}

/// Lower is better, first things first: stale, LOCAL_PREF, length of the path, ORIGIN.
fn rank(offer: &Offer) -> (bool, u32, usize, u8) {
    let attributes: &Attributes = &offer.path.attributes;
    let says = |community| attributes.communities.contains(&community);
    let preference = match attributes.local_pref {
        _ if says(Community::GRACEFUL_SHUTDOWN) => 0,
        Some(preference) if !offer.external => preference,
        _ => DEFAULT_LOCAL_PREF,
    };
    (
        says(Community::LLGR_STALE),
        u32::MAX - preference,
        attributes.as_path.0.len(),
        attributes.origin as u8,
    )
}

fn med(offer: &Offer) -> u32 {
    offer.path.attributes.med.unwrap_or(0)
}

fn neighbour(offer: &Offer) -> Option<Asn> {
    offer.path.attributes.as_path.0.first().copied()
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc};

    use super::{super::*, *};

    /// An offer of an external peer over these systems; `change` makes it another.
    fn offer(hop: u8, path: &[u32], change: impl FnOnce(&mut Attributes, &mut bool)) -> Offer {
        let mut attributes = Attributes {
            as_path: AsPath(path.iter().copied().map(Asn).collect()),
            ..Attributes::default()
        };
        let mut external = true;
        change(&mut attributes, &mut external);
        Offer {
            path: LearnedPath {
                next_hop: NextHop::V4(Ipv4Addr::new(10, 0, 0, hop)),
                attributes: Arc::new(attributes),
            },
            external,
        }
    }

    fn chosen(offers: &[Offer]) -> Vec<u8> {
        let prefix: Prefix = "192.0.2.0/24".parse().unwrap();
        let mut rib = LocRib::default();
        for (peer, offer) in offers.iter().enumerate() {
            rib.insert(peer, prefix.into(), offer.clone());
        }
        rib.select(prefix, |_, hop| match hop {
            NextHop::V4(hop) => Some(hop.octets()[3]).filter(|last| *last != 99),
            _ => None,
        })
    }

    #[test]
    fn what_counts_is_decided_in_the_order_of_the_rfc() {
        let plain = |hop, path: &[u32]| offer(hop, path, |_, _| ());
        let internal = |hop, pref| {
            offer(hop, &[1, 2], |attributes, external| {
                attributes.local_pref = Some(pref);
                *external = false;
            })
        };
        let with = |hop, community| {
            offer(hop, &[1], |attributes, _| {
                attributes.communities.push(community);
            })
        };
        let med = |hop, first, med| {
            offer(hop, &[first, 9], |attributes, _| {
                attributes.med = Some(med);
            })
        };
        let origin = offer(2, &[1], |attributes, _| {
            attributes.origin = Origin::Incomplete;
        });
        let forged = offer(2, &[1, 2], |attributes, _| {
            attributes.local_pref = Some(1000);
        });
        for (what, offers, want) in [
            ("nobody", vec![], vec![]),
            (
                "equal ones together",
                vec![plain(2, &[1]), plain(1, &[2])],
                vec![1, 2],
            ),
            (
                "each hop once",
                vec![plain(1, &[1]), plain(1, &[2])],
                vec![1],
            ),
            (
                "shorter path",
                vec![plain(1, &[1, 2]), plain(2, &[3])],
                vec![2],
            ),
            ("origin", vec![plain(1, &[1]), origin], vec![1]),
            (
                "preference before path",
                vec![plain(1, &[1]), internal(2, 200)],
                vec![2],
            ),
            (
                "a preference from outside says nothing",
                vec![plain(1, &[1]), forged],
                vec![1],
            ),
            (
                "external before internal",
                vec![plain(1, &[1, 2]), internal(2, 100)],
                vec![1],
            ),
            (
                "asks to be left",
                vec![with(1, Community::GRACEFUL_SHUTDOWN), plain(2, &[1, 2])],
                vec![2],
            ),
            (
                "asks to be left, alone",
                vec![with(1, Community::GRACEFUL_SHUTDOWN)],
                vec![1],
            ),
            (
                "stale",
                vec![
                    with(1, Community::LLGR_STALE),
                    with(2, Community::GRACEFUL_SHUTDOWN),
                ],
                vec![2],
            ),
            (
                "MED of one system",
                vec![med(1, 7, 5), med(2, 7, 4), med(3, 8, 9)],
                vec![2, 3],
            ),
            (
                "no MED is the least",
                vec![med(1, 7, 5), plain(2, &[7, 9])],
                vec![2],
            ),
            (
                "unusable ones do not count",
                vec![plain(99, &[1]), plain(2, &[1, 2])],
                vec![2],
            ),
        ] {
            assert_eq!(chosen(&offers), want, "{what}");
        }
        let many: Vec<Offer> = (100..180).map(|hop| plain(hop, &[1])).collect();
        assert_eq!(chosen(&many).len(), MOST_HOPS);
    }

    #[test]
    fn each_path_of_a_peer_is_its_own() {
        let prefix: Prefix = "192.0.2.0/24".parse().unwrap();
        let nlri = |path_id| Nlri { prefix, path_id };
        let mut rib = LocRib::default();
        rib.insert("a", nlri(1), offer(1, &[1], |_, _| ()));
        rib.insert("a", nlri(2), offer(2, &[1], |_, _| ()));
        rib.insert("b", nlri(1), offer(3, &[1], |_, _| ()));
        let hops = |rib: &LocRib<&str>| rib.select(prefix, |_, hop| Some(hop.address()));
        assert_eq!(hops(&rib).len(), 3);
        rib.remove(&"a", nlri(1));
        rib.remove(&"a", nlri(7));
        assert_eq!(hops(&rib).len(), 2);
        rib.remove(&"a", nlri(2));
        rib.remove(&"b", nlri(1));
        assert_eq!(rib.prefixes().count(), 0);
    }
}
