//! EndpointSlices, kept per slice: an endpoint may move between slices of one Service.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::name::{Name, ServiceKey};
use crate::net::{Family, Protocol};

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Endpoint {
    /// `addresses[0]`; the API guarantees that all addresses of an endpoint are equivalent.
    pub address: IpAddr,
    /// The node it runs on.
    pub node: Option<Name>,
    /// Condition `ready`; absent means true.
    pub ready: bool,
    /// Condition `serving`. Absent means true to kube-proxy, and nothing to MetalLB.
    pub serving: Option<bool>,
    /// Condition `terminating`; absent means false.
    pub terminating: bool,
}

impl Endpoint {
    /// What MetalLB counts as usable when it decides who announces: ready, or serving while it
    /// terminates (`spec/metallb.md` §2.1).
    pub fn usable(&self) -> bool {
        self.ready || self.serving == Some(true)
    }
}

/// One port of a slice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlicePort {
    /// Its name, empty when it has none.
    pub name: Name,
    /// Its protocol.
    pub protocol: Protocol,
    /// The number the endpoints listen on.
    pub port: u16,
}

/// The fields of an EndpointSlice that some planner reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// The Service it belongs to, from label `kubernetes.io/service-name`.
    pub service: ServiceKey,
    /// `addressType`; slices of type FQDN never get here.
    pub family: Family,
    /// Its ports; those without a number are left out.
    pub ports: Vec<SlicePort>,
    /// Its endpoints; those of another family are left out.
    pub endpoints: Vec<Endpoint>,
}

/// Namespace and name of an EndpointSlice.
pub type SliceKey = ServiceKey;

/// Every slice, and the index from Service to slices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    slices: HashMap<SliceKey, Slice>,
    by_service: HashMap<ServiceKey, BTreeSet<SliceKey>>,
}

/// What the announcing rules ask about a Service's endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usable {
    /// Some endpoint is usable somewhere.
    pub anywhere: bool,
    /// The nodes that hold a usable endpoint.
    pub nodes: BTreeSet<Name>,
}

impl Endpoints {
    /// Takes a slice's new form, `None` when it is gone; returns the Services it touches, none when
    /// nothing changed.
    pub(super) fn apply(&mut self, key: SliceKey, form: Option<Slice>) -> Vec<ServiceKey> {
        let old = match &form {
            Some(slice) if self.slices.get(&key) == Some(slice) => return Vec::new(),
            Some(slice) => {
                self.by_service
                    .entry(slice.service.clone())
                    .or_default()
                    .insert(key.clone());
                self.slices.insert(key.clone(), slice.clone())
            }
            None => self.slices.remove(&key),
        };
        let new = form.map(|slice| slice.service);
        let mut touched: Vec<ServiceKey> = new.iter().cloned().collect();
        if let Some(old) = old
            .map(|slice| slice.service)
            .filter(|old| Some(old) != new.as_ref())
        {
            if let Some(keys) = self.by_service.get_mut(&old) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.by_service.remove(&old);
                }
            }
            touched.push(old);
        }
        touched
    }

    /// The slices of `service`, in the order of their names.
    pub fn slices(&self, service: &ServiceKey) -> impl Iterator<Item = &Slice> + '_ {
        self.by_service
            .get(service)
            .into_iter()
            .flatten()
            .filter_map(|key| self.slices.get(key))
    }

    /// Which endpoints of `service` the announcing rules may count on.
    pub fn usable(&self, service: &ServiceKey) -> Usable {
        let mut usable = Usable::default();
        for endpoint in self.slices(service).flat_map(|slice| &slice.endpoints) {
            if endpoint.usable() {
                usable.anywhere = true;
                usable.nodes.extend(endpoint.node.clone());
            }
        }
        usable
    }

    /// For each port name and protocol of one family: its endpoints with their sockets, each
    /// address once; a copy on `node` wins over one that names no node.
    pub fn sockets(
        &self,
        service: &ServiceKey,
        family: Family,
    ) -> BTreeMap<(Name, Protocol), BTreeMap<(IpAddr, u16), Endpoint>> {
        let mut ports: BTreeMap<(Name, Protocol), BTreeMap<(IpAddr, u16), Endpoint>> =
            BTreeMap::new();
        for slice in self.slices(service).filter(|slice| slice.family == family) {
            for port in &slice.ports {
                let sockets = ports.entry((port.name.clone(), port.protocol)).or_default();
                for endpoint in &slice.endpoints {
                    let socket = (endpoint.address, port.port);
                    match sockets.get(&socket) {
                        Some(known) if known.node.is_some() || endpoint.node.is_none() => {}
                        _ => {
                            sockets.insert(socket, endpoint.clone());
                        }
                    }
                }
            }
        }
        ports
    }
}
