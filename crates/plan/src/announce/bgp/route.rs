//! The routes of one prefix: what each peer of a node gets.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::claim::claim;
use super::session::{Drain, Families};
use super::weight::Bandwidth;
use super::{PeerKey, PeerSession};
use crate::config::{BgpAdvertisement, CommunityValue, Peer};
use crate::name::Name;
use crate::net::Family;
use crate::world::{Node, Policy, Service, World};

/// RFC 8326.
pub const GRACEFUL_SHUTDOWN: CommunityValue = CommunityValue::Standard(65535, 0);

/// LOCAL_PREF where none is set.
const DEFAULT_LOCAL_PREF: u32 = 100;

/// What a route says besides its prefix. ORIGIN is IGP, the path is our AS number towards external
/// peers and empty towards internal ones, the next hop is the session's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// LOCAL_PREF, for internal peers only; `None`: 100.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC, sent also when it is 0 (`spec/bgp.md` A2.1).
    pub med: u32,
    /// How many times more our AS number stands in the path.
    pub prepend: u8,
    /// Communities of both kinds, in ascending order.
    pub communities: BTreeSet<CommunityValue>,
    /// The weight.
    pub bandwidth: Option<Bandwidth>,
    /// Towards a hub: the address of each node that advertises, with its weight. Elsewhere there
    /// are none, and the next hop is the session's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hops: BTreeMap<IpAddr, Option<Bandwidth>>,
}

/// How many different values [`Known`] remembers: few prefixes differ.
const DIFFERENT: usize = 16;

/// What was last said of prefixes: those that say the same, to whomever, share it.
#[derive(Debug, Default)]
pub(super) struct Known(pub(super) VecDeque<Arc<Attributes>>);

impl Known {
    fn share(&mut self, attributes: Attributes) -> Arc<Attributes> {
        if let Some(known) = self.0.iter().find(|known| ***known == attributes) {
            return known.clone();
        }
        let new = Arc::new(attributes);
        self.0.truncate(DIFFERENT - 1);
        self.0.push_front(new.clone());
        new
    }
}

/// One node as a speaker.
#[derive(Debug)]
pub(super) struct Speaker<'w> {
    pub(super) world: &'w World,
    pub(super) me: &'w Name,
    pub(super) node: &'w Node,
    /// The peers that it holds sessions with.
    pub(super) peers: Vec<&'w Peer>,
    /// Towards all of them.
    pub(super) drain: Option<Drain>,
}

impl<'w> Speaker<'w> {
    /// The node called `me`; `None` when it is not known.
    pub(super) fn find(world: &'w World, me: &str) -> Option<Self> {
        let (me, node) = world.node_named(me)?;
        // Routers close the sessions of two speakers on one address in turn (`spec/bgp.md` T4).
        let alone = !world.rivals().speaker_on(me);
        let peers = world.config().bgp.peers.values().filter(|_| alone);
        let state = world.node_state(me);
        let drain = if world.excluded(node) {
            Some(Drain::Excluded)
        } else {
            state
                .is_some_and(|state| state.draining)
                .then_some(Drain::Asked)
        };
        Some(Self {
            world,
            me,
            node,
            peers: peers.filter(|peer| peer.on_node(&node.labels)).collect(),
            drain,
        })
    }

    /// Why `peer` is to be left, if it is.
    pub(super) fn drain_of(&self, peer: &Peer) -> Option<Drain> {
        let cordoned = self.node.cordoned && peer.drain_on_cordon;
        self.drain.or_else(|| cordoned.then_some(Drain::Cordoned))
    }

    /// Its sessions, and whether they drain.
    pub(super) fn sessions(&self) -> BTreeMap<PeerKey, (PeerSession, Option<Drain>)> {
        let peers = self.peers.iter();
        peers
            .map(|peer| {
                let session = PeerSession::of(self, peer);
                (peer.name.clone(), (session, self.drain_of(peer)))
            })
            .collect()
    }

    /// What each peer gets of `prefix`.
    pub(super) fn routes(
        &self,
        prefix: IpNet,
        known: &mut Known,
    ) -> BTreeMap<PeerKey, Arc<Attributes>> {
        let family = Family::of(prefix.addr());
        let peers: Vec<&Peer> = self
            .peers
            .iter()
            .copied()
            .filter(|peer| Families::of(peer).carries(family))
            .collect();
        if peers.is_empty() {
            return BTreeMap::new();
        }
        let live = self.live(prefix, family);
        let hub = peers.iter().any(|peer| peer.add_path);
        let others = if hub {
            self.others(prefix, family)
        } else {
            Vec::new()
        };
        let mut routes = BTreeMap::new();
        for peer in peers {
            let attributes = match peer.add_path {
                true => self.of_all(&live, &others, peer, family),
                false => self.attributes(&live, peer),
            };
            if let Some(attributes) = attributes {
                routes.insert(peer.name.clone(), known.share(attributes));
            }
        }
        routes
    }

    /// The other nodes that are there, with what is behind `prefix` on each.
    fn others(&self, prefix: IpNet, family: Family) -> Vec<(Self, Live<'w>)> {
        let names = self.world.node_names();
        names
            .filter(|name| *name != self.me && self.world.presumed_alive(name))
            .filter_map(|name| Self::find(self.world, name))
            .map(|speaker| {
                let live = speaker.live(prefix, family);
                (speaker, live)
            })
            .collect()
    }

    /// What a hub gets: the union of what the nodes would say, with all their addresses. A node
    /// that is to be left is none of them, but for this one, whose session ends with it.
    fn of_all(
        &self,
        own: &Live<'w>,
        others: &[(Self, Live<'w>)],
        peer: &Peer,
        family: Family,
    ) -> Option<Attributes> {
        let staying = others.iter().filter(|(it, _)| it.drain_of(peer).is_none());
        let staying = staying.map(|(speaker, live)| (speaker, live));
        let mut hops = BTreeMap::new();
        let mut all = Live {
            ads: BTreeMap::new(),
            weight: None,
        };
        for (speaker, live) in std::iter::once((self, own)).chain(staying) {
            if let Some(address) = speaker.node.primary(family)
                && let Some(attributes) = speaker.attributes(live, peer)
            {
                hops.insert(address, attributes.bandwidth);
                all.ads
                    .extend(live.ads.iter().map(|(name, ad)| (*name, *ad)));
            }
        }
        let attributes = self.attributes(&all, peer)?;
        Some(Attributes { hops, ..attributes })
    }

    /// What is behind `prefix` on this node.
    fn live(&self, prefix: IpNet, family: Family) -> Live<'w> {
        let bgp = &self.world.config().bgp;
        let reaching: Vec<&BgpAdvertisement> = bgp
            .advertisements
            .values()
            .filter(|ad| ad.length(family) == prefix.prefix_len() && self.reaches(ad, prefix))
            .collect();
        let weighs = reaching.iter().any(|ad| ad.weighted);
        let here = reaching
            .iter()
            .filter(|ad| ad.allows_node(&self.node.labels))
            .count();
        let mut live = Live {
            ads: BTreeMap::new(),
            weight: weighs.then_some(0),
        };
        if here == 0 {
            return live;
        }
        for address in self.world.addresses_within(prefix) {
            for service in self.world.holders(address) {
                if weighs && !self.weighs(&reaching, service, address) {
                    live.weight = None;
                }
                let Ok(ads) = claim(self, service, address) else {
                    continue;
                };
                let mut any = false;
                for ad in ads {
                    if ad.length(family) == prefix.prefix_len() {
                        any = true;
                        live.ads.insert(&ad.name, ad);
                    }
                }
                if any && let Some(weight) = &mut live.weight {
                    *weight += self.weight(service, family);
                }
                // One Service behind an aggregate is enough, unless it is weighed.
                if !weighs && live.ads.len() == here {
                    return live;
                }
            }
        }
        live
    }

    /// Whether some pool of `ad` has addresses in `prefix`.
    fn reaches(&self, ad: &BgpAdvertisement, prefix: IpNet) -> bool {
        let pools = ad.pools.iter();
        let mut blocks = pools
            .filter_map(|pool| self.world.config().pools.get(pool))
            .flat_map(|pool| &pool.blocks);
        blocks.any(|block| block.contains(&prefix) || prefix.contains(block))
    }

    /// Whether every advertisement by which some node announces `address` for `service` in this
    /// prefix asks for weights.
    fn weighs(&self, reaching: &[&BgpAdvertisement], service: &Service, address: IpAddr) -> bool {
        let Some(pool) = self.world.allocator().pool_of(address) else {
            return true;
        };
        reaching
            .iter()
            .filter(|ad| ad.pools.contains(&pool.name) && ad.allows_service(&service.labels))
            .all(|ad| ad.weighted)
    }

    fn weight(&self, service: &Service, family: Family) -> usize {
        match service.external_policy {
            Policy::Cluster => 1,
            Policy::Local => {
                let endpoints = self.world.endpoints();
                endpoints.ready_on(&service.key, family, self.me)
            }
        }
    }

    /// What `peer` gets; `None`: no advertisement is for it. Of several that differ the most
    /// attractive values hold, and all communities.
    fn attributes(&self, live: &Live<'_>, peer: &Peer) -> Option<Attributes> {
        let ads = || live.ads.values().filter(|ad| ad.allows_peer(&peer.name));
        let local_prefs = ads().map(|ad| ad.local_pref);
        let mut attributes = Attributes {
            local_pref: local_prefs.max_by_key(|wanted| wanted.unwrap_or(DEFAULT_LOCAL_PREF))?,
            med: ads().map(|ad| ad.med).min()?,
            prepend: ads().map(|ad| ad.prepend).min()?,
            communities: ads().flat_map(|ad| ad.communities.clone()).collect(),
            bandwidth: live
                .weight
                .map(|weight| Bandwidth::of(weight, peer.link_bandwidth)),
            hops: BTreeMap::new(),
        };
        if self.drain_of(peer).is_some() {
            attributes.local_pref = Some(0);
            attributes.communities.insert(GRACEFUL_SHUTDOWN);
        }
        Some(attributes)
    }

    /// The prefixes that stand for `address` on some node.
    pub(super) fn prefixes(&self, address: IpAddr) -> BTreeSet<IpNet> {
        let family = Family::of(address);
        let pool = self.world.allocator().pool_of(address);
        pool.into_iter()
            .flat_map(|pool| {
                let ads = self.world.config().bgp.advertisements.values();
                ads.filter(|ad| ad.pools.contains(&pool.name))
            })
            .map(|ad| masked(address, ad.length(family)))
            .collect()
    }
}

/// The advertisements that count for one prefix on one node.
#[derive(Debug)]
struct Live<'w> {
    ads: BTreeMap<&'w Name, &'w BgpAdvertisement>,
    /// `None`: no weights are given.
    weight: Option<usize>,
}

/// The prefix of this length that holds `address`.
pub(super) fn masked(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length).map_or_else(|_| IpNet::from(address), |net| net.trunc())
}
