//! `ServiceBGPStatus`: to which peers this node hands a Service's routes. It is intent: whether a
//! session is up stands elsewhere (`spec/metallb.md` §1.9).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::metallb::ServiceBGPStatusStatus;

use crate::announce::bgp::{PeerKey, explain};
use crate::name::ServiceKey;
use crate::world::World;

/// The Services that an address is advertised for, each with its peers.
pub type Claims = BTreeMap<ServiceKey, BTreeSet<PeerKey>>;

/// For whom `me` advertises `address`, and to whom.
pub fn claims(world: &World, me: &str, address: IpAddr) -> Claims {
    let claim = |service: ServiceKey| {
        let routes = explain(world, me, &service, address).ok()?;
        Some((service, routes.into_iter().map(|(_, peer)| peer).collect()))
    };
    let holders = world.holders(address);
    holders
        .filter_map(|holder| claim(holder.key.clone()))
        .collect()
}

/// Peers in order; most Services share the list.
pub type Peers = Arc<[PeerKey]>;

/// What is advertised on this node, and for whom. There may be many addresses: equal lists of peers
/// are there once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertised {
    /// The Services of each address, in order; nearly always one.
    addresses: BTreeMap<IpAddr, Box<[(ServiceKey, Peers)]>>,
    /// The addresses of each Service, in order.
    services: BTreeMap<ServiceKey, Box<[IpAddr]>>,
    lists: BTreeSet<Peers>,
}

/// What is new for the Services of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// It is advertised for these from now on.
    pub began: Vec<ServiceKey>,
    /// And for these no longer.
    pub ended: Vec<ServiceKey>,
    /// The peers of these may be others, those above among them.
    pub touched: BTreeSet<ServiceKey>,
}

impl Advertised {
    /// `address` is advertised so from now on.
    pub fn set(&mut self, address: IpAddr, claims: Claims) -> News {
        let old = self.addresses.remove(&address).unwrap_or_default();
        let was = |service: &ServiceKey| {
            let found = old.iter().find(|(known, _)| known == service);
            found.map(|(_, peers)| peers)
        };
        let mut news = News::default();
        let mut new = Vec::with_capacity(claims.len());
        for (service, peers) in &claims {
            let peers = self.list(peers);
            let before = was(service);
            if before.is_none() {
                self.add(service, address);
                news.began.push(service.clone());
            }
            if before != Some(&peers) {
                news.touched.insert(service.clone());
            }
            new.push((service.clone(), peers));
        }
        for (service, _) in &old {
            if !claims.contains_key(service) {
                self.remove(service, address);
                news.touched.insert(service.clone());
                news.ended.push(service.clone());
            }
        }
        if !new.is_empty() {
            self.addresses.insert(address, new.into());
        }
        if !old.is_empty() {
            drop(old);
            self.lists.retain(|list| Arc::strong_count(list) > 1);
        }
        news
    }

    /// The list as it is shared.
    fn list(&mut self, peers: &BTreeSet<PeerKey>) -> Peers {
        let peers: Peers = peers.iter().cloned().collect();
        if let Some(known) = self.lists.get(&peers) {
            return known.clone();
        }
        self.lists.insert(peers.clone());
        peers
    }

    fn add(&mut self, service: &ServiceKey, address: IpAddr) {
        match self.services.get_mut(service) {
            Some(addresses) => {
                if let Err(place) = addresses.binary_search(&address) {
                    let mut more = std::mem::take(addresses).into_vec();
                    more.insert(place, address);
                    *addresses = more.into();
                }
            }
            None => {
                self.services.insert(service.clone(), Box::new([address]));
            }
        }
    }

    fn remove(&mut self, service: &ServiceKey, address: IpAddr) {
        let Some(addresses) = self.services.get_mut(service) else {
            return;
        };
        let left = addresses.iter().copied().filter(|it| *it != address);
        *addresses = left.collect();
        if addresses.is_empty() {
            self.services.remove(service);
        }
    }

    /// The peers that a Service's `address` is advertised to; `None`: it is not.
    pub fn peers_at(&self, address: IpAddr, service: &ServiceKey) -> Option<&Peers> {
        let services = self.addresses.get(&address)?.iter();
        let mut found = services.filter(|(known, _)| known == service);
        found.next().map(|(_, peers)| peers)
    }

    /// Whether `address` is advertised for some Service.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.addresses.contains_key(&address)
    }

    /// All that is advertised.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.keys().copied()
    }

    /// The peers of a Service: the union over its addresses. `None` when there is none.
    pub fn peers(&self, service: &ServiceKey) -> Option<Peers> {
        let addresses = self.services.get(service)?;
        let of = |address: &IpAddr| self.peers_at(*address, service);
        if let [address] = &**addresses {
            return of(address).cloned();
        }
        let all = addresses.iter().filter_map(of);
        let union: BTreeSet<PeerKey> = all.flat_map(|peers| peers.iter().cloned()).collect();
        Some(union.into_iter().collect())
    }
}

/// The status of a `ServiceBGPStatus`.
pub fn bgp_status(service: &ServiceKey, node: &str, peers: &[PeerKey]) -> ServiceBGPStatusStatus {
    ServiceBGPStatusStatus {
        node: node.to_owned(),
        service_name: service.name.to_string(),
        service_namespace: service.namespace.to_string(),
        peers: peers.iter().map(ToString::to_string).collect(),
    }
}
