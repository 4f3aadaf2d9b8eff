//! Which Services this node announces in layer 2, and on which interfaces.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use api::metallb::{InterfaceInfo, ServiceL2StatusStatus};

use crate::announce::l2::{Announcement, Interfaces};
use crate::name::{Name, ServiceKey};

/// The announcements that are up, by address and by Service: a change finds its Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    addresses: HashMap<IpAddr, Announcement>,
    services: BTreeMap<ServiceKey, BTreeSet<IpAddr>>,
}

impl Announced {
    /// `address` is announced so, or no longer. Returns the Services whose status may have
    /// changed.
    pub fn set(
        &mut self,
        address: IpAddr,
        announcement: Option<Announcement>,
    ) -> BTreeSet<ServiceKey> {
        let mut touched = BTreeSet::new();
        let old = match announcement {
            Some(new) if self.addresses.get(&address) == Some(&new) => return touched,
            Some(new) => {
                for service in &new.services {
                    let addresses = self.services.entry(service.clone()).or_default();
                    addresses.insert(address);
                    touched.insert(service.clone());
                }
                self.addresses.insert(address, new)
            }
            None => self.addresses.remove(&address),
        };
        for service in old.into_iter().flat_map(|old| old.services) {
            let still = self
                .addresses
                .get(&address)
                .is_some_and(|new| new.services.contains(&service));
            if !still && let Some(addresses) = self.services.get_mut(&service) {
                addresses.remove(&address);
                if addresses.is_empty() {
                    self.services.remove(&service);
                }
            }
            touched.insert(service);
        }
        touched
    }

    /// The interfaces that `service` is announced on: the union over its addresses, sorted; empty
    /// for all. `None` when it is not announced here.
    pub fn interfaces(&self, service: &ServiceKey) -> Option<Vec<Name>> {
        let mut union = BTreeSet::new();
        for address in self.services.get(service)? {
            match &self.addresses.get(address)?.interfaces {
                Interfaces::All => return Some(Vec::new()),
                Interfaces::Only(names) => union.extend(names.iter().cloned()),
            }
        }
        Some(union.into_iter().collect())
    }
}

/// The status of a `ServiceL2Status`.
pub fn l2_status(service: &ServiceKey, node: &str, interfaces: &[Name]) -> ServiceL2StatusStatus {
    ServiceL2StatusStatus {
        node: node.to_owned(),
        service_name: service.name.to_string(),
        service_namespace: service.namespace.to_string(),
        interfaces: interfaces
            .iter()
            .map(|name| InterfaceInfo {
                name: name.to_string(),
            })
            .collect(),
    }
}
