//! Why a node does not stand for an address: the election's conditions, one by one.

use std::fmt;
use std::net::IpAddr;

use super::{Able, Claim};
use crate::name::Name;
use crate::world::{Standing, World};

/// Why a node does not stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// No agent has said anything of it.
    NoAgent,
    /// Nothing is heard of it.
    Unheard,
    /// Its taint says that it is off.
    OutOfService,
    /// Its condition `NetworkUnavailable` is true.
    NoNetwork,
    /// It gives its addresses away.
    Drains,
    /// It bears the exclude label.
    Excluded,
    /// It has no usable endpoint, under policy Local.
    NoEndpoint,
    /// No advertisement of the address selects it.
    NotAdvertised,
    /// None of its interfaces that the advertisements name is up.
    NoInterface,
    /// Its subnets do not hold the address, or not as many of the Service's as others' do.
    NoSubnet,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoAgent => "no agent",
            Self::Unheard => "not heard of",
            Self::OutOfService => "out of service",
            Self::NoNetwork => "network unavailable",
            Self::Drains => "drains",
            Self::Excluded => "excluded by its label",
            Self::NoEndpoint => "no endpoint",
            Self::NotAdvertised => "no advertisement selects it",
            Self::NoInterface => "no fit interface is up",
            Self::NoSubnet => "not on its subnet",
        })
    }
}

impl Able<'_> {
    /// Why the node called `name` stands for no address; `None`: it may.
    pub(crate) fn unfit(world: &World, name: &Name) -> Option<Unfit> {
        let node = world.node(name)?;
        let Some(state) = world.node_state(name) else {
            return Some(Unfit::NoAgent);
        };
        let conditions = [
            (!world.presumed_alive(name), Unfit::Unheard),
            (node.out_of_service, Unfit::OutOfService),
            (node.network_unavailable, Unfit::NoNetwork),
            (state.draining, Unfit::Drains),
            (world.excluded(node), Unfit::Excluded),
        ];
        let mut met = conditions.into_iter().filter(|(met, _)| *met);
        met.next().map(|(_, why)| why)
    }
}

impl Claim<'_> {
    /// Whether only nodes with an endpoint stand.
    pub(crate) const fn is_local(&self) -> bool {
        self.local.is_some()
    }

    /// Why the node called `name` does not stand for `address`, which stands so; `None`: it does.
    pub(crate) fn unfit(
        &self,
        world: &World,
        name: &Name,
        address: IpAddr,
        standing: Option<&Standing>,
    ) -> Option<Unfit> {
        let (name, _) = world.node_named(name)?;
        if let Some(why) = Able::unfit(world, name) {
            return Some(why);
        }
        let able = Able::find(world, name)?;
        let local = self.local.as_ref();
        if local.is_some_and(|nodes| !nodes.contains(name)) {
            return Some(Unfit::NoEndpoint);
        }
        if self.interfaces(able, address).is_none() {
            let selected = self.ads_for(able.node).next().is_some();
            return Some(match selected {
                true => Unfit::NoSubnet,
                false => Unfit::NotAdvertised,
            });
        }
        match self.stand(able, address) {
            None => Some(Unfit::NoInterface),
            Some((_, fit)) if standing.is_some_and(|it| fit < it.fit) => Some(Unfit::NoSubnet),
            Some(_) => None,
        }
    }
}
