//! Why a node has an address in layer 2, who follows it, and why others do not stand
//! (`corten l2`).

use std::fmt;
use std::net::IpAddr;

use crate::announce::l2::{self, Able, Claim, Interfaces, Unfit, Withheld};
use crate::announce::mac::VirtualMac;
use crate::name::{Name, ServiceKey};
use crate::world::{Part, World};

/// Why the owner is the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nobody else stands.
    Alone,
    /// It has it, and it stays (`handBack: false`).
    Stays,
    /// Its advertisements prefer it, by as much more than the next.
    Preferred(i64),
    /// It stands first in the order of SHA-256 of node and address.
    Order,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alone => f.write_str("alone able"),
            Self::Stays => f.write_str("stays (handBack: false)"),
            Self::Preferred(by) => write!(f, "preferred (+{by})"),
            Self::Order => f.write_str("first in order"),
        }
    }
}

/// An address and its nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The address.
    pub address: IpAddr,
    /// The Services that hold it.
    pub services: Vec<ServiceKey>,
    /// The node that has it, and why.
    pub owner: Option<(Name, Why)>,
    /// Where it has it, by name.
    pub interfaces: Vec<Name>,
    /// The address's own MAC address, which it answers with in place of the interfaces'.
    pub mac: Option<VirtualMac>,
    /// Only nodes with an endpoint stand.
    pub local: bool,
    /// Who follows, in order: two at most.
    pub next: Vec<Name>,
    /// Why nobody has it, where that is not for want of nodes.
    pub withheld: Option<String>,
    /// Nodes that do not stand, and why.
    pub unfit: Vec<(Name, Unfit)>,
}

impl Explained {
    /// Why nobody has it, in one line.
    pub fn nobody(&self) -> Option<String> {
        if self.owner.is_some() {
            return None;
        }
        if let Some(why) = &self.withheld {
            return Some(why.clone());
        }
        let nodes = self.unfit.iter();
        let nodes: Vec<String> = nodes.map(|(node, why)| format!("{node}: {why}")).collect();
        Some(match nodes.is_empty() {
            true => "there are no nodes".to_owned(),
            false => format!("no node is able: {}", nodes.join("; ")),
        })
    }
}

/// What there is to say of `address`.
pub fn address(world: &World, address: IpAddr) -> Explained {
    let mut said = Explained {
        address,
        services: world.holders(address).map(|it| it.key.clone()).collect(),
        owner: None,
        interfaces: Vec::new(),
        mac: None,
        local: false,
        next: Vec::new(),
        withheld: None,
        unfit: Vec::new(),
    };
    let standing = world.standing(address);
    // The claim that decided; where none did, the first that could.
    let claim = world
        .holders(address)
        .map(|service| (service, Claim::of(world, service, address)))
        .collect::<Vec<_>>();
    let decided = |key: &ServiceKey| standing.is_none_or(|it| it.claimant == *key);
    let mut claims = claim.iter();
    let found = claims.find_map(|(service, claim)| Some((service, claim.as_ref().ok()?)));
    let found = match standing {
        Some(_) => claim
            .iter()
            .filter(|(service, _)| decided(&service.key))
            .find_map(|(service, claim)| Some((service, claim.as_ref().ok()?))),
        None => found,
    };
    let Some((_, claim)) = found else {
        let why = claim.iter().find_map(|(_, claim)| claim.as_ref().err());
        said.withheld = Some(why.map_or_else(
            || "no Service of ours holds it".to_owned(),
            |why| words(*why).to_owned(),
        ));
        return said;
    };
    said.local = claim.is_local();
    if world.rivals().any(Part::Speaker) {
        said.withheld = Some("MetalLB's speakers run: they announce it".to_owned());
        return said;
    }
    let mut best = standing.into_iter().flat_map(|it| &it.best);
    if let Some((rank, owner)) = best.next() {
        said.next = best.clone().map(|(_, node)| node.clone()).collect();
        let why = match best.next() {
            _ if rank.tenure().is_some() => Why::Stays,
            None => Why::Alone,
            Some((next, _)) if rank.score() > next.score() => {
                Why::Preferred(rank.score() - next.score())
            }
            Some(_) => Why::Order,
        };
        said.owner = Some((owner.clone(), why));
        if let Some(announcement) = l2::plan(world, owner, address) {
            said.mac = announcement.mac;
            said.interfaces = up(world, owner, announcement.interfaces);
        }
    }
    for node in world.node_names() {
        let stands = standing.is_some_and(|it| it.best.iter().any(|(_, name)| name == node));
        if !stands && let Some(why) = claim.unfit(world, node, address, standing) {
            said.unfit.push((node.clone(), why));
        }
    }
    said
}

/// Those of `interfaces` that the node has and are up.
fn up(world: &World, node: &Name, interfaces: Interfaces) -> Vec<Name> {
    let state = world.node_state(node).into_iter();
    let up = state.flat_map(|state| state.interfaces.iter().filter(|(_, it)| it.up));
    let up = up.map(|(name, _)| name.clone());
    match interfaces {
        Interfaces::All => up.collect(),
        Interfaces::Only(names) => up.filter(|name| names.contains(name)).collect(),
    }
}

/// Why a node stands for no address at all.
pub fn node(world: &World, name: &Name) -> Option<Unfit> {
    Able::unfit(world, name)
}

const fn words(why: Withheld) -> &'static str {
    match why {
        Withheld::IpNotAllowed => "it lies in no pool that is in force",
        Withheld::NotOwner => "no endpoint is usable",
        Withheld::SharedIpWithServiceSelector => {
            "it is shared, and an advertisement selects Services"
        }
        Withheld::NoMatchingAdvertisement => {
            "no layer 2 advertisement reaches its pool and Service"
        }
    }
}

#[cfg(test)]
mod tests;
