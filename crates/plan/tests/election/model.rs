//! Nodes that announce: `proto::member`, `plan`'s World and the agent's rules between them, in
//! virtual time. What it does not have: forwarding, interfaces, the API.
//!
//! The rules are those of `corten::agent`: nothing is announced before every other node was heard or
//! is dead; a node that ends answers for each address until another one claims it; who is isolated
//! answers nothing; who hears that another station has an address which it announces asks until it
//! knows whether that is a member. No member may ever be held for a stranger, and nothing that a node
//! takes over may wait.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use plan::announce::l2::plan;
use plan::announce::owners::Owners;
use plan::announce::stations::Stations;
use plan::announce::tenure::{self, Terms};
use plan::config::Object;
use plan::name::{Name, ServiceKey};
use plan::net::{Family, Protocol};
use plan::world::{
    Dirty, Endpoint, Event, FamilyPolicy, Ingress, Interface, Node, NodeState, Policy, Port,
    Service, ServiceType, Settings, Slice, SlicePort, Tenures, World,
};
use proto::announcer::{self, Announcer};
use proto::conflict::{Act, Conflicts, Whose};
use proto::ethernet::Mac;
use proto::member::{self, NodeName};
use serde_json::{Value, json};

use super::sim::{Net, Setup, ms, name, random};

const NAMESPACE: &str = "metallb-system";
/// Of the first two, each has an owner of its own among most numbers of nodes. The third stays with
/// its owner.
pub(crate) const ADDRESSES: usize = 3;
/// The one that stays.
pub(crate) const STAYING: usize = 2;
/// How long a node that ends answers for what nobody takes over.
pub(crate) const HAND_OVER: Duration = Duration::from_millis(1500);
/// Who answers alone for so long has the address: while two say that they do, and fall silent one
/// after the other, that means nothing.
const LEAST: Duration = Duration::from_millis(100);
/// How long an agent has company before it counts (`corten::agent`).
pub(crate) const HEARING: Duration = Duration::from_secs(1);
/// How long a next start may take (`corten::agent`).
pub(crate) const SUCCESSION: Duration = Duration::from_secs(5);

pub(crate) fn address(n: usize) -> IpAddr {
    let last = if n == STAYING { 129 } else { n as u8 + 1 };
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
}

/// The MAC address of a node's interface.
fn station(n: usize) -> Mac {
    Mac([2, 0, 0, 0, 0, n as u8])
}

fn node_name(n: usize) -> Name {
    name(n).as_str().into()
}

fn config(api: &str, kind: &str, name: &str, spec: Value) -> Event {
    let manifest = json!({"apiVersion": api, "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec});
    let decoded = api::object::Object::decode(manifest).expect("an object");
    let object = Object::try_from(decoded.object).expect("a configuration object");
    Event::Config {
        object: object.reference(),
        form: Some(Arc::new(object)),
    }
}

fn service(n: usize) -> [Event; 2] {
    let key = ServiceKey::new("default", &format!("service-{n}"));
    let service = Service {
        key: key.clone(),
        uid: "".into(),
        resource_version: "".into(),
        created: "".into(),
        labels: BTreeMap::new(),
        other_proxy: false,
        annotations: BTreeMap::new(),
        kind: ServiceType::LoadBalancer,
        class: None,
        cluster_ips: Vec::new(),
        families: vec![Family::V4],
        family_policy: FamilyPolicy::SingleStack,
        load_balancer_ip: None,
        external_ips: Vec::new(),
        source_ranges: Vec::new(),
        external_policy: Policy::Cluster,
        internal_policy: Policy::Cluster,
        health_check_node_port: 0,
        affinity_seconds: None,
        selector: "".into(),
        ports: vec![Port {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: 0,
        }],
        ingress: vec![Ingress {
            ip: Some(address(n)),
            proxy: false,
        }],
    };
    let slice = Slice {
        triggered: None,
        foreign: None,
        service: key.clone(),
        family: Family::V4,
        ports: vec![SlicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
        endpoints: vec![Endpoint {
            address: IpAddr::V4(Ipv4Addr::new(10, 244, 0, 1)),
            node: None,
            ready: true,
            serving: Some(true),
            terminating: false,
            hints: None,
        }],
    };
    let form = Some(Box::new(service));
    [
        Event::Service {
            key: key.clone(),
            form,
        },
        Event::Slice {
            key,
            form: Some(slice),
        },
    ]
}

/// What the API tells every agent.
fn told(nodes: usize) -> World {
    let mut world = World::new(Settings {
        namespace: NAMESPACE.into(),
        ..Settings::default()
    });
    for node in 0..nodes {
        world.apply(Event::Node {
            name: node_name(node),
            form: Some(Node::default()),
        });
    }
    let theirs = "metallb.io/v1beta1";
    for (name, range) in [("one", "192.0.2.0/25"), ("staying", "192.0.2.128/25")] {
        let spec = json!({"addresses": [range]});
        world.apply(config(theirs, "IPAddressPool", name, spec));
    }
    let spec = json!({"ipAddressPools": ["one"]});
    world.apply(config(theirs, "L2Advertisement", "one", spec));
    let spec = json!({"pools": ["staying"], "layer2": {"handBack": false}});
    world.apply(config(
        "corten.dev/v1alpha1",
        "Advertisement",
        "staying",
        spec,
    ));
    for event in (0..ADDRESSES).flat_map(service) {
        world.apply(event);
    }
    world.apply(Event::Synced);
    world
}

/// An agent.
#[derive(Clone)]
struct Agent {
    world: World,
    /// As planned.
    wanted: BTreeSet<IpAddr>,
    announced: BTreeSet<IpAddr>,
    announcer: Announcer,
    met: bool,
    silent: bool,
    terms: Terms,
    version: u64,
    /// When it was last silent, or heard nobody else.
    apart: Option<Duration>,
    /// Addresses of a node that ends which nobody has claimed, and until when it waits for that.
    leaving: Option<(BTreeSet<IpAddr>, Duration)>,
    owners: Owners,
    stations: Stations,
    conflicts: Conflicts,
}

impl Agent {
    /// Takes over and gives up what is dirty.
    fn replan(&mut self, node: usize, nodes: usize, dirty: &Dirty, now: Duration) {
        let me = node_name(node);
        let addresses = dirty.addresses.iter().copied();
        let wary = self
            .owners
            .look(&self.world, &me, self.met, None, addresses);
        assert!(wary.is_empty(), "{me} waits before it announces {wary:?}");
        for address in &dirty.addresses {
            if plan(&self.world, &me, *address).is_some() {
                self.wanted.insert(*address);
            } else {
                self.wanted.remove(address);
                self.announced.remove(address);
                self.announcer.remove(*address);
                self.conflicts.remove(*address);
            }
        }
        let met = |of: usize| {
            let of = node_name(of);
            of == me || self.world.node_state(&of).is_some() || !self.world.presumed_alive(&of)
        };
        self.met = self.met || (0..nodes).all(met);
        if self.met {
            for address in &self.wanted {
                if self.announced.insert(*address) {
                    self.announcer.trigger(now, *address);
                }
            }
        }
    }
}

impl Agent {
    fn whose(&self, address: IpAddr, mac: Mac) -> Whose {
        if self.stations.has(address, mac.0) {
            Whose::Member
        } else if self.stations.lacks_some(&self.world) {
            Whose::Unknown
        } else {
            Whose::Stranger
        }
    }
}

/// For how long nobody, or more than one node, answered for an address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    // Failures show it.
    #[allow(dead_code)]
    pub(crate) address: usize,
    /// 0, or more than 1.
    pub(crate) answers: u32,
    pub(crate) from: Duration,
    pub(crate) until: Duration,
}

#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) net: Net,
    told: World,
    agents: Vec<Option<Agent>>,
    /// Claims on their way: when, to whom, from whom, of which address.
    claims: BinaryHeap<Reverse<(Duration, usize, usize, IpAddr)>>,
    /// Who answers, by address: a bit for each node.
    answering: [u32; ADDRESSES],
    since: [Duration; ADDRESSES],
    pub(crate) spans: Vec<Span>,
    /// Nodes whose processes are not run.
    paused: BTreeSet<usize>,
    /// What each node's last agent said that it has.
    before: Vec<Tenures>,
    /// Nodes that answered alone for the address that stays, one after another.
    pub(crate) owners: Vec<usize>,
    alone: (Option<usize>, Duration),
    /// The first timer of an agent.
    timer: Option<Duration>,
}

impl Model {
    /// All nodes start.
    pub(crate) fn new(setup: Setup) -> Self {
        let net = Net::new(setup);
        let mut model = Self {
            told: told(setup.nodes),
            agents: vec![None; setup.nodes],
            claims: BinaryHeap::new(),
            answering: [0; ADDRESSES],
            since: [ms(0); ADDRESSES],
            spans: Vec::new(),
            paused: BTreeSet::new(),
            before: vec![Tenures::new(); setup.nodes],
            owners: Vec::new(),
            alone: (None, ms(0)),
            timer: None,
            net,
        };
        for node in 0..setup.nodes {
            model.start(node);
        }
        model
    }

    pub(crate) fn nodes(&self) -> usize {
        self.net.setup.nodes
    }

    /// An agent starts, with a greater incarnation than any before.
    pub(crate) fn start(&mut self, node: usize) {
        let incarnation = 2_000_000 + self.net.now.as_millis() as u64;
        let mut world = self.told.clone();
        let interface = Interface {
            up: true,
            subnets: vec!["192.0.2.0/24".parse().expect("a subnet")],
            mac: Some(station(node).0),
        };
        let state = NodeState {
            interfaces: [("eth0".into(), interface)].into(),
            incarnation,
            version: 1,
            // The API keeps what the agent before this one had.
            tenures: self.before[node]
                .iter()
                .filter_map(|(ip, term)| Some((*ip, tenure::shaken(*term)?)))
                .collect(),
            ..NodeState::default()
        };
        let payload = serde_json::to_vec(&state).expect("a state");
        let mut terms = Terms::default();
        terms.note(&state);
        let mut stations = Stations::default();
        stations.note(&node_name(node), &state);
        world.apply(Event::State {
            node: node_name(node),
            form: Some(state),
        });
        let mut owners = Owners::default();
        let all = (0..ADDRESSES).map(address);
        let wary = owners.look(&world, &node_name(node), false, None, all);
        assert!(wary.is_empty(), "{node} waits at its start");
        self.agents[node] = Some(Agent {
            world,
            wanted: BTreeSet::new(),
            announced: BTreeSet::new(),
            announcer: Announcer::new(announcer::Config::default()),
            met: false,
            silent: false,
            terms,
            version: 1,
            apart: Some(self.net.now),
            leaving: None,
            owners,
            stations,
            conflicts: Conflicts::default(),
        });
        self.net.start_with(node, incarnation, Some(payload));
        self.look(node);
    }

    /// Power off.
    pub(crate) fn die(&mut self, node: usize) {
        self.agents[node] = None;
        self.net.die(node);
        self.look(node);
    }

    pub(crate) fn freeze(&mut self, node: usize, time: Duration) {
        self.net.freeze(node, time);
        self.paused.insert(node);
        self.look(node);
    }

    pub(crate) fn is_up(&self, node: usize) -> bool {
        self.agents[node].is_some()
    }

    /// SIGTERM, and no next start follows.
    pub(crate) fn leave(&mut self, node: usize) {
        let now = self.net.now;
        let Some(agent) = &mut self.agents[node] else {
            return;
        };
        agent.leaving = Some((agent.announced.clone(), now + HAND_OVER));
        let others = self.net.with(node, |member, now| {
            let alive = |(_, state): &(_, member::State)| *state == member::State::Alive;
            let others = member.peers().filter(alive).count();
            member.leave(now);
            others
        });
        if others == 0 {
            self.die(node);
        }
        self.look(node);
    }

    /// SIGTERM, and a next start follows: true once this one may end.
    pub(crate) fn make_way(&mut self, node: usize) {
        self.net
            .with(node, |member, now| member.make_way(now, SUCCESSION));
    }

    pub(crate) fn has_left(&self, node: usize) -> bool {
        self.net.member(node).has_left()
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.net.now + time;
        while let Some(at) = self.next().filter(|at| *at <= until) {
            self.step(at);
        }
        self.net.now = until;
    }

    /// Closes the spans that are open.
    pub(crate) fn close(&mut self) {
        for address in 0..ADDRESSES {
            self.note(address, u32::MAX);
        }
    }

    /// Who answers for an address.
    pub(crate) fn answering(&self, address: usize) -> u32 {
        self.answering[address]
    }

    fn next(&self) -> Option<Duration> {
        let claim = self.claims.peek().map(|Reverse((at, ..))| *at);
        let mut next = self.net.next();
        for other in [claim, self.timer].into_iter().flatten() {
            next = Some(next.map_or(other, |next| next.min(other)));
        }
        next
    }

    fn set_timer(&mut self) {
        let agents = self.agents.iter().flatten();
        let timers = agents.filter_map(|agent| {
            let frames = agent.announcer.poll_timeout();
            let ends = agent.leaving.as_ref().map(|(_, until)| *until);
            let company = agent.apart.map(|at| at + HEARING);
            let probes = agent.conflicts.poll_timeout();
            let due = frames.into_iter().chain(ends).chain(company);
            due.chain(probes).min()
        });
        self.timer = timers.min();
    }

    fn step(&mut self, at: Duration) {
        if self.net.next().is_some_and(|next| next <= at) {
            self.net.step();
            self.take();
            if !self.paused.is_empty() {
                let net = &self.net;
                let run: Vec<usize> = self.paused.extract_if(.., |node| net.runs(*node)).collect();
                for node in run {
                    self.look(node);
                }
            }
            return;
        }
        self.net.now = at;
        while let Some(Reverse((_, to, from, address))) = self
            .claims
            .peek()
            .copied()
            .filter(|Reverse((due, ..))| *due <= at)
        {
            self.claims.pop();
            self.claimed(to, from, address);
        }
        for node in 0..self.nodes() {
            let Some(agent) = &mut self.agents[node] else {
                continue;
            };
            if agent
                .leaving
                .as_ref()
                .is_some_and(|(_, until)| *until <= at)
            {
                self.die(node);
                continue;
            }
            if agent.apart.is_some_and(|apart| apart + HEARING <= at) {
                if self.net.runs(node) {
                    self.settle_tenure(node);
                    self.take();
                } else {
                    agent.apart = Some(at);
                }
            }
            self.probe(node);
            let Some(agent) = &mut self.agents[node] else {
                continue;
            };
            if agent.announcer.poll_timeout().is_none_or(|due| due > at) {
                continue;
            }
            let due: Vec<IpAddr> = agent.announcer.on_timeout(at).collect();
            if self.net.runs(node) && !agent.silent {
                self.claim(node, &due);
            }
        }
        self.set_timer();
    }

    /// Gratuitous frames: only nodes that end take notice.
    fn claim(&mut self, from: usize, addresses: &[IpAddr]) {
        for to in 0..self.nodes() {
            if to == from || self.net.is_cut(from, to) {
                continue;
            }
            for address in addresses {
                let chance = random(&mut self.net.random);
                if chance % 1000 >= self.net.setup.loss {
                    let latency = Duration::from_micros(100 + (chance >> 32) % 2000);
                    let at = self.net.now + latency;
                    self.claims.push(Reverse((at, to, from, *address)));
                }
            }
        }
    }

    /// Asks for addresses of which another station was heard to have them.
    fn probe(&mut self, node: usize) {
        let now = self.net.now;
        let Some(agent) = &mut self.agents[node] else {
            return;
        };
        if agent.conflicts.poll_timeout().is_none_or(|due| due > now) {
            return;
        }
        let mut conflicts = std::mem::take(&mut agent.conflicts);
        let acts = conflicts.on_timeout(now, |ip, mac| agent.whose(ip, mac));
        agent.conflicts = conflicts;
        for act in acts {
            let Act::Probe(asked) = act else {
                panic!("{node} holds a member for a stranger: {act:?}");
            };
            for other in (0..self.nodes()).filter(|other| *other != node) {
                let n = (0..ADDRESSES).find(|n| address(*n) == asked);
                let has = n.is_some_and(|n| self.answering[n] & (1 << other) != 0);
                if has && self.net.runs(node) && !self.net.is_cut(node, other) {
                    self.claims.push(Reverse((now + ms(1), node, other, asked)));
                }
            }
        }
    }

    fn claimed(&mut self, node: usize, from: usize, address: IpAddr) {
        let (now, runs) = (self.net.now, self.net.runs(node));
        let Some(agent) = &mut self.agents[node] else {
            return;
        };
        if runs && !agent.silent && agent.announced.contains(&address) {
            let mac = station(from);
            let whose = agent.whose(address, mac);
            let act = agent.conflicts.on_claim(now, address, mac, whose);
            assert_eq!(act, None, "{from} claims {address} of {node}");
        }
        let Some((unclaimed, _)) = &mut agent.leaving else {
            return;
        };
        if unclaimed.remove(&address) {
            agent.announced.remove(&address);
            agent.announcer.remove(address);
        }
        if unclaimed.is_empty() {
            self.die(node);
        }
        self.look(node);
    }

    /// What members said since the last time.
    fn take(&mut self) {
        for (_, node, event) in std::mem::take(&mut self.net.log) {
            self.hear(node, event);
            self.look(node);
        }
    }

    fn hear(&mut self, node: usize, event: member::Event) {
        let now = self.net.now;
        let nodes = self.nodes();
        let Some(agent) = &mut self.agents[node] else {
            return;
        };
        let member = |of: NodeName, alive| Event::Member {
            node: of.as_str().into(),
            alive: Some(alive),
        };
        let event = match event {
            member::Event::Alive { node } => member(node, true),
            member::Event::Dead { node } | member::Event::Left { node } => member(node, false),
            member::Event::Payload { node, bytes, .. } => {
                let form: NodeState = serde_json::from_slice(&bytes).expect("a state");
                agent.terms.note(&form);
                agent.stations.note(&node.as_str().into(), &form);
                Event::State {
                    node: node.as_str().into(),
                    form: Some(form),
                }
            }
            member::Event::Isolated { .. } => {
                agent.silent = true;
                agent.apart = Some(now);
                self.settle_tenure(node);
                return;
            }
            member::Event::Resumed => {
                agent.silent = false;
                agent.apart = Some(now);
                for address in &agent.announced {
                    agent.announcer.trigger(now, *address);
                }
                return;
            }
        };
        let mut dirty = agent.world.apply(event.clone());
        if let Event::Member {
            node: of,
            alive: Some(false),
        } = event
            && let Some(form) = agent.world.node_state(&of).and_then(tenure::after_silence)
        {
            let form = Some(form);
            dirty.extend(agent.world.apply(Event::State { node: of, form }));
        }
        agent.replan(node, nodes, &dirty, now);
        self.settle_tenure(node);
    }

    /// Who has the address that stays says so, and who has it no longer.
    fn settle_tenure(&mut self, node: usize) {
        let Some(agent) = &mut self.agents[node] else {
            return;
        };
        let (me, staying) = (node_name(node), address(STAYING));
        let (now, nodes) = (self.net.now, self.net.setup.nodes);
        let alone = {
            let world = &agent.world;
            let mut others = world.node_names().filter(|name| **name != me);
            !others.any(|name| world.node_state(name).is_some() && world.presumed_alive(name))
        };
        if agent.silent || alone {
            agent.apart = Some(now);
        } else if agent.apart.is_some_and(|at| now >= at + HEARING) {
            agent.apart = None;
        }
        let company = agent.apart.is_none();
        let announced = agent.announced.contains(&staying);
        let term = tenure::of(&agent.world, &me, staying, announced, company, &agent.terms);
        let term = term.and_then(|term| match agent.silent {
            true => tenure::shaken(term),
            false => Some(term),
        });
        let Some(known) = agent.world.node_state(&me) else {
            return;
        };
        let tenures: Tenures = term.map(|term| (staying, term)).into_iter().collect();
        if tenures == known.tenures {
            return;
        }
        agent.version += 1;
        let state = NodeState {
            tenures: tenures.clone(),
            version: agent.version,
            ..known.clone()
        };
        agent.terms.note(&state);
        let payload = serde_json::to_vec(&state).expect("a state");
        let silent = tenure::after_silence(&state);
        let form = Some(state);
        let dirty = agent.world.apply(Event::State {
            node: me.clone(),
            form,
        });
        agent.replan(node, nodes, &dirty, now);
        self.before[node] = tenures;
        if !self.net.member(node).has_left() {
            self.net.with(node, |member, now| {
                member.set_payload(now, payload).expect("short");
                if let Some(silent) = silent {
                    let silent = serde_json::to_vec(&silent).expect("a state");
                    member.set_payload_after_silence(silent).expect("short");
                }
            });
        }
        // What it has no longer, it may have to leave to another one.
        self.settle_tenure(node);
    }

    /// Looks at what a node answers now.
    fn look(&mut self, node: usize) {
        self.set_timer();
        let now = self.net.now;
        for n in 0..ADDRESSES {
            let answers = self.net.runs(node)
                && self.agents[node].as_ref().is_some_and(|agent| {
                    !agent.silent
                        && agent.announced.contains(&address(n))
                        && !self.net.member(node).isolated(now)
                });
            let bit = 1 << node;
            let next = match answers {
                true => self.answering[n] | bit,
                false => self.answering[n] & !bit,
            };
            self.note(n, next);
        }
    }

    /// Who alone answers for the address that stays, if anybody.
    fn note_owner(&mut self, owner: Option<usize>) {
        let (known, since) = self.alone;
        if known == owner {
            return;
        }
        self.alone = (owner, self.net.now);
        let long = self.net.now >= since + LEAST;
        self.owners
            .extend(known.filter(|known| long && self.owners.last() != Some(known)));
    }

    fn note(&mut self, address: usize, next: u32) {
        let old = self.answering[address];
        let (was, is) = (old.count_ones(), next.count_ones());
        let close = next == u32::MAX;
        if !close {
            self.answering[address] = next;
        }
        if address == STAYING {
            let owner = (is == 1 && !close).then(|| next.trailing_zeros() as usize);
            self.note_owner(owner);
        }
        if !close && was.min(2) == is.min(2) {
            return;
        }
        let from = std::mem::replace(&mut self.since[address], self.net.now);
        if was != 1 && self.net.now > from {
            self.spans.push(Span {
                address,
                answers: was,
                from,
                until: self.net.now,
            });
        }
    }
}
