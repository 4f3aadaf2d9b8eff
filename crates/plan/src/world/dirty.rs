//! The keys that a change touches.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::config::ObjectRef;
use crate::name::ServiceKey;

/// Keys whose plan may have changed. Several changes' keys unite before anything is planned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Services whose allocation and status are to be looked at.
    pub services: BTreeSet<ServiceKey>,
    /// Services whose ports are to be compiled anew.
    pub forward: BTreeSet<ServiceKey>,
    /// Addresses whose announcement is to be looked at.
    pub addresses: BTreeSet<IpAddr>,
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
            && self.objects.is_empty()
            && !self.members
    }

    /// Takes in the keys of another change.
    pub fn extend(&mut self, other: Self) {
        let Self {
            services,
            forward,
            addresses,
            objects,
            members,
        } = other;
        self.services.extend(services);
        self.forward.extend(forward);
        self.addresses.extend(addresses);
        self.objects.extend(objects);
        self.members |= members;
    }
}
