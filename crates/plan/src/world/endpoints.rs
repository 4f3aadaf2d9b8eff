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
    /// Who should use it; `None` for everybody.
    pub hints: Option<Box<Hints>>,
}

/// `hints` of an endpoint, by which the EndpointSlice controller keeps traffic near.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hints {
    /// `forZones`.
    pub zones: Vec<Name>,
    /// `forNodes`.
    pub nodes: Vec<Name>,
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
    /// When the Pod or Service changed that this form comes from, as the EndpointSlice controller
    /// writes it: `endpoints.kubernetes.io/last-change-trigger-time`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub triggered: Option<Box<str>>,
    /// Addresses of endpoints that are not of its family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Box<[IpAddr]>>,
}

/// Namespace and name of an EndpointSlice.
pub type SliceKey = ServiceKey;

/// Every slice, and the index from Service to slices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    slices: HashMap<SliceKey, Slice>,
    /// In the order of their names; nearly always one.
    by_service: HashMap<ServiceKey, Vec<SliceKey>>,
}

/// What the announcing rules ask about a Service's endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usable {
    /// Some endpoint is usable somewhere.
    pub anywhere: bool,
    /// The nodes that hold a usable endpoint.
    pub nodes: BTreeSet<Name>,
}

/// A Service whose slices changed, with what was usable and what is.
#[derive(Debug)]
pub(super) struct Touched {
    pub(super) service: ServiceKey,
    pub(super) before: Usable,
    pub(super) after: Usable,
    /// On some node the number of ready endpoints changed.
    pub(super) weights: bool,
}

/// The ready endpoints of a Service by family and node.
type Ready = BTreeMap<(Family, Name), BTreeSet<IpAddr>>;

impl Endpoints {
    /// Takes a slice's new form, `None` when it is gone; returns the Services it touches, none when
    /// nothing changed. `weighs`: numbers of endpoints count.
    pub(super) fn apply(
        &mut self,
        key: SliceKey,
        form: Option<Slice>,
        weighs: bool,
    ) -> Vec<Touched> {
        let old = self.slices.get(&key);
        if old == form.as_ref() {
            return Vec::new();
        }
        let services: BTreeSet<ServiceKey> = old
            .into_iter()
            .chain(&form)
            .map(|slice| slice.service.clone())
            .collect();
        let look = |endpoints: &Self, service: &ServiceKey| {
            let ready = weighs.then(|| endpoints.ready(service));
            (endpoints.usable(service), ready.unwrap_or_default())
        };
        let before: Vec<(Usable, Ready)> =
            services.iter().map(|service| look(self, service)).collect();
        self.put(key, form);
        services
            .into_iter()
            .zip(before)
            .map(|(service, (before, ready_before))| {
                let (after, ready) = look(self, &service);
                let count = |ready: Ready| -> Vec<_> {
                    let count = ready.into_iter();
                    count
                        .map(|(key, addresses)| (key, addresses.len()))
                        .collect()
                };
                Touched {
                    service,
                    before,
                    after,
                    weights: count(ready_before) != count(ready),
                }
            })
            .collect()
    }

    fn ready(&self, service: &ServiceKey) -> Ready {
        let mut ready = Ready::new();
        for slice in self.slices(service) {
            for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready) {
                if let Some(node) = &endpoint.node {
                    let key = (slice.family, node.clone());
                    ready.entry(key).or_default().insert(endpoint.address);
                }
            }
        }
        ready
    }

    /// How many endpoints of one family are ready on `node`; one that is in two slices while it
    /// moves counts once.
    pub fn ready_on(&self, service: &ServiceKey, family: Family, node: &str) -> usize {
        let slices = self.slices(service).filter(|slice| slice.family == family);
        let here = slices
            .flat_map(|slice| &slice.endpoints)
            .filter(|endpoint| endpoint.ready && endpoint.node.as_deref() == Some(node));
        here.map(|endpoint| endpoint.address)
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// Whether some endpoint of `service` on `node` is usable.
    pub fn usable_on(&self, service: &ServiceKey, node: &str) -> bool {
        self.slices(service)
            .flat_map(|slice| &slice.endpoints)
            .any(|endpoint| endpoint.node.as_deref() == Some(node) && endpoint.usable())
    }

    fn put(&mut self, key: SliceKey, form: Option<Slice>) {
        if let Some(old) = self.slices.remove(&key)
            && let Some(keys) = self.by_service.get_mut(&old.service)
        {
            keys.retain(|known| *known != key);
            if keys.is_empty() {
                self.by_service.remove(&old.service);
            }
        }
        if let Some(mut slice) = form {
            // There are many, and they stay.
            slice.ports.shrink_to_fit();
            slice.endpoints.shrink_to_fit();
            let keys = self.by_service.entry(slice.service.clone()).or_default();
            if let Err(place) = keys.binary_search(&key) {
                keys.reserve_exact(1);
                keys.insert(place, key.clone());
            }
            self.slices.insert(key, slice);
        }
    }

    /// The key of a Service as it is known here.
    pub(super) fn known(&self, service: &ServiceKey) -> Option<&ServiceKey> {
        self.by_service
            .get_key_value(service)
            .map(|(known, _)| known)
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

    /// Whether some endpoint of `service` is usable.
    pub fn any_usable(&self, service: &ServiceKey) -> bool {
        self.slices(service)
            .flat_map(|slice| &slice.endpoints)
            .any(Endpoint::usable)
    }

    /// For each port name and protocol of one family: its endpoints with their sockets, each once.
    /// Of several copies in one slice the last one counts that does not terminate, as in kube-proxy.
    /// Of several slices' copies (an endpoint moves, or a Pod has the address of one that is about to
    /// end), first one that does not terminate, then the one on node `me`, one that is ready, one
    /// that serves: the order of slices decides nothing.
    pub fn sockets(
        &self,
        service: &ServiceKey,
        family: Family,
        me: &str,
    ) -> BTreeMap<(Name, Protocol), BTreeMap<(IpAddr, u16), Endpoint>> {
        let worth = |endpoint: &Endpoint| {
            let here = endpoint.node.as_deref() == Some(me);
            (
                !endpoint.terminating,
                here,
                endpoint.ready,
                endpoint.serving != Some(false),
                endpoint.clone(),
            )
        };
        let mut ports: BTreeMap<(Name, Protocol), BTreeMap<(IpAddr, u16), Endpoint>> =
            BTreeMap::new();
        for slice in self.slices(service).filter(|slice| slice.family == family) {
            let mut endpoints: BTreeMap<IpAddr, &Endpoint> = BTreeMap::new();
            for endpoint in &slice.endpoints {
                let known = endpoints.entry(endpoint.address).or_insert(endpoint);
                if !endpoint.terminating {
                    *known = endpoint;
                }
            }
            for port in &slice.ports {
                let sockets = ports.entry((port.name.clone(), port.protocol)).or_default();
                for endpoint in endpoints.values().copied() {
                    let socket = (endpoint.address, port.port);
                    match sockets.get(&socket) {
                        Some(known) if worth(known) >= worth(endpoint) => {}
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
