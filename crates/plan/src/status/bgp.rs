//! `ServiceBGPStatus`: to which peers this node hands a Service's routes. It is intent: whether a
//! session is up stands elsewhere (`spec/metallb.md` §1.9).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

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

/// What is advertised on this node, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertised {
    addresses: BTreeMap<IpAddr, Claims>,
    services: BTreeMap<ServiceKey, BTreeSet<IpAddr>>,
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
        let old = if claims.is_empty() {
            self.addresses.remove(&address)
        } else {
            self.addresses.insert(address, claims.clone())
        };
        let old = old.unwrap_or_default();
        let mut news = News::default();
        for (service, peers) in &claims {
            if !old.contains_key(service) {
                let addresses = self.services.entry(service.clone()).or_default();
                addresses.insert(address);
                news.began.push(service.clone());
            }
            if old.get(service) != Some(peers) {
                news.touched.insert(service.clone());
            }
        }
        for service in old.into_keys() {
            if claims.contains_key(&service) {
                continue;
            }
            if let Some(addresses) = self.services.get_mut(&service) {
                addresses.remove(&address);
                if addresses.is_empty() {
                    self.services.remove(&service);
                }
            }
            news.touched.insert(service.clone());
            news.ended.push(service);
        }
        news
    }

    /// What is advertised of `address`.
    pub fn claims(&self, address: IpAddr) -> Option<&Claims> {
        self.addresses.get(&address)
    }

    /// All that is advertised.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.keys().copied()
    }

    /// The peers of a Service: the union over its addresses. `None` when there is none.
    pub fn peers(&self, service: &ServiceKey) -> Option<BTreeSet<PeerKey>> {
        let of = |address| self.addresses.get(address)?.get(service);
        let addresses = self.services.get(service)?.iter();
        Some(addresses.filter_map(of).flatten().cloned().collect())
    }
}

/// The status of a `ServiceBGPStatus`.
pub fn bgp_status(
    service: &ServiceKey,
    node: &str,
    peers: &BTreeSet<PeerKey>,
) -> ServiceBGPStatusStatus {
    ServiceBGPStatusStatus {
        node: node.to_owned(),
        service_name: service.name.to_string(),
        service_namespace: service.namespace.to_string(),
        peers: peers.iter().map(ToString::to_string).collect(),
    }
}
