//! Everything that is known, as one value.
//!
//! [`World::apply`] takes one change and says which keys it touches. The indexes are part of the
//! value: a change of a pool finds its Services, a change of a node the addresses that rank it.
//! Changed step by step, World equals World built anew from the same facts; a property test says so.

mod decode;
mod dirty;
mod endpoints;
mod event;
mod holders;
mod node;
mod ranking;
mod rival;
mod service;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::corten::v1alpha1::AcceptedConfigSpec;
use ipnet::IpNet;

pub use decode::service_ranges;
pub(crate) use decode::subnet;
pub use dirty::Dirty;
use endpoints::Touched;
pub use endpoints::{Endpoint, Endpoints, Hints, Slice, SliceKey, SlicePort, Usable};
pub use event::Event;
pub use node::{
    EXCLUDE_LABEL, Interface, Node, NodeState, OUT_OF_SERVICE, TO_BE_DELETED, Tenures, Term,
};
pub use ranking::{DEPTH, Fit, Standing};
pub use rival::{Part, PodKey, Rival, Rivals};
pub use service::{FamilyPolicy, Ingress, Labels, Policy, Port, Service, ServiceType};

use crate::announce::l2::{self, Able};
use crate::config::{self, Compiled, Config, Kept, ObjectRef, Objects, SecretFacts, Verdict};
use crate::ipam::{self, Allocator, Decision};
use crate::name::{Name, ServiceKey};
use holders::Holders;
use ranking::Ranking;

/// What the operator set by flags; it does not change while the program runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The namespace that configuration objects must live in.
    pub namespace: Name,
    /// `--lb-class`: only Services of this class are ours; without it, only those of none.
    pub lb_class: Option<Name>,
    /// `--ignore-exclude-lb`: the exclude label of nodes does not count.
    pub ignore_exclude_label: bool,
    /// `METALLB_BGP_TYPE=native`: see [`config::Context::native_bgp`].
    pub native_bgp: bool,
}

/// Everything that is known, with its indexes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct World {
    settings: Settings,
    objects: Objects,
    synced: bool,
    compiled: Compiled,
    /// Last good forms from before the start, until they are used.
    kept: Kept,
    namespaces: BTreeMap<Name, Labels>,
    /// Ranges of ClusterIPs by ServiceCIDR.
    service_ranges: BTreeMap<Name, Vec<IpNet>>,
    /// Secrets of the configuration's namespace.
    secrets: BTreeMap<Name, SecretFacts>,
    services: BTreeMap<ServiceKey, Box<Service>>,
    endpoints: Endpoints,
    nodes: BTreeMap<Name, Node>,
    states: BTreeMap<Name, NodeState>,
    alive: BTreeMap<Name, bool>,
    rivals: Rivals,
    allocator: Allocator,
    holders: Holders,
    ranking: Ranking,
}

impl World {
    /// An empty World under these settings.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// The settings it was made with.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The configuration in force.
    pub const fn config(&self) -> &Config {
        &self.compiled.config
    }

    /// The configuration with the verdicts and the last good forms.
    pub const fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// The last good forms that must outlive this process: those of objects that are bad now.
    pub fn kept(&self) -> AcceptedConfigSpec {
        self.compiled.kept()
    }

    /// The verdict of every configuration object.
    pub const fn verdicts(&self) -> &BTreeMap<ObjectRef, Verdict> {
        &self.compiled.verdicts
    }

    /// A configuration object in its newest form, good or bad.
    pub fn object(&self, object: &ObjectRef) -> Option<&config::Object> {
        self.objects.get(object).map(|form| &**form)
    }

    /// What is allocated to whom.
    pub const fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// Every EndpointSlice.
    pub const fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Which Services the allocator serves.
    pub fn ipam_options(&self) -> ipam::Options {
        ipam::Options {
            lb_class: self.settings.lb_class.clone(),
        }
    }

    /// A Service.
    pub fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.get(key).map(Box::as_ref)
    }

    /// Every Service, in the order of their names.
    pub fn services(&self) -> impl Iterator<Item = &Service> + '_ {
        self.services.values().map(Box::as_ref)
    }

    /// The labels of a namespace, where it is known.
    pub fn namespace_labels(&self, namespace: &str) -> Option<&Labels> {
        self.namespaces.get(namespace)
    }

    /// A node, as the API knows it.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// A node with its name as it is shared.
    pub(crate) fn node_named(&self, name: &str) -> Option<(&Name, &Node)> {
        self.nodes.get_key_value(name)
    }

    /// The names of all nodes.
    pub fn node_names(&self) -> impl Iterator<Item = &Name> + '_ {
        self.nodes.keys()
    }

    /// What a node's agent says of it.
    pub fn node_state(&self, name: &str) -> Option<&NodeState> {
        self.states.get(name)
    }

    /// Whether failure detection has not called `node` dead. A node that nothing was heard of yet
    /// counts as alive, so that an agent that starts takes nothing from its neighbours; unless the
    /// API does not hear it either.
    pub fn presumed_alive(&self, node: &str) -> bool {
        let unreachable = || self.nodes.get(node).is_some_and(|node| node.unreachable);
        let heard = self.alive.get(node).copied();
        heard.unwrap_or_else(|| !unreachable())
    }

    /// The ranges that cluster IPs come from, of all ServiceCIDRs.
    pub fn cluster_ranges(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.service_ranges.values().flatten().copied()
    }

    /// MetalLB's living Pods.
    pub const fn rivals(&self) -> &Rivals {
        &self.rivals
    }

    /// Whether the node bears the exclude label and the label counts.
    pub fn excluded(&self, node: &Node) -> bool {
        !self.settings.ignore_exclude_label && node.labels.contains_key(EXCLUDE_LABEL)
    }

    /// The best candidates for `address`; `None` when nobody may announce it.
    pub fn standing(&self, address: IpAddr) -> Option<&Standing> {
        self.ranking.get(address)
    }

    /// The Services of ours that hold `address`, in the order of their names. Of Services that may
    /// not share it the one that was known first stays, without the others.
    pub fn holders(&self, address: IpAddr) -> impl Iterator<Item = &Service> + '_ {
        let find = |key| self.service(key).filter(|found| self.is_ours(found));
        self.holders.of(address, find).into_iter()
    }

    /// Whether `service` has to leave `address`, which is in its status, to another one.
    pub fn is_usurper(&self, service: &Service, address: IpAddr) -> bool {
        self.holders.several(address)
            && self.is_ours(service)
            && self
                .holders(address)
                .all(|holder| holder.key != service.key)
    }

    /// Every address that some Service holds.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.holders.addresses()
    }

    /// The addresses within `prefix` that some Service holds, in order.
    pub fn addresses_within(&self, prefix: IpNet) -> impl Iterator<Item = IpAddr> + '_ {
        self.holders.within(prefix)
    }

    /// Whether the Service is of type LoadBalancer and of our class.
    pub fn is_ours(&self, service: &Service) -> bool {
        service.kind == ServiceType::LoadBalancer && service.class == self.settings.lb_class
    }

    /// Every key there is: what a full replan looks at.
    pub fn everything(&self) -> Dirty {
        Dirty {
            services: self.services.keys().cloned().collect(),
            forward: self.services.keys().cloned().collect(),
            addresses: self.addresses().collect(),
            routes: self.addresses().collect(),
            nodes: self.nodes.keys().cloned().collect(),
            // All Services are in `forward`.
            places: BTreeSet::new(),
            bgp: true,
            objects: self.compiled.verdicts.keys().cloned().collect(),
            members: true,
        }
    }

    /// Takes one change in and says which keys it touches. A change that changes nothing touches
    /// nothing.
    pub fn apply(&mut self, event: Event) -> Dirty {
        match event {
            Event::Config { object, form } => self.apply_config(object, form),
            Event::Namespace { name, labels } => self.apply_namespace(name, labels),
            Event::Service { key, form } => self.apply_service(key, form),
            Event::Slice { key, form } => self.apply_slice(key, form),
            Event::Node { name, form } => self.apply_node(name, form),
            Event::ServiceRange { name, form } => self.apply_service_range(name, form),
            Event::Secret {
                namespace,
                name,
                form,
            } => self.apply_secret(&namespace, name, form),
            Event::LastGood(kept) => self.apply_last_good(kept),
            Event::State { node, form } => self.apply_state(node, form),
            Event::Member { node, alive } => {
                let before = self.presumed_alive(&node);
                let mut dirty = self.change_node(node.clone(), |world, name| {
                    let changed = put(&mut world.alive, name.clone(), alive);
                    changed && world.presumed_alive(&name) != before
                });
                // Hubs hear of other nodes.
                let turned = self.presumed_alive(&node) != before;
                dirty.nodes.extend(turned.then_some(node));
                dirty
            }
            Event::Rival { pod, form } => self.apply_rival(pod, form),
            Event::Decided { service, decision } => self.apply_decision(&service, &decision),
            Event::Synced => self.apply_synced(),
        }
    }

    fn apply_config(&mut self, object: ObjectRef, form: Option<Arc<config::Object>>) -> Dirty {
        match form {
            // A write of its status, ours most of all, changes nothing that is planned.
            Some(form) if self.says_as(&object, &form) => return Dirty::default(),
            Some(form) => {
                self.objects.insert(object, form);
            }
            None if self.objects.remove(&object).is_none() => return Dirty::default(),
            None => {}
        }
        // Before everything is known, an object may seem good whose older rival is still to come.
        if !self.synced {
            return Dirty::default();
        }
        self.compile()
    }

    /// What compiling needs to know besides the objects.
    pub fn context(&self) -> config::Context<'_> {
        config::Context {
            native_bgp: self.settings.native_bgp,
            secrets: Some(&self.secrets),
            ..config::Context::of_cluster(
                &self.settings.namespace,
                &self.nodes,
                &self.service_ranges,
            )
        }
    }

    /// The password of a peer in force, where it can be had.
    pub fn password(&self, peer: &str) -> Option<config::Hidden> {
        match &self.config().bgp.peers.get(peer)?.password {
            config::Password::None => None,
            config::Password::Inline { .. } => {
                let text = self.compiled.password(peer)?;
                Some(config::Hidden::from(text.as_bytes()))
            }
            config::Password::Secret { name, .. } => self.secrets.get(name)?.usable().cloned(),
        }
    }

    /// A node's form reaches the configuration by its labels (peers that share a node) and by the
    /// ranges that pools should keep out of.
    fn apply_node(&mut self, name: Name, form: Option<Node>) -> Dirty {
        let old = self.nodes.get(&name);
        let addresses = |node: &Node| node.addresses.clone();
        let members = old.map(addresses) != form.as_ref().map(addresses);
        let read = |node: &Node| (node.labels.clone(), node.pod_ranges.clone());
        let recompile = members || old.map(read) != form.as_ref().map(read);
        let speaks = |node: &Node| {
            let flags = (node.network_unavailable, node.cordoned);
            (node.labels.clone(), node.addresses.clone(), flags)
        };
        let routes = old.map(speaks) != form.as_ref().map(speaks);
        let place = |node: &Node| (node.addresses.clone(), node.zone().map(str::to_owned));
        let moved = old.map(place) != form.as_ref().map(place);
        let node = name.clone();
        let mut dirty = self.change_node(name, |world, name| put(&mut world.nodes, name, form));
        dirty.members = members;
        dirty.places.extend(moved.then(|| node.clone()));
        dirty.nodes.extend(routes.then_some(node));
        if recompile && self.synced {
            dirty.extend(self.compile());
        }
        dirty
    }

    fn apply_state(&mut self, node: Name, form: Option<NodeState>) -> Dirty {
        let draining = |world: &Self| {
            let state = world.states.get(&node);
            state.is_some_and(|state| state.draining)
        };
        let before = draining(self);
        let mut moved = BTreeSet::new();
        let mut dirty = self.change_node(node.clone(), |world, name| {
            let known = world.states.get(&name);
            let (stale, same) = match (known, &form) {
                (Some(known), Some(new)) => (known.newer_than(new), known.is_able_as(new)),
                _ => (false, false),
            };
            if same
                && !stale
                && let (Some(known), Some(new)) = (known, &form)
            {
                moved.extend(known.moved(new));
            }
            !stale && put(&mut world.states, name, form) && !same
        });
        // One address is enough for a Service's others.
        let services = moved.into_iter().flat_map(|ip| self.holders(ip));
        let touched: BTreeSet<IpAddr> = services.flat_map(Service::assigned).collect();
        self.reelect(touched, &mut dirty);
        if draining(self) != before {
            dirty.nodes.insert(node);
        }
        dirty
    }

    fn apply_service_range(&mut self, name: Name, form: Option<Vec<IpNet>>) -> Dirty {
        if put(&mut self.service_ranges, name, form) && self.synced {
            return self.compile();
        }
        Dirty::default()
    }

    fn apply_secret(&mut self, namespace: &str, name: Name, form: Option<SecretFacts>) -> Dirty {
        let counts = *namespace == *self.settings.namespace;
        if counts && put(&mut self.secrets, name, form) && self.synced {
            return self.compile();
        }
        Dirty::default()
    }

    /// Before the start they are kept until the objects they are forms of are known. Later on what
    /// World itself saw last holds, and only an object of which it never saw a good form gets one.
    fn apply_last_good(&mut self, kept: Kept) -> Dirty {
        if !self.synced {
            self.kept = kept;
            return Dirty::default();
        }
        let known = &mut self.compiled.accepted;
        let before = known.len();
        for (reference, form) in kept.resolve(&self.objects) {
            known.entry(reference).or_insert(form);
        }
        if known.len() == before {
            return Dirty::default();
        }
        self.compile()
    }

    /// Whether the known form of `object` wants the same.
    fn says_as(&self, object: &ObjectRef, form: &config::Object) -> bool {
        self.objects
            .get(object)
            .is_some_and(|known| known.same_form(form))
    }

    /// Compiles the configuration anew; what has changed by that is dirty.
    fn compile(&mut self) -> Dirty {
        let compiled = config::compile(&self.objects, &self.compiled.accepted, self.context());
        let old = std::mem::replace(&mut self.compiled, compiled);
        let mut dirty = Dirty::default();
        let new = &self.compiled;
        let judged_anew = new
            .verdicts
            .iter()
            .filter(|(object, verdict)| old.verdicts.get(object) != Some(verdict));
        dirty
            .objects
            .extend(judged_anew.map(|(object, _)| object.clone()));
        let gone = old
            .verdicts
            .into_keys()
            .filter(|object| !new.verdicts.contains_key(object));
        dirty.objects.extend(gone);
        if old.config.pools != new.config.pools {
            dirty
                .services
                .extend(self.allocator.set_pools(new.config.pools.values().cloned()));
        }
        dirty.bgp = old.config.bgp != new.config.bgp || old.config.pools != new.config.pools;
        if old.config != new.config {
            let all: Vec<IpAddr> = self.addresses().collect();
            self.reelect(all.iter().copied(), &mut dirty);
            // Interfaces may have changed although no standing did.
            dirty.addresses.extend(all);
        }
        dirty
    }

    /// All that existed at the start is known: the configuration comes into force, and what the
    /// Services' statuses say is claimed before anything new is given.
    fn apply_synced(&mut self) -> Dirty {
        self.synced = true;
        self.compiled.accepted = std::mem::take(&mut self.kept).resolve(&self.objects);
        self.compile();
        let options = self.ipam_options();
        let (services, namespaces) = (&self.services, &self.namespaces);
        self.allocator.adopt(
            services
                .values()
                .map(|service| (&**service, namespaces.get(&service.key.namespace))),
            &options,
        );
        pack(&mut self.services);
        self.holders.pack();
        self.allocator.pack();
        self.everything()
    }

    fn apply_namespace(&mut self, name: Name, labels: Option<Labels>) -> Dirty {
        let mut dirty = Dirty::default();
        if put(&mut self.namespaces, name.clone(), labels) {
            let first = ServiceKey {
                namespace: name.clone(),
                name: "".into(),
            };
            dirty.services.extend(
                self.services
                    .range(first..)
                    .map(|(key, _)| key)
                    .take_while(|key| key.namespace == name)
                    .cloned(),
            );
        }
        dirty
    }

    fn apply_service(&mut self, key: ServiceKey, mut form: Option<Box<Service>>) -> Dirty {
        let mut dirty = Dirty::default();
        if self.services.get(&key) == form.as_ref() {
            return dirty;
        }
        let key = self.shared(key);
        if let Some(form) = &mut form {
            form.key = key.clone();
        }
        let assigned = |service: Option<&Service>| -> BTreeSet<IpAddr> {
            service.into_iter().flat_map(Service::assigned).collect()
        };
        let before = assigned(self.service(&key));
        let after = assigned(form.as_deref());
        let addresses = &before | &after;
        let holders = self.holding(&addresses);
        // An address that stays keeps its place: who was known first counts.
        for address in &before - &after {
            self.holders.remove(address, &key);
        }
        for address in &after - &before {
            self.holders.add(address, &key);
        }
        if form.is_none() {
            dirty.services.extend(self.allocator.forget(&key));
        }
        put(&mut self.services, key.clone(), form);
        // One that left an address, or came first, may change what others forward.
        let now = self.holding(&addresses);
        dirty.forward.extend(
            holders
                .symmetric_difference(&now)
                .map(|(_, key)| key.clone()),
        );
        self.reelect(addresses.iter().copied(), &mut dirty);
        dirty.routes.extend(addresses.iter().copied());
        dirty.addresses.extend(addresses);
        dirty.services.insert(key.clone());
        dirty.forward.insert(key);
        dirty
    }

    /// The key of a Service as it is known already: there are many, and each stands in many places.
    fn shared(&self, key: ServiceKey) -> ServiceKey {
        let known = self.services.get_key_value(&key).map(|(known, _)| known);
        let known = known.or_else(|| self.endpoints.known(&key)).cloned();
        known.unwrap_or(key)
    }

    /// Who holds these addresses.
    fn holding(&self, addresses: &BTreeSet<IpAddr>) -> BTreeSet<(IpAddr, ServiceKey)> {
        let of = |address: &IpAddr| {
            let address = *address;
            let holders = self.holders(address);
            holders.map(move |holder| (address, holder.key.clone()))
        };
        addresses.iter().flat_map(of).collect()
    }

    fn apply_slice(&mut self, mut key: SliceKey, mut form: Option<Slice>) -> Dirty {
        let mut dirty = Dirty::default();
        if let Some(slice) = &mut form {
            slice.service = self.shared(slice.service.clone());
            if key.namespace == slice.service.namespace {
                key.namespace = slice.service.namespace.clone();
            }
            for node in slice.endpoints.iter_mut().filter_map(|it| it.node.as_mut()) {
                if let Some((known, _)) = self.nodes.get_key_value(node) {
                    *node = known.clone();
                }
            }
        }
        let weighs = self.config().bgp.weighs();
        for Touched {
            service,
            before,
            after,
            weights,
        } in self.endpoints.apply(key, form, weighs)
        {
            let ours = self.service(&service);
            let ours = ours.filter(|service| self.is_ours(service));
            let weighed =
                ours.filter(|service| weights && service.external_policy == Policy::Local);
            dirty
                .routes
                .extend(weighed.into_iter().flat_map(Service::assigned));
            let addresses: Vec<IpAddr> = ours
                .filter(|service| {
                    before.anywhere != after.anywhere
                        || (service.external_policy == Policy::Local && before != after)
                })
                .into_iter()
                .flat_map(Service::assigned)
                .collect();
            self.reelect(addresses.iter().copied(), &mut dirty);
            dirty.routes.extend(addresses.iter().copied());
            // The same owner may announce for another set of Services.
            dirty.addresses.extend(addresses);
            dirty.forward.insert(service);
        }
        dirty
    }

    /// Changes what is known of one node, then looks again at the addresses that rank it and at
    /// those that would: one hash for each other address. `change` says whether it matters.
    fn change_node(&mut self, node: Name, change: impl FnOnce(&mut Self, Name) -> bool) -> Dirty {
        let mut dirty = Dirty::default();
        if !change(self, node.clone()) || !self.synced {
            return dirty;
        }
        let ranked: BTreeSet<IpAddr> = self.ranking.ranking(&node).collect();
        let all = Able::all(self);
        let standings: Vec<(IpAddr, Option<Standing>)> = match Able::find(self, &node) {
            Some(able) => {
                let others = self.addresses().filter(|address| !ranked.contains(address));
                let entered = others.filter_map(|address| {
                    let standing = self.ranking.get(address);
                    Some((address, Some(l2::enter(self, able, address, standing)?)))
                });
                let again = |address: &IpAddr| (*address, l2::elect(self, &all, *address));
                entered.chain(ranked.iter().map(again)).collect()
            }
            None => {
                let without = |address: &IpAddr| {
                    let standing = self.ranking.get(*address);
                    let left = standing.and_then(|standing| standing.without(&node));
                    // All that may stand are ranked: nobody is to follow.
                    let left = left.filter(|left| left.best.len() == all.len());
                    (*address, left.or_else(|| l2::elect(self, &all, *address)))
                };
                ranked.iter().map(without).collect()
            }
        };
        self.stand(standings, &mut dirty);
        // An owner that stays may announce on other interfaces or for other Services.
        let owns = |address: &IpAddr| {
            let owner = self.ranking.get(*address).and_then(Standing::owner);
            owner == Some(&node)
        };
        dirty
            .addresses
            .extend(self.ranking.ranking(&node).filter(owns));
        dirty
    }

    /// The first speaker and the end of the last one concern every address; one on a node concerns
    /// its sessions.
    fn apply_rival(&mut self, pod: PodKey, form: Option<Rival>) -> Dirty {
        let old = self.rivals.get(&pod).map(|rival| rival.node.clone());
        let new = form.as_ref().map(|rival| rival.node.clone());
        let nodes: BTreeSet<Name> = old.into_iter().chain(new).collect();
        let look = |rivals: &Rivals| {
            let nodes = nodes.iter();
            let on: Vec<bool> = nodes.map(|node| rivals.speaker_on(node)).collect();
            (rivals.any(Part::Speaker), on)
        };
        let (any, on) = look(&self.rivals);
        self.rivals.set(pod, form);
        let (any_now, on_now) = look(&self.rivals);
        let mut dirty = Dirty::default();
        if !self.synced {
            return dirty;
        }
        if any != any_now {
            dirty.addresses.extend(self.addresses());
        }
        let changed = on.into_iter().zip(on_now).map(|(was, is)| was != is);
        let touched = nodes.into_iter().zip(changed);
        dirty
            .nodes
            .extend(touched.filter_map(|(node, changed)| changed.then_some(node)));
        dirty
    }

    fn apply_decision(&mut self, service: &ServiceKey, decision: &Decision) -> Dirty {
        // It went while its decision was under way: nothing may be kept for it.
        if !self.services.contains_key(service) {
            return Dirty::default();
        }
        match self.allocator.commit(service, decision) {
            Ok(helped) => Dirty {
                services: helped.into_iter().collect(),
                ..Dirty::default()
            },
            // Decided on an older World: it is decided anew on this one.
            Err(_) => Dirty {
                services: BTreeSet::from([service.clone()]),
                ..Dirty::default()
            },
        }
    }

    /// Elects anew for these addresses; those whose standing changed are dirty. Before all is known
    /// nobody stands; the configuration's coming into force elects for all.
    fn reelect(&mut self, addresses: impl IntoIterator<Item = IpAddr>, dirty: &mut Dirty) {
        if !self.synced {
            return;
        }
        let able = Able::all(self);
        let standings: Vec<_> = addresses
            .into_iter()
            .map(|address| (address, l2::elect(self, &able, address)))
            .collect();
        self.stand(standings, dirty);
    }

    /// Puts standings in place; addresses whose standing changed are dirty.
    fn stand(&mut self, standings: Vec<(IpAddr, Option<Standing>)>, dirty: &mut Dirty) {
        for (address, standing) in standings {
            if self.ranking.set(address, standing) {
                dirty.addresses.insert(address);
            }
        }
    }
}

/// Builds a map anew, with nodes that are full: those of one that grew are half empty.
pub(crate) fn pack<K: Ord, T>(map: &mut BTreeMap<K, T>) {
    *map = std::mem::take(map).into_iter().collect();
}

/// Puts `form` under `name`, or takes it out; says whether that changed anything.
fn put<K: Ord, T: PartialEq>(map: &mut BTreeMap<K, T>, name: K, form: Option<T>) -> bool {
    match form {
        Some(form) if map.get(&name) == Some(&form) => false,
        Some(form) => {
            map.insert(name, form);
            true
        }
        None => map.remove(&name).is_some(),
    }
}
