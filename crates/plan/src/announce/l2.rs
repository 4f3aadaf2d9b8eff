//! Layer 2: who answers ARP and NDP for an address, and on which interfaces
//! (`spec/metallb.md` §4.2, design.md §4.4).

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::election::{Rank, Score};
use crate::config::L2Advertisement;
use crate::name::{Name, ServiceKey};
use crate::world::{Fit, Policy, Service, Standing, Usable, World};

/// The interfaces an address is announced on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Interfaces {
    /// Every interface that is fit for layer 2.
    All,
    /// These, by exact name.
    Only(BTreeSet<Name>),
}

impl Interfaces {
    /// Whether `name` is among them.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(name),
        }
    }
}

/// What this node announces for one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Where.
    pub interfaces: Interfaces,
    /// For whom: every Service that holds the address and may be announced.
    pub services: Vec<ServiceKey>,
}

/// Why nobody, or somebody else, announces an address for a Service; MetalLB's reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Withheld {
    /// The address lies in no pool.
    IpNotAllowed,
    /// No usable endpoint, or another node was elected.
    NotOwner,
    /// Advertisements that select Services do not go with shared addresses.
    SharedIpWithServiceSelector,
    /// No advertisement matches the Service and some node.
    NoMatchingAdvertisement,
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IpNotAllowed => "ipNotAllowed",
            Self::NotOwner => "notOwner",
            Self::SharedIpWithServiceSelector => "sharedIPWithServiceSelector",
            Self::NoMatchingAdvertisement => "noMatchingAdvertisement",
        })
    }
}

/// One Service's claim to have an address announced: everything the election asks except nodes.
#[derive(Debug)]
pub(crate) struct Claim<'w> {
    service: &'w Service,
    ads: Vec<&'w L2Advertisement>,
    usable: Usable,
    /// The Service's first address: both addresses of a dual-stack Service go to one node.
    anchor: IpAddr,
}

impl<'w> Claim<'w> {
    /// The claim of `service` to `address`, or why there is none (steps 1 to 3).
    pub(crate) fn of(
        world: &'w World,
        service: &'w Service,
        address: IpAddr,
    ) -> Result<Self, Withheld> {
        let pool = world
            .allocator()
            .pool_of(address)
            .ok_or(Withheld::IpNotAllowed)?;
        let usable = world.endpoints().usable(&service.key);
        if !usable.anywhere {
            return Err(Withheld::NotOwner);
        }
        let ads: Vec<_> = world
            .config()
            .l2
            .values()
            .filter(|ad| ad.pools.contains(&pool.name) && ad.allows_service(&service.labels))
            .collect();
        if ads.is_empty() {
            return Err(Withheld::NoMatchingAdvertisement);
        }
        let shared = api::annotations::get(&service.annotations, api::annotations::ALLOW_SHARED_IP)
            .is_some();
        if shared && ads.iter().any(|ad| !ad.service_selectors.is_empty()) {
            return Err(Withheld::SharedIpWithServiceSelector);
        }
        let anchor = service.assigned().next().unwrap_or(address);
        Ok(Self {
            service,
            ads,
            usable,
            anchor,
        })
    }

    /// How `node` stands for this claim: its rank and how its subnets suit `address`; `None` when
    /// it does not stand at all (steps 4 to 6, and design.md §4.4).
    pub(crate) fn stand(&self, world: &World, name: &Name, address: IpAddr) -> Option<(Rank, Fit)> {
        let (node, state) = (world.node(name)?, world.node_state(name)?);
        if !may_stand(world, name) {
            return None;
        }
        if self.service.external_policy == Policy::Local && !self.usable.nodes.contains(name) {
            return None;
        }
        let interfaces = self.interfaces(world, name)?;
        let up = || {
            let fit = state.interfaces.iter();
            fit.filter(|(interface, state)| state.up && interfaces.contains(interface))
        };
        up().next()?;
        let holds = |address: IpAddr| {
            up().any(|(_, state)| state.subnets.iter().any(|net| net.contains(&address)))
        };
        let fit = Fit {
            address: holds(address),
            of_service: self.service.assigned().filter(|ip| holds(*ip)).count(),
        };
        let score: Score = self
            .ads
            .iter()
            .map(|ad| Score::from(ad.score(&node.labels)))
            .sum();
        Some((Rank::of(name, self.anchor, score), fit))
    }

    /// The interfaces that `name`'s matching advertisements allow: their union; `None` when no
    /// advertisement matches the node.
    fn interfaces(&self, world: &World, name: &str) -> Option<Interfaces> {
        let labels = &world.node(name)?.labels;
        let mut only = BTreeSet::new();
        let mut matched = false;
        for ad in self.ads.iter().filter(|ad| ad.allows_node(labels)) {
            matched = true;
            if ad.interfaces.is_empty() {
                return Some(Interfaces::All);
            }
            only.extend(ad.interfaces.iter().cloned());
        }
        matched.then_some(Interfaces::Only(only))
    }
}

/// The claims of every Service that holds `address`, in the order of their names.
fn claims(world: &World, address: IpAddr) -> impl Iterator<Item = Claim<'_>> {
    world
        .holders(address)
        .filter_map(move |service| Claim::of(world, service, address).ok())
}

/// Elects: the standing of `address` among all nodes. The first claim with a candidate decides for
/// all Services that share the address, so that it has one owner.
pub(crate) fn elect(world: &World, address: IpAddr) -> Option<Standing> {
    claims(world, address).find_map(|claim| {
        let mut stands: Vec<(Rank, Fit, &Name)> = world
            .node_names()
            .filter_map(|name| {
                let (rank, fit) = claim.stand(world, name, address)?;
                Some((rank, fit, name))
            })
            .collect();
        let best_fit = stands.iter().map(|(_, fit, _)| *fit).max()?;
        stands.retain(|(_, fit, _)| *fit == best_fit);
        stands.sort();
        stands.truncate(crate::world::DEPTH);
        Some(Standing {
            best: stands
                .into_iter()
                .map(|(rank, _, name)| (rank, name.clone()))
                .collect(),
            fit: best_fit,
            claimant: claim.service.key.clone(),
        })
    })
}

/// Whether `node` may stand for any address at all, as far as the node itself is concerned.
pub(crate) fn may_stand(world: &World, name: &str) -> bool {
    let (Some(node), Some(state)) = (world.node(name), world.node_state(name)) else {
        return false;
    };
    !node.network_unavailable
        && !state.draining
        && world.presumed_alive(name)
        && !world.excluded(node)
}

/// Whether `node`, as it is now, would change the standing of `address`, which does not rank it.
pub(crate) fn would_enter(
    world: &World,
    node: &Name,
    address: IpAddr,
    standing: Option<&Standing>,
) -> bool {
    for claim in claims(world, address) {
        let decided = standing.filter(|standing| standing.claimant == claim.service.key);
        match (claim.stand(world, node, address), decided) {
            // An earlier claim than the one that decided gets its first candidate.
            (Some(_), None) => return true,
            (Some((rank, fit)), Some(standing)) => {
                return fit > standing.fit || (fit == standing.fit && standing.admits(&rank));
            }
            (None, Some(_)) => return false,
            (None, None) => {}
        }
    }
    false
}

/// What `me` announces for `address`: something when it is the owner, else nothing.
pub fn plan(world: &World, me: &str, address: IpAddr) -> Option<Announcement> {
    let standing = world.standing(address)?;
    if standing.owner().is_none_or(|owner| &**owner != me) {
        return None;
    }
    let mut services = Vec::new();
    let mut interfaces: Option<Interfaces> = None;
    let me = standing.owner()?;
    for claim in claims(world, address) {
        // Not for a Service that this node may not announce, though it shares the address.
        if claim.stand(world, me, address).is_none() {
            continue;
        }
        let Some(own) = claim.interfaces(world, me) else {
            continue;
        };
        interfaces = Some(match (interfaces, own) {
            (Some(Interfaces::All), _) | (_, Interfaces::All) => Interfaces::All,
            (Some(Interfaces::Only(mut union)), Interfaces::Only(own)) => {
                union.extend(own);
                Interfaces::Only(union)
            }
            (None, own) => own,
        });
        services.push(claim.service.key.clone());
    }
    interfaces.map(|interfaces| Announcement {
        interfaces,
        services,
    })
}
