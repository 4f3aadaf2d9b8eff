//! Whether a node advertises an address for a Service: MetalLB's tests, in its order
//! (`spec/metallb.md` §4.5).

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::route::{Speaker, masked};
use super::{Families, PeerKey};
use crate::config::{self, BgpAdvertisement};
use crate::name::ServiceKey;
use crate::net::Family;
use crate::world::{Policy, Service, World};

/// Why a node does not advertise an address for a Service; MetalLB's reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Withheld {
    /// The Service may not have the address, or it lies in no pool.
    IpNotAllowed,
    /// No advertisement of the pool is for the node.
    NotOwner,
    /// None of those that are is for the Service.
    NoMatchingAdvertisement,
    /// Two of them want different local preferences for the same route.
    ConflictingAdvertisements,
    /// The node's network is not available.
    NodeNetworkUnavailable,
    /// The node bears the exclude label.
    NodeLabeledExcludeBalancers,
    /// The node drains.
    NodeDraining,
    /// Policy Local, and no usable endpoint on the node.
    NoLocalEndpoints,
    /// No usable endpoint anywhere.
    NoEndpoints,
    /// No peer of the node takes the route.
    NoPeers,
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IpNotAllowed => "ipNotAllowed",
            Self::NotOwner => "notOwner",
            Self::NoMatchingAdvertisement => "noMatchingAdvertisement",
            Self::ConflictingAdvertisements => "conflictingAdvertisements",
            Self::NodeNetworkUnavailable => "nodeNetworkUnavailable",
            Self::NodeLabeledExcludeBalancers => "nodeLabeledExcludeBalancers",
            Self::NodeDraining => "nodeDraining",
            Self::NoLocalEndpoints => "noLocalEndpoints",
            Self::NoEndpoints => "noEndpoints",
            Self::NoPeers => "noPeers",
        })
    }
}

/// The advertisements by which `speaker` announces `address` for `service`, which holds it; or why
/// it does not. The exclude label and a drain are looked at elsewhere: they end gracefully.
pub(super) fn claim<'w>(
    speaker: &Speaker<'w>,
    service: &Service,
    address: IpAddr,
) -> Result<Vec<&'w BgpAdvertisement>, Withheld> {
    let world = speaker.world;
    let pool = world.allocator().pool_of(address);
    let pool = pool.ok_or(Withheld::IpNotAllowed)?;
    let mut ads: Vec<&BgpAdvertisement> = world
        .config()
        .bgp
        .advertisements
        .values()
        .filter(|ad| ad.pools.contains(&pool.name) && ad.allows_node(&speaker.node.labels))
        .collect();
    if ads.is_empty() {
        return Err(Withheld::NotOwner);
    }
    ads.retain(|ad| ad.allows_service(&service.labels));
    if ads.is_empty() {
        return Err(Withheld::NoMatchingAdvertisement);
    }
    let conflict = ads.iter().enumerate().any(|(n, ad)| {
        let mut later = ads.iter().skip(n + 1);
        later.any(|other| !config::agree(ad, other, pool))
    });
    if conflict {
        return Err(Withheld::ConflictingAdvertisements);
    }
    if speaker.node.network_unavailable {
        return Err(Withheld::NodeNetworkUnavailable);
    }
    let endpoints = world.endpoints();
    if service.external_policy == Policy::Local {
        if !endpoints.usable_on(&service.key, speaker.me) {
            return Err(Withheld::NoLocalEndpoints);
        }
    } else if !endpoints.any_usable(&service.key) {
        return Err(Withheld::NoEndpoints);
    }
    Ok(ads)
}

/// The routes by which `me` advertises `address` for a Service, each with the peers that get it;
/// or why there are none.
pub fn explain(
    world: &World,
    me: &str,
    service: &ServiceKey,
    address: IpAddr,
) -> Result<Vec<(IpNet, PeerKey)>, Withheld> {
    let speaker = Speaker::find(world, me).ok_or(Withheld::NotOwner)?;
    let mut holders = world.holders(address);
    let service = holders.find(|holder| holder.key == *service);
    let service = service.ok_or(Withheld::IpNotAllowed)?;
    let claimed = claim(&speaker, service, address);
    let late = matches!(
        claimed,
        Ok(_) | Err(Withheld::NoLocalEndpoints | Withheld::NoEndpoints)
    );
    if late && let Some(drain) = speaker.drain {
        return Err(drain.into());
    }
    let family = Family::of(address);
    let mut routes = Vec::new();
    let mut withheld = Withheld::NoPeers;
    for ad in claimed? {
        let prefix = masked(address, ad.length(family));
        let peers = speaker.peers.iter();
        for peer in peers.filter(|peer| ad.allows_peer(&peer.name)) {
            match speaker.drain_of(peer) {
                _ if !Families::of(peer).carries(family) => {}
                None => routes.push((prefix, peer.name.clone())),
                Some(drain) => withheld = drain.into(),
            }
        }
    }
    routes.sort();
    routes.dedup();
    if routes.is_empty() {
        return Err(withheld);
    }
    Ok(routes)
}

/// The peers that `me` advertises some address of a Service to: its `ServiceBGPStatus`.
pub fn peers_of(world: &World, me: &str, service: &ServiceKey) -> BTreeSet<PeerKey> {
    let found = world.service(service);
    found
        .into_iter()
        .flat_map(Service::assigned)
        .filter_map(|address| explain(world, me, service, address).ok())
        .flatten()
        .map(|(_, peer)| peer)
        .collect()
}
