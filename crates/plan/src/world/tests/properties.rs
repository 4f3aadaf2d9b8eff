//! Random sequences of changes: World against one built anew, plans by key against whole plans,
//! owners against an election that looks at everything.

use std::cmp::Reverse;

use proptest::prelude::*;

use super::*;
use crate::announce::bgp::tests::properties as bgp;
use crate::announce::election::{Anchor, Rank};
use crate::config::SecretFacts;
use crate::desired::{Agent, Desired};
use crate::forward::Mode;

const NODES: [&str; 5] = ["n0", "n1", "n2", "n3", "n4"];

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    /// The world changes.
    Told(Event),
    /// A user changes a Service; its status stays.
    Edited(Box<Service>),
    /// The controller decides about all that is dirty; its writes are on their way.
    Decided,
    /// The oldest write arrives.
    Landed,
}

/// Everything told, kept naively.
#[derive(Clone, Debug, Default)]
struct Facts {
    objects: BTreeMap<ObjectRef, Arc<config::Object>>,
    namespaces: BTreeMap<Name, Labels>,
    services: BTreeMap<ServiceKey, Service>,
    slices: BTreeMap<SliceKey, Slice>,
    nodes: BTreeMap<Name, Node>,
    service_ranges: BTreeMap<Name, Vec<IpNet>>,
    secrets: BTreeMap<Name, SecretFacts>,
    states: BTreeMap<Name, NodeState>,
    alive: BTreeMap<Name, bool>,
    rivals: BTreeMap<PodKey, Rival>,
    synced: bool,
}

fn keep<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, form: Option<V>) {
    match form {
        Some(form) => {
            map.insert(key, form);
        }
        None => {
            map.remove(&key);
        }
    }
}

impl Facts {
    fn take(&mut self, event: Event) {
        match event {
            Event::Config { object, form } => keep(&mut self.objects, object, form),
            Event::Namespace { name, labels } => keep(&mut self.namespaces, name, labels),
            Event::Service { key, form } => keep(&mut self.services, key, form.map(|form| *form)),
            Event::Slice { key, form } => keep(&mut self.slices, key, form),
            Event::Node { name, form } => keep(&mut self.nodes, name, form),
            Event::State { node, form } => {
                let age = |state: &NodeState| (state.incarnation, state.version);
                let known = self.states.get(&node).map(age);
                if form.as_ref().is_none_or(|new| known <= Some(age(new))) {
                    keep(&mut self.states, node, form);
                }
            }
            Event::Member { node, alive } => keep(&mut self.alive, node, alive),
            Event::ServiceRange { name, form } => keep(&mut self.service_ranges, name, form),
            Event::Rival { pod, form } => keep(&mut self.rivals, pod, form),
            Event::Secret { name, form, .. } => keep(&mut self.secrets, name, form),
            Event::Decided { .. } | Event::LastGood(_) => {}
            Event::Synced => self.synced = true,
        }
    }

    /// The facts as events, in an order that `seed` gives.
    fn told_anew(&self, seed: u64) -> Vec<Event> {
        let mut events = Vec::new();
        for (object, form) in self.objects.clone() {
            let form = Some(form);
            events.push(Event::Config { object, form });
        }
        for (name, labels) in self.namespaces.clone() {
            let labels = Some(labels);
            events.push(Event::Namespace { name, labels });
        }
        for (key, form) in self.services.clone() {
            let form = Some(Box::new(form));
            events.push(Event::Service { key, form });
        }
        for (key, form) in self.slices.clone() {
            let form = Some(form);
            events.push(Event::Slice { key, form });
        }
        for (name, form) in self.nodes.clone() {
            let form = Some(form);
            events.push(Event::Node { name, form });
        }
        for (name, form) in self.service_ranges.clone() {
            let form = Some(form);
            events.push(Event::ServiceRange { name, form });
        }
        for (name, form) in self.secrets.clone() {
            events.push(Event::Secret {
                namespace: "metallb-system".into(),
                name,
                form: Some(form),
            });
        }
        for (node, form) in self.states.clone() {
            let form = Some(form);
            events.push(Event::State { node, form });
        }
        for (node, alive) in self.alive.clone() {
            let alive = Some(alive);
            events.push(Event::Member { node, alive });
        }
        for (pod, form) in self.rivals.clone() {
            let form = Some(form);
            events.push(Event::Rival { pod, form });
        }
        events.extend(self.synced.then_some(Event::Synced));
        // xorshift: any order will do.
        let mut random = seed | 1;
        let mut order: Vec<(u64, Event)> = Vec::new();
        for event in events {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            order.push((random, event));
        }
        order.sort_by_key(|(place, _)| *place);
        order.into_iter().map(|(_, event)| event).collect()
    }
}

/// A World, a controller and the agents of all nodes, planning by dirty keys only.
struct Cluster {
    world: World,
    facts: Facts,
    agents: Vec<(Agent, Desired)>,
    verdicts: BTreeMap<ObjectRef, Verdict>,
    dirty: BTreeSet<ServiceKey>,
    writes: Vec<Service>,
}

impl Cluster {
    fn new(settings: Settings) -> Self {
        let agent = |(n, node): (usize, &&str)| {
            let agent = Agent {
                node: (*node).into(),
                mode: [Mode::All, Mode::Vips, Mode::Off][n % 3],
                sources: crate::forward::Sources::default(),
                node_ports: crate::forward::NodePorts::default(),
            };
            (agent, Desired::default())
        };
        Self {
            world: World::new(settings),
            facts: Facts::default(),
            agents: NODES.iter().enumerate().map(agent).collect(),
            verdicts: BTreeMap::new(),
            dirty: BTreeSet::new(),
            writes: Vec::new(),
        }
    }

    fn tell(&mut self, event: Event) {
        self.facts.take(event.clone());
        let before = self.world.clone();
        let dirty = self.world.apply(event.clone());
        let again = self.world.clone().apply(event.clone());
        if event != Event::Synced {
            assert!(again.is_empty(), "told twice: {event:?} gives {again:?}");
        }
        if before == self.world && event != Event::Synced {
            assert!(
                dirty.is_empty(),
                "nothing changed: {event:?} gives {dirty:?}"
            );
        }
        for (agent, desired) in &mut self.agents {
            desired.replan(&self.world, agent, &dirty);
        }
        for object in dirty.objects {
            let verdict = self.world.verdicts().get(&object).cloned();
            keep(&mut self.verdicts, object, verdict);
        }
        self.dirty.extend(dirty.services);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Told(event) => self.tell(event),
            Step::Edited(mut service) => {
                if let Some(known) = self.facts.services.get(&service.key) {
                    service.ingress.clone_from(&known.ingress);
                    service.annotations.extend(
                        known
                            .annotations
                            .get(api::annotations::IP_ALLOCATED_FROM_POOL)
                            .map(|pool| {
                                (
                                    api::annotations::IP_ALLOCATED_FROM_POOL.to_owned(),
                                    pool.clone(),
                                )
                            }),
                    );
                }
                let key = service.key.clone();
                let form = Some(service);
                self.tell(Event::Service { key, form });
            }
            Step::Decided => self.decide(),
            Step::Landed => self.land(),
        }
    }

    fn decide(&mut self) {
        if !self.facts.synced {
            return;
        }
        let mut rounds = 0;
        while let Some(key) = self.dirty.pop_first() {
            rounds += 1;
            assert!(rounds < 500, "does not come to rest");
            let Some(service) = self.world.service(&key).cloned() else {
                continue;
            };
            let decision = self.decision(&service);
            if decision.needs_write(&service) {
                let mut written = service;
                written.ingress = decision
                    .ingress
                    .iter()
                    .map(|ip| Ingress {
                        ip: Some(*ip),
                        proxy: false,
                    })
                    .collect();
                let pool = decision.pool_annotation.as_ref().map(ToString::to_string);
                keep(
                    &mut written.annotations,
                    api::annotations::IP_ALLOCATED_FROM_POOL.to_owned(),
                    pool,
                );
                self.writes.push(written);
            }
            self.tell(Event::Decided {
                service: key,
                decision: Box::new(decision),
            });
        }
    }

    fn decision(&self, service: &Service) -> Decision {
        ipam::decide(
            self.world.allocator(),
            service,
            self.world.namespace_labels(&service.key.namespace),
            &self.world.ipam_options(),
        )
    }

    /// A write is refused when the Service changed meanwhile: that change has made it dirty.
    fn land(&mut self) {
        if self.writes.is_empty() {
            return;
        }
        let written = self.writes.remove(0);
        let unchanged = self.facts.services.get(&written.key).is_some_and(|known| {
            let mut known = known.clone();
            known.ingress.clone_from(&written.ingress);
            known.annotations.clone_from(&written.annotations);
            known == written
        });
        if unchanged {
            let key = written.key.clone();
            let form = Some(Box::new(written));
            self.tell(Event::Service { key, form });
        }
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            self.decide();
            if self.writes.is_empty() && self.dirty.is_empty() {
                return;
            }
            self.land();
        }
        assert!(!self.facts.synced, "does not come to rest");
    }

    /// (a) Step by step equals built anew, in another order.
    fn check_rebuilt(&self, seed: u64) {
        let mut rebuilt = World::new(self.world.settings.clone());
        for event in self.facts.told_anew(seed) {
            rebuilt.apply(event);
        }
        // Who was known first with an address is memory: the others come to it anew.
        for address in self.world.addresses() {
            let first = self.world.holders.first(address);
            let others: Vec<&Service> = self
                .facts
                .services
                .values()
                .filter(|other| Some(&other.key) != first)
                .filter(|other| other.assigned().any(|ip| ip == address))
                .collect();
            for keeps in [false, true] {
                for other in &others {
                    let mut form = (*other).clone();
                    form.ingress
                        .retain(|entry| keeps || entry.ip != Some(address));
                    let key = form.key.clone();
                    let form = Some(Box::new(form));
                    rebuilt.apply(Event::Service { key, form });
                }
            }
        }
        // What was decided is memory too, not a function of the other facts.
        let nothing = |key: &ServiceKey| Decision {
            outcome: ipam::Outcome::Settled,
            allocation: self.world.allocator.allocation(key).cloned(),
            ingress: Vec::new(),
            pool_annotation: None,
            notes: Vec::new(),
            pending: self.world.allocator.pending(key).cloned(),
        };
        for key in self.facts.services.keys() {
            rebuilt.apply(Event::Decided {
                service: key.clone(),
                decision: Box::new(Decision {
                    allocation: None,
                    pending: None,
                    ..nothing(key)
                }),
            });
        }
        for key in self.facts.services.keys() {
            rebuilt.apply(Event::Decided {
                service: key.clone(),
                decision: Box::new(nothing(key)),
            });
        }
        assert_eq!(rebuilt.ranking, self.world.ranking);
        assert_eq!(rebuilt.holders, self.world.holders);
        assert_eq!(rebuilt, self.world);
    }

    /// (b) What was planned by dirty keys equals what is planned from everything.
    fn check_plans(&self) {
        for (agent, desired) in &self.agents {
            let mut whole = Desired::default();
            whole.replan(&self.world, agent, &self.world.everything());
            assert_eq!(*desired, whole, "{}", agent.node);
            bgp::check(&self.world, &agent.node, &desired.bgp);
        }
        assert_eq!(self.verdicts, *self.world.verdicts());
    }

    /// (c) With all decisions recorded nothing is proposed.
    fn check_rest(&self) {
        if !self.facts.synced {
            return;
        }
        for service in self.world.services() {
            let decision = self.decision(service);
            assert!(decision.notes.is_empty(), "{:?}", decision.notes);
            assert!(!decision.needs_write(service), "{decision:?}");
            assert_eq!(
                decision.allocation.as_ref(),
                self.world.allocator.allocation(&service.key)
            );
        }
        let gone = |(key, _): &(&ServiceKey, _)| !self.facts.services.contains_key(*key);
        assert_eq!(self.world.allocator.allocations().find(gone), None);
    }

    /// (d) At most one owner, and one when there is a candidate: the right one.
    fn check_owners(&self) {
        for address in self.world.addresses() {
            let owners: Vec<&Name> = self
                .agents
                .iter()
                .filter(|(_, desired)| desired.l2.contains_key(&address))
                .map(|(agent, _)| &agent.node)
                .collect();
            let best = self.naive(address);
            let mut rivals = self.facts.rivals.values();
            let alone = rivals.all(|rival| rival.part != Part::Speaker);
            let owner = best.first().filter(|_| alone);
            assert_eq!(owners, owner.into_iter().collect::<Vec<_>>(), "{address}");
            let standing = self.world.standing(address);
            let ranked: Vec<&Name> = standing
                .map(|standing| standing.best.iter().map(|(_, node)| node).collect())
                .unwrap_or_default();
            let best: Vec<&Name> = best.iter().take(DEPTH).collect();
            assert_eq!(ranked, best, "{address}");
        }
    }

    /// The candidates for `address`, best first, by looking at everything.
    fn naive(&self, address: IpAddr) -> Vec<Name> {
        let facts = &self.facts;
        for service in facts.services.values() {
            if service.kind != ServiceType::LoadBalancer
                || service.class != self.world.settings.lb_class
                || !service.assigned().any(|assigned| assigned == address)
                || self.world.is_usurper(service, address)
            {
                continue;
            }
            let config = self.world.config();
            let holds = |pool: &&ipam::Pool| pool.blocks.iter().any(|net| net.contains(&address));
            let Some(pool) = config.pools.values().find(holds) else {
                continue;
            };
            let usable: Vec<&Endpoint> = facts
                .slices
                .values()
                .filter(|slice| slice.service == service.key)
                .flat_map(|slice| &slice.endpoints)
                .filter(|endpoint| endpoint.ready || endpoint.serving == Some(true))
                .collect();
            let ads: Vec<&config::L2Advertisement> = config
                .l2
                .values()
                .filter(|ad| ad.pools.contains(&pool.name) && ad.allows_service(&service.labels))
                .collect();
            let shares = service
                .annotations
                .contains_key("metallb.io/allow-shared-ip");
            if usable.is_empty()
                || (shares && ads.iter().any(|ad| !ad.service_selectors.is_empty()))
            {
                continue;
            }
            let mut candidates = Vec::new();
            for (name, node) in &facts.nodes {
                let Some(state) = facts.states.get(name) else {
                    continue;
                };
                let excluded = node.labels.contains_key(EXCLUDE_LABEL)
                    && !self.world.settings.ignore_exclude_label;
                let heard = facts.alive.get(name).copied();
                let dead = !heard.unwrap_or(!node.unreachable);
                let local = service.external_policy == Policy::Local;
                let here = usable.iter().any(|e| e.node.as_ref() == Some(name));
                if state.draining
                    || node.network_unavailable
                    || node.out_of_service
                    || excluded
                    || dead
                    || (local && !here)
                {
                    continue;
                }
                let mine: Vec<_> = ads
                    .iter()
                    .filter(|ad| ad.allows_node(&node.labels))
                    .collect();
                // Where it would be put: by length, then by name.
                let mut homes: Vec<(Reverse<u8>, &Name)> = Vec::new();
                for (name, interface) in state.interfaces.iter().filter(|(_, it)| it.up) {
                    for subnet in interface.subnets.iter().filter(|it| it.contains(&address)) {
                        homes.push((Reverse(subnet.prefix_len()), name));
                    }
                }
                let home = homes.iter().min().map(|(_, name)| *name);
                let up: Vec<&Interface> = state
                    .interfaces
                    .iter()
                    .filter(|(name, interface)| {
                        let wanted = |ad: &&&&config::L2Advertisement| {
                            let any = ad.interfaces.is_empty() && !ad.on_interface;
                            let put = ad.on_interface && home == Some(*name);
                            any || put || ad.interfaces.contains(*name)
                        };
                        interface.up && mine.iter().find(wanted).is_some()
                    })
                    .map(|(_, interface)| interface)
                    .collect();
                if up.is_empty() {
                    continue;
                }
                let holds = |address: IpAddr| {
                    up.iter()
                        .flat_map(|interface| &interface.subnets)
                        .any(|net| net.contains(&address))
                };
                let all = service.assigned().filter(|ip| holds(*ip)).count();
                let fits = (holds(address), all);
                let score: i64 = mine
                    .iter()
                    .flat_map(|ad| &ad.preferences)
                    .filter(|preference| preference.selector.matches(&node.labels))
                    .map(|preference| i64::from(preference.weight))
                    .sum();
                let anchor = service.assigned().next().expect("an address");
                let rank = Rank::of(name, &Anchor::from(anchor), 0);
                let stays = ads.iter().any(|ad| !ad.hand_back);
                let terms = service.assigned().filter_map(|ip| state.tenures.get(&ip));
                let term = terms.max().filter(|_| stays);
                candidates.push((Reverse((term, score)), rank, fits, name.clone()));
            }
            let best = candidates.iter().map(|(_, _, fits, _)| *fits).max();
            candidates.retain(|(_, _, fits, _)| Some(*fits) == best);
            if !candidates.is_empty() {
                candidates.sort();
                return candidates.into_iter().map(|(.., name)| name).collect();
            }
        }
        Vec::new()
    }
}

fn one_of(list: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(list)
}

fn a_node_name() -> impl Strategy<Value = Name> {
    one_of(&NODES).prop_map(Name::from)
}

fn a_node() -> impl Strategy<Value = Node> {
    (
        prop::option::of(one_of(&["a", "b"])),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.2),
        (prop::bool::weighted(0.1), prop::bool::weighted(0.1)),
    )
        .prop_map(|(rack, excluded, network_unavailable, cordoned, gone)| {
            let (out_of_service, unreachable) = gone;
            let mut labels = Labels::new();
            let zone = "topology.kubernetes.io/zone";
            for label in ["rack", zone] {
                labels.extend(rack.map(|rack| (label.to_owned(), rack.to_owned())));
            }
            if excluded {
                labels.insert(EXCLUDE_LABEL.to_owned(), String::new());
            }
            Node {
                labels,
                network_unavailable,
                cordoned,
                addresses: rack.map(|_| ip("172.16.0.1")).into_iter().collect(),
                out_of_service,
                unreachable,
                ..Node::default()
            }
        })
}

fn a_state() -> impl Strategy<Value = NodeState> {
    (
        prop::collection::vec(
            one_of(&[
                "eth0:",
                "eth0:10.0.0.0/24",
                "eth0:10.0.1.0/24,2001:db8::/64",
                "!eth0:10.0.0.0/24",
                "eth1:",
                "eth1:10.0.1.0/24",
                "eth1:2001:db8::/64",
            ]),
            0..3,
        ),
        prop::bool::weighted(0.1),
        1u64..3,
        0u64..5,
        prop::collection::btree_map(
            one_of(&[
                "10.0.0.1",
                "10.0.0.2",
                "10.0.1.0",
                "2001:db8::1",
                "192.0.2.9",
            ])
            .prop_map(ip),
            1u32..4,
            0..3,
        ),
    )
        .prop_map(
            |(interfaces, draining, incarnation, version, tenures)| NodeState {
                draining,
                incarnation,
                tenures,
                ..state(version, &interfaces.join(" "))
            },
        )
}

/// Pools that never meet: a conflict's outcome is history by design.
fn a_pool() -> impl Strategy<Value = config::Object> {
    let pools: &[(&str, &str, Value)] = &[
        ("a", "", json!({"addresses": ["10.0.0.0/30"]})),
        ("a", "tier=x", json!({"addresses": ["10.0.0.0/29"]})),
        (
            "a",
            "",
            json!({"addresses": ["10.0.0.2-10.0.0.5"], "avoidBuggyIPs": true}),
        ),
        ("b", "", json!({"addresses": ["10.0.1.0/31"]})),
        (
            "b",
            "tier=x",
            json!({"addresses": ["10.0.1.0/30"], "autoAssign": false}),
        ),
        (
            "b",
            "",
            json!({"addresses": ["10.0.1.0/30"],
                "serviceAllocation": {"priority": 1, "namespaceSelectors": [{"matchLabels": {"tier": "x"}}]}}),
        ),
        ("six", "", json!({"addresses": ["2001:db8::/126"]})),
        (
            "dual",
            "tier=x",
            json!({"addresses": ["10.0.2.0/31", "2001:db8:0:2::/127"]}),
        ),
    ];
    prop::sample::select(pools.to_vec())
        .prop_map(|(name, labels, spec)| object("IPAddressPool", name, labels, spec))
}

fn an_advertisement() -> impl Strategy<Value = config::Object> {
    (
        one_of(&["l", "m", "n"]),
        prop_oneof![
            4 => Just(json!({})),
            1 => Just(json!({"ipAddressPools": ["a"]})),
            1 => Just(json!({"ipAddressPools": ["six", "dual"]})),
            1 => Just(json!({"ipAddressPoolSelectors": [{"matchLabels": {"tier": "x"}}]})),
        ],
        prop_oneof![
            3 => Just(json!([])),
            1 => Just(json!([{"matchLabels": {"rack": "a"}}])),
            1 => Just(json!([{"matchExpressions": [{"key": "rack", "operator": "Exists"}]}])),
        ],
        prop_oneof![
            3 => Just(json!([])),
            2 => Just(json!(["eth0"])),
            1 => Just(json!(["eth1"])),
        ],
        prop_oneof![
            5 => Just(json!([])),
            1 => Just(json!([{"matchLabels": {"team": "red"}}])),
        ],
        prop_oneof![
            3 => Just(json!([])),
            1 => Just(json!([{"weight": 10, "preference": {"matchLabels": {"rack": "b"}}}])),
        ],
    )
        .prop_map(|(name, mut spec, nodes, interfaces, services, preferred)| {
            spec["nodeSelectors"] = nodes;
            spec["interfaces"] = interfaces;
            spec["serviceSelectors"] = services;
            spec["preferredNodeSelectors"] = preferred;
            object("L2Advertisement", name, "", spec)
        })
}

/// Of `corten.dev`: addresses on interfaces, and addresses that stay.
fn a_native_advertisement() -> impl Strategy<Value = config::Object> {
    (
        one_of(&["linux", "other"]),
        prop_oneof![
            2 => Just(json!({"linux": {"device": "lan"}})),
            2 => Just(json!({"linux": {"device": "kube-lb0"}})),
            3 => Just(json!({"layer2": {"handBack": false}})),
        ],
        prop_oneof![
            3 => Just(json!([])),
            1 => Just(json!([{"matchLabels": {"rack": "a"}}])),
        ],
        prop_oneof![
            3 => Just(json!([])),
            1 => Just(json!([{"matchLabels": {"team": "red"}}])),
        ],
    )
        .prop_map(|(name, mut spec, nodes, services)| {
            spec["nodeSelectors"] = nodes;
            spec["serviceSelectors"] = services;
            native(name, spec)
        })
}

fn a_service_key() -> impl Strategy<Value = ServiceKey> {
    (
        prop_oneof![4 => Just("default"), 1 => Just("other")],
        one_of(&["s0", "s1", "s2", "s3"]),
    )
        .prop_map(|(namespace, name)| ServiceKey::new(namespace, name))
}

fn a_service() -> impl Strategy<Value = Service> {
    (
        a_service_key(),
        one_of(&["4", "4", "6", "46", "p"]),
        prop::option::weighted(0.4, one_of(&["", "j"])),
        one_of(&["80", "80 81", "82"]),
        prop::option::weighted(0.1, one_of(&["10.0.0.1", "10.0.1.1", "10.0.0.1,2001:db8::1"])),
        (any::<bool>(), prop::bool::weighted(0.3)),
        prop_oneof![8 => Just(ServiceType::LoadBalancer), 1 => Just(ServiceType::ClusterIP), 1 => Just(ServiceType::ExternalName)],
        prop::option::weighted(0.1, Just("x")),
        // Statuses that nobody here wrote.
        one_of(&["", "", "10.0.0.1", "10.0.0.2 2001:db8::1", "2001:db8::1", "10.0.1.0", "192.0.2.1"]),
    )
        .prop_map(
            |(key, families, sharing, ports, wanted, (red, local), kind, class, status)| {
                let mut service = Service {
                    key,
                    kind,
                    class: class.map(Name::from),
                    ..balancer("s", status)
                };
                (service.families, service.family_policy) = match families {
                    "4" => (vec![Family::V4], FamilyPolicy::SingleStack),
                    "6" => (vec![Family::V6], FamilyPolicy::SingleStack),
                    "46" => (vec![Family::V4, Family::V6], FamilyPolicy::RequireDualStack),
                    _ => (vec![Family::V4, Family::V6], FamilyPolicy::PreferDualStack),
                };
                let mut annotate = |key: &str, value: Option<&str>| {
                    let entry = value.map(|value| (format!("metallb.io/{key}"), value.to_owned()));
                    service.annotations.extend(entry);
                };
                annotate("allow-shared-ip", sharing);
                annotate("loadBalancerIPs", wanted);
                if red {
                    service.labels = labels("team=red");
                }
                if local {
                    service.external_policy = Policy::Local;
                }
                service.ports = ports
                    .split_whitespace()
                    .map(|port| Port {
                        name: if port == "80" { "http" } else { port }.into(),
                        protocol: Protocol::Tcp,
                        port: port.parse().expect("a port"),
                        node_port: if red { 30080 } else { 0 },
                    })
                    .collect();
                service
            },
        )
}

fn a_slice() -> impl Strategy<Value = Slice> {
    (
        a_service_key(),
        prop::collection::vec(
            (
                one_of(&["10.244.0.1", "10.244.0.2", "10.244.0.3"]),
                prop::option::weighted(0.9, a_node_name()),
                one_of(&["", "", "", "!", "~", "-"]),
                one_of(&["", "", "#a", "#a,=a"]),
            ),
            0..4,
        ),
    )
        .prop_map(|(service, endpoints)| {
            let endpoints: Vec<String> = endpoints
                .into_iter()
                .map(|(address, node, kind, hints)| match node {
                    Some(node) => format!("{kind}{address}@{node}{hints}"),
                    None => format!("{kind}{address}{hints}"),
                })
                .collect();
            Slice {
                service,
                ..slice("s", &endpoints.join(" "))
            }
        })
}

fn an_event() -> impl Strategy<Value = Event> {
    let maybe = |weight| prop::bool::weighted(weight);
    prop_oneof![
        4 => (prop_oneof![a_pool().boxed(), an_advertisement().boxed(), a_native_advertisement().boxed(), bgp::an_object().boxed()], maybe(0.2)).prop_map(|(object, gone)| {
            Event::Config {
                object: object.reference(),
                form: (!gone).then(|| Arc::new(object)),
            }
        }),
        1 => (one_of(&["default", "other"]), prop::option::weighted(0.9, one_of(&["", "tier=x"])))
            .prop_map(|(name, text)| Event::Namespace { name: name.into(), labels: text.map(labels) }),
        3 => (a_service(), maybe(0.3)).prop_map(|(service, gone)| Event::Service {
            key: service.key.clone(),
            form: (!gone).then(|| Box::new(service)),
        }),
        6 => (one_of(&["e0", "e1", "e2", "e3", "e4", "e5"]), a_slice(), maybe(0.15)).prop_map(|(name, slice, gone)| Event::Slice {
            key: key(name),
            form: (!gone).then_some(slice),
        }),
        4 => (a_node_name(), prop::option::weighted(0.9, a_node())).prop_map(|(name, form)| Event::Node { name, form }),
        5 => (a_node_name(), prop::option::weighted(0.95, a_state())).prop_map(|(node, form)| Event::State { node, form }),
        2 => (a_node_name(), prop::option::weighted(0.8, maybe(0.6))).prop_map(|(node, alive)| Event::Member { node, alive }),
        1 => (one_of(&["p", "q"]), prop::option::weighted(0.3, (maybe(0.7), a_node_name()))).prop_map(|(pod, form)| Event::Rival {
            pod: key(pod),
            form: form.map(|(speaks, node)| Rival {
                part: if speaks { Part::Speaker } else { Part::Controller },
                node,
                workload: "".into(),
            }),
        }),
    ]
}

fn a_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => an_event().prop_map(Step::Told),
        6 => a_service().prop_map(|service| Step::Edited(Box::new(service))),
        4 => Just(Step::Decided),
        4 => Just(Step::Landed),
    ]
}

/// What a cluster mostly has from the start; random steps alone seldom come that far.
fn beginning() -> Vec<Event> {
    let mut events = vec![
        configured(object(
            "IPAddressPool",
            "a",
            "",
            json!({"addresses": ["10.0.0.0/29"]}),
        )),
        configured(object(
            "IPAddressPool",
            "six",
            "",
            json!({"addresses": ["2001:db8::/126"]}),
        )),
        configured(object("L2Advertisement", "l", "", json!({}))),
    ];
    for node in NODES {
        events.push(Event::Node {
            name: node.into(),
            form: Some(Node::default()),
        });
        events.push(Event::State {
            node: node.into(),
            form: Some(state(0, "eth0:")),
        });
    }
    events.extend(bgp::beginning().into_iter().map(configured));
    for (name, addresses) in [("s0", "10.0.0.1 2001:db8::1"), ("s1", ""), ("s2", "")] {
        let service = balancer(name, addresses);
        events.push(Event::Service {
            key: service.key.clone(),
            form: Some(Box::new(service)),
        });
        events.push(Event::Slice {
            key: key(name),
            form: Some(slice(name, "10.244.0.1@n0 10.244.0.2@n3")),
        });
    }
    events
}

fn some_settings() -> impl Strategy<Value = Settings> {
    (prop::bool::weighted(0.1), prop::bool::weighted(0.2)).prop_map(|(class, ignore)| Settings {
        lb_class: class.then(|| "x".into()),
        ignore_exclude_label: ignore,
        ..settings()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changes(
        settings in some_settings(),
        from_nothing in prop::bool::weighted(0.2),
        steps in prop::collection::vec(a_step(), 1..40),
        synced_at in 0usize..12,
        seed in any::<u64>(),
    ) {
        let mut cluster = Cluster::new(settings);
        if !from_nothing {
            for event in beginning() {
                cluster.tell(event);
            }
        }
        for (n, step) in steps.into_iter().enumerate() {
            if n == synced_at {
                cluster.tell(Event::Synced);
            }
            cluster.step(step);
            cluster.check_plans();
            cluster.check_owners();
            if n % 8 == 0 {
                cluster.check_rebuilt(seed);
            }
        }
        cluster.settle();
        cluster.check_plans();
        cluster.check_owners();
        cluster.check_rebuilt(seed);
        cluster.check_rest();
    }
}
