//! The keys that a change touches.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::config::ObjectRef;
use crate::name::{Name, ServiceKey};

/// Keys whose plan may have changed. Several changes' keys unite before anything is planned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Services whose allocation and status are to be looked at.
    pub services: BTreeSet<ServiceKey>,
    /// Services whose ports are to be compiled anew.
    pub forward: BTreeSet<ServiceKey>,
    /// Addresses whose announcement is to be looked at.
    pub addresses: BTreeSet<IpAddr>,
    /// Addresses whose routes are to be looked at, on every node.
    pub routes: BTreeSet<IpAddr>,
    /// Nodes whose own form changed: their sessions and all their routes are to be looked at.
    pub nodes: BTreeSet<Name>,
    /// Nodes whose addresses or zone changed: all that they forward is to be compiled anew.
    pub places: BTreeSet<Name>,
    /// What is configured of BGP or of pools changed: all sessions and routes are to be looked at.
    pub bgp: bool,
    /// Configuration objects whose verdict is to be reported.
    pub objects: BTreeSet<ObjectRef>,
    /// The set of nodes or their addresses changed: failure detection wants new peers.
    pub members: bool,
}

impl Dirty {
    /// Nothing is touched.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
            && self.forward.is_empty()
            && self.addresses.is_empty()
            && self.routes.is_empty()
            && self.nodes.is_empty()
            && self.places.is_empty()
            && !self.bgp
            && self.objects.is_empty()
            && !self.members
    }

    /// Takes in the keys of another change.
    pub fn extend(&mut self, other: Self) {
        let Self {
            services,
            forward,
            addresses,
            routes,
            nodes,
            places,
            bgp,
            objects,
            members,
        } = other;
        self.services.extend(services);
        self.forward.extend(forward);
        self.addresses.extend(addresses);
        self.routes.extend(routes);
        self.nodes.extend(nodes);
        self.places.extend(places);
        self.bgp |= bgp;
        self.objects.extend(objects);
        self.members |= members;
    }
}
