//! Layer 2: who answers ARP and NDP for an address, and on which interfaces
//! (`spec/metallb.md` §4.2, design.md §4.4).

mod unfit;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use unfit::Unfit;

use super::election::{Anchor, Rank, Score};
use super::mac::VirtualMac;
use crate::config::L2Advertisement;
use crate::name::{Name, ServiceKey};
use crate::world::{DEPTH, Fit, Node, NodeState, Part, Policy, Service, Standing, Term, World};

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
    /// The interface that the address itself is put on, with the prefix length of its subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed: Option<(Name, u8)>,
    /// The MAC address of its own that it answers with; `None`: the interface's. An address that is
    /// on an interface is answered for by the kernel, which knows no other than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<VirtualMac>,
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
    /// Under policy Local: the nodes with a usable endpoint.
    local: Option<BTreeSet<Name>>,
    /// The Service's first address: both addresses of a dual-stack Service go to one node.
    anchor: Anchor,
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
        if !world.endpoints().any_usable(&service.key) {
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
        let local = (service.external_policy == Policy::Local)
            .then(|| world.endpoints().usable(&service.key).nodes);
        Ok(Self {
            service,
            ads,
            local,
            anchor: service.assigned().next().unwrap_or(address).into(),
        })
    }

    /// How a node stands for this claim: its rank and how its subnets suit `address`; `None` when
    /// it does not stand (steps 4 to 6, and design.md §4.4).
    fn stand(&self, able: Able<'_>, address: IpAddr) -> Option<(Rank, Fit)> {
        let Able { name, node, state } = able;
        if self
            .local
            .as_ref()
            .is_some_and(|nodes| !nodes.contains(name))
        {
            return None;
        }
        let interfaces = self.interfaces(able, address)?;
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
        let rank = Rank::of(name, &self.anchor, score).holding(self.tenure(state));
        Some((rank, fit))
    }

    /// Since when a node has an address of the Service, where addresses stay: one of two is enough,
    /// so that both go to one node.
    fn tenure(&self, state: &NodeState) -> Option<Term> {
        if state.tenures.is_empty() || self.ads.iter().all(|ad| ad.hand_back) {
            return None;
        }
        let addresses = self.service.assigned();
        addresses
            .filter_map(|ip| state.tenures.get(&ip).copied())
            .max()
    }

    /// The interfaces that a node's matching advertisements allow: their union; `None` when no
    /// advertisement matches the node. One that puts the address on an interface matches where an
    /// interface has its subnet.
    fn interfaces(&self, able: Able<'_>, address: IpAddr) -> Option<Interfaces> {
        let mut only = BTreeSet::new();
        let mut matched = false;
        for ad in self.ads_for(able.node) {
            if ad.on_interface {
                if let Some((name, _)) = able.home(address) {
                    matched = true;
                    only.insert(name);
                }
                continue;
            }
            matched = true;
            if ad.interfaces.is_empty() {
                return Some(Interfaces::All);
            }
            only.extend(ad.interfaces.iter().cloned());
        }
        matched.then_some(Interfaces::Only(only))
    }

    fn ads_for(&self, node: &Node) -> impl Iterator<Item = &'w L2Advertisement> {
        let ads = self.ads.iter().copied();
        ads.filter(|ad| ad.allows_node(&node.labels))
    }
}

/// The claims of every Service that holds `address`, in the order of their names.
fn claims(world: &World, address: IpAddr) -> impl Iterator<Item = Claim<'_>> {
    world
        .holders(address)
        .filter_map(move |service| Claim::of(world, service, address).ok())
}

/// A node that may stand for addresses, as far as the node itself is concerned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Able<'w> {
    name: &'w Name,
    node: &'w Node,
    state: &'w NodeState,
}

impl<'w> Able<'w> {
    /// The node called `name`, if it may stand.
    pub(crate) fn find(world: &'w World, name: &'w Name) -> Option<Self> {
        let (node, state) = (world.node(name)?, world.node_state(name)?);
        (!node.network_unavailable
            && !node.out_of_service
            && !state.draining
            && world.presumed_alive(name)
            && !world.excluded(node))
        .then_some(Self { name, node, state })
    }

    /// The interface whose subnet holds `address`, with the subnet's prefix length: the smallest
    /// one, then the first by name.
    fn home(&self, address: IpAddr) -> Option<(Name, u8)> {
        let up = self.state.interfaces.iter().filter(|(_, state)| state.up);
        let fit = up.flat_map(|(name, state)| {
            let subnets = state.subnets.iter();
            let holding = subnets.filter(|subnet| subnet.contains(&address));
            holding.map(move |subnet| (subnet.prefix_len(), name))
        });
        // Of equals the last counts.
        let (length, name) = fit.rev().max_by_key(|(length, _)| *length)?;
        Some((name.clone(), length))
    }

    /// All that may stand.
    pub(crate) fn all(world: &'w World) -> Vec<Self> {
        world
            .node_names()
            .filter_map(|name| Self::find(world, name))
            .collect()
    }
}

/// Elects: the standing of `address` among `able`, all nodes that may stand. The first claim with a
/// candidate decides for all Services that share the address, so that it has one owner.
pub(crate) fn elect(world: &World, able: &[Able<'_>], address: IpAddr) -> Option<Standing> {
    claims(world, address).find_map(|claim| {
        let mut stands: Vec<(Rank, Fit, &Name)> = able
            .iter()
            .filter_map(|able| {
                let (rank, fit) = claim.stand(*able, address)?;
                Some((rank, fit, able.name))
            })
            .collect();
        let best_fit = stands.iter().map(|(_, fit, _)| *fit).max()?;
        stands.retain(|(_, fit, _)| *fit == best_fit);
        stands.sort();
        stands.truncate(DEPTH);
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

/// The standing of `address` with a node that it does not rank, as that node is now; `None` when
/// nothing changes. The others stand as they did, so one hash is enough.
pub(crate) fn enter(
    world: &World,
    able: Able<'_>,
    address: IpAddr,
    standing: Option<&Standing>,
) -> Option<Standing> {
    for claim in claims(world, address) {
        let decided = standing.filter(|standing| standing.claimant == claim.service.key);
        match (claim.stand(able, address), decided) {
            (Some((rank, fit)), Some(standing)) if fit == standing.fit => {
                return standing.with(rank, able.name);
            }
            (Some((_, fit)), Some(standing)) if fit < standing.fit => return None,
            // The best so far do not suit as well, or a claim before the one that decided gets its
            // first candidate.
            (Some((rank, fit)), _) => {
                return Some(Standing {
                    best: vec![(rank, able.name.clone())],
                    fit,
                    claimant: claim.service.key.clone(),
                });
            }
            (None, Some(_)) => return None,
            (None, None) => {}
        }
    }
    None
}

/// What `me` announces for `address`: something when it is the owner, else nothing. While a speaker
/// of MetalLB lives nobody announces: two camps would elect two owners.
pub fn plan(world: &World, me: &str, address: IpAddr) -> Option<Announcement> {
    if world.rivals().any(Part::Speaker) {
        return None;
    }
    let standing = world.standing(address)?;
    if standing.owner().is_none_or(|owner| &**owner != me) {
        return None;
    }
    let mut services = Vec::new();
    let mut interfaces: Option<Interfaces> = None;
    let mut placed = None;
    let mut mac = None;
    let me = Able::find(world, standing.owner()?)?;
    for claim in claims(world, address) {
        // Not for a Service that this node may not announce, though it shares the address.
        if claim.stand(me, address).is_none() {
            continue;
        }
        let Some(own) = claim.interfaces(me, address) else {
            continue;
        };
        if claim.ads_for(me.node).any(|ad| ad.on_interface) {
            placed = me.home(address);
        }
        if claim.ads_for(me.node).any(|ad| ad.virtual_mac) {
            mac = Some(VirtualMac::from(address));
        }
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
        mac: mac.filter(|_| placed.is_none()),
        placed,
    })
}
