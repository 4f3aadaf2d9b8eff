//! Addresses on `kube-lb0`, for whatever routing daemon a node runs (PureLB's remote addresses,
//! `spec/purelb-openelb-kubevip.md` A.4): on every node that may have them, without an election.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::LinuxAdvertisement;
use crate::name::{Name, ServiceKey};
use crate::net::Family;
use crate::world::{Policy, Service, World};

/// The interface.
pub const DEVICE: &str = "kube-lb0";

/// An address on [`DEVICE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placing {
    /// Its prefix length: daemons carry the prefix.
    pub length: u8,
    /// For whom: every Service that holds the address and may be announced.
    pub services: Vec<ServiceKey>,
}

/// What `me` has of `address` on [`DEVICE`].
pub fn plan(world: &World, me: &str, address: IpAddr) -> Option<Placing> {
    if world.config().linux.is_empty() {
        return None;
    }
    let (me, node) = world.node_named(me)?;
    let drains = world.node_state(me).is_some_and(|state| state.draining);
    if node.network_unavailable || drains || world.excluded(node) {
        return None;
    }
    let pool = world.allocator().pool_of(address)?;
    let here = world.config().linux.values();
    let here = here.filter(|ad| ad.pools.contains(&pool.name) && ad.allows_node(&node.labels));
    let ads: Vec<&LinuxAdvertisement> = here.collect();
    let mut placing: Option<Placing> = None;
    for service in world.holders(address).filter(|it| served(world, me, it)) {
        let wanting = ads.iter().filter(|ad| ad.allows_service(&service.labels));
        // Of several the narrowest: what reaches further could take others' traffic.
        let length = wanting.map(|ad| ad.length(Family::of(address))).max();
        let Some(length) = length else { continue };
        let placing = placing.get_or_insert(Placing {
            length,
            services: Vec::new(),
        });
        placing.length = placing.length.max(length);
        placing.services.push(service.key.clone());
    }
    placing
}

/// Whether there is an endpoint for what comes to this node.
fn served(world: &World, me: &Name, service: &Service) -> bool {
    let endpoints = world.endpoints();
    match service.external_policy {
        Policy::Local => endpoints.usable_on(&service.key, me),
        Policy::Cluster => endpoints.any_usable(&service.key),
    }
}
