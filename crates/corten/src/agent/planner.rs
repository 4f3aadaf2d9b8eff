//! Owns the agent's World and Desired, and hands changes to the executors in the right order.

mod announce;
mod forwarding;
mod linger;
mod routes;
mod state;
mod stays;
mod strangers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use api::corten::v1alpha1::{DrainPhase, NodeStateStatus};
use ipnet::IpNet;
use plan::announce::bgp::{Change, PeerKey};
use plan::announce::linux::Placing;
use plan::announce::tenure::Terms;
use plan::desired::{Agent, Desired};
use plan::forward::Locality;
use plan::name::{Name, ServiceKey};
use plan::world::{Dirty, Event, Node, NodeState, Settings, Tenures, World};
use tokio::sync::{mpsc, watch};

use self::linger::Lingering;
use self::strangers::Strangers;
use super::addresses::Addresses;
use super::advertised::Advertised;
use super::bgp::Bgp;
use super::checks;
use super::drain::Drain;
use super::exclude::Exclude;
use super::forward::{Done, Job};
use super::gate::Gate;
use super::interfaces::Snapshot;
use super::l2::{L2, Neighbour};
use super::member;
use super::port::Claim;
use super::statuses::Statuses;
use super::tally::Tally;
use crate::http::Metrics;
use crate::http::proxy::ProxyHealth;
use crate::report::Reporter;
use crate::source::Updates;
use crate::status::Health;

/// Events taken in before anything is planned.
const BATCH: usize = 4096;
/// Claims of other stations taken in likewise.
const CLAIMS: usize = 64;
/// How long an agent that starts waits for beats with other nodes' states where the API's may be
/// older; those that do not fit into beats never come so.
const HEARING: Duration = Duration::from_secs(1);

/// Everything the planner works with.
pub(super) struct Parts {
    pub(super) statuses: Statuses,
    pub(super) agent: Agent,
    /// What the agent before this one said, where the source does not tell that.
    pub(super) before: Option<NodeState>,
    pub(super) settings: Settings,
    pub(super) member: member::Handle,
    pub(super) silence: member::Silence,
    /// `None` when nothing is to be forwarded.
    pub(super) forward: Option<mpsc::Sender<Job>>,
    /// How long a drain waits for other nodes to take addresses over.
    pub(super) hand_over: Duration,
    pub(super) l2: L2,
    pub(super) addresses: Addresses,
    pub(super) exclude: Exclude,
    pub(super) checks: mpsc::Sender<checks::Change>,
    pub(super) proxy: ProxyHealth,
    pub(super) bgp: Bgp,
    pub(super) state: watch::Sender<Option<NodeStateStatus>>,
    pub(super) reporter: Reporter,
    pub(super) health: Health,
    pub(super) metrics: Metrics,
}

pub(super) struct Planner {
    parts: Parts,
    world: World,
    desired: Desired,
    dirty: Dirty,
    gate: Gate,
    synced: bool,
    /// Every other node was heard of, or is dead. Before, this node would think itself alone and
    /// take its neighbours' addresses.
    met: bool,
    /// The forwarding of the whole node has been handed out once.
    adopted: bool,
    /// What the constant rules depend on, as handed out.
    locality: Locality,
    tally: Tally,
    /// What was said of Services' fields of a foreign family.
    foreign: BTreeMap<ServiceKey, Vec<String>>,
    incarnation: u64,
    version: u64,
    peers: BTreeMap<Name, IpAddr>,
    /// What layer 2 knows: this node's addresses, and the other nodes.
    introduced: (Vec<IpAddr>, Vec<Neighbour>),
    /// That may be so no more.
    unintroduced: bool,
    /// Nodes whose state came with their beats.
    heard: BTreeSet<Name>,
    /// Until when others' beats are waited for, though the API told of all nodes.
    hearing: Option<Instant>,
    /// Nodes that were held for dead and are heard again, since the last plan.
    returned: BTreeSet<Name>,
    /// What this node has of the addresses that stay.
    tenures: Tenures,
    /// The latest terms that were heard of.
    terms: Terms,
    /// Addresses of which that is to be looked at.
    unsettled: BTreeSet<IpAddr>,
    /// When this node was last silent, or heard nobody else; `None`: long ago.
    apart: Option<Instant>,
    /// More stay than beats have room for; it was said.
    crowded: bool,
    /// What the agent before this one said last.
    before: Option<NodeState>,
    /// For which Services each address was last announced: events tell only what is new.
    told: BTreeMap<IpAddr, Vec<ServiceKey>>,
    /// Routes that wait until forwarding has caught up: the job that they wait for.
    routes: BTreeMap<(PeerKey, IpNet), (u64, Change)>,
    /// What is on `kube-lb0`, and for whom.
    placed: BTreeMap<IpAddr, Vec<ServiceKey>>,
    /// Addresses for it that wait likewise.
    placings: BTreeMap<IpAddr, (u64, Placing)>,
    /// For which Services the routes are, and what was said of that.
    said: Advertised,
    /// Nothing waited any more, once.
    advertised: bool,
    /// Ports that are forwarded elsewhere for a while, as their endpoints here have gone.
    lingering: Lingering,
    drain: Drain,
    snapshot: Snapshot,
    /// Why MetalLB's speakers go first, where they do.
    standing_by: Option<String>,
    /// What is said of this node, as last published.
    shown: (Option<DrainPhase>, Option<String>),
    /// What is to be published next.
    unpublished: Option<NodeStateStatus>,
    strangers: Strangers,
}

impl Planner {
    pub(super) fn new(mut parts: Parts) -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let strangers = Strangers::new(parts.before.take());
        let mut gate = Gate::default();
        gate.hold();
        Self {
            world: World::new(parts.settings.clone()),
            said: Advertised::new(parts.agent.node.clone()),
            tally: Tally::new(parts.metrics.proxy.clone()),
            parts,
            desired: Desired::default(),
            dirty: Dirty::default(),
            gate,
            synced: false,
            met: false,
            adopted: false,
            locality: Locality::default(),
            foreign: BTreeMap::new(),
            incarnation: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
            version: 0,
            peers: BTreeMap::new(),
            introduced: (Vec::new(), Vec::new()),
            unintroduced: true,
            heard: BTreeSet::new(),
            hearing: None,
            returned: BTreeSet::new(),
            tenures: Tenures::new(),
            terms: Terms::default(),
            unsettled: BTreeSet::new(),
            apart: Some(Instant::now()),
            crowded: false,
            before: None,
            told: BTreeMap::new(),
            routes: BTreeMap::new(),
            placed: BTreeMap::new(),
            placings: BTreeMap::new(),
            advertised: false,
            lingering: Lingering::default(),
            drain: Drain::default(),
            snapshot: Snapshot::default(),
            standing_by: None,
            shown: (None, None),
            unpublished: None,
            strangers,
        }
    }

    /// Runs until an input or an executor ends.
    pub(super) async fn run(
        mut self,
        mut updates: Updates,
        mut members: mpsc::Receiver<Event>,
        mut interfaces: watch::Receiver<Snapshot>,
        mut done: mpsc::Receiver<Done>,
        mut claims: mpsc::Receiver<Claim>,
    ) {
        let mut batch = Vec::new();
        let mut claimed = Vec::new();
        self.snapshot = interfaces.borrow_and_update().clone();
        self.look_for_node_ports();
        self.describe();
        self.publish().await;
        loop {
            tokio::select! {
                count = updates.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    for event in batch.drain(..) {
                        self.learn(event);
                    }
                }
                event = members.recv() => {
                    let Some(event) = event else { return };
                    self.hear(event);
                }
                changed = interfaces.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.snapshot = interfaces.borrow_and_update().clone();
                    self.look_for_node_ports();
                }
                count = claims.recv_many(&mut claimed, CLAIMS) => {
                    if count == 0 {
                        return;
                    }
                    for claim in claimed.drain(..) {
                        self.take_claim(claim).await;
                    }
                }
                () = sleep_until(self.strangers.due()) => self.look_for_strangers().await,
                () = self.drain.handed_over() => {}
                () = sleep_until(self.hearing), if !self.met => {}
                () = sleep_until(self.lingering.next()), if self.lingering.next().is_some() => {}
                changed = self.parts.silence.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.apart = Some(Instant::now());
                    self.falter();
                    if self.world.config().stays() {
                        self.unsettled.extend(self.told.keys());
                    }
                }
                () = sleep_until(self.apart.map(|at| at + HEARING)), if self.awaits_company() => {}
                finished = done.recv(), if self.parts.forward.is_some() => {
                    let Some(finished) = finished else { return };
                    self.hear_of_forwarding(finished).await;
                }
            }
            if self.synced {
                self.follow_drain().await;
                self.stand_by();
                self.look_around();
            }
            self.describe();
            if self.synced {
                self.plan().await;
                // Who has an address that stays says so.
                while !self.unsettled.is_empty() && self.describe() {
                    self.plan().await;
                }
                self.claim_again().await;
            }
            self.publish().await;
        }
    }

    /// Begins a drain of this node that is asked for, or ends it.
    async fn follow_drain(&mut self) {
        let node = self.world.node(&self.parts.agent.node);
        let leaves = node.is_some_and(Node::leaves);
        match (&self.drain, leaves) {
            (Drain::No, true) => {
                tracing::info!("this node drains");
                self.drain = if self.desired.l2.is_empty() {
                    Drain::Leaving
                } else {
                    // Before the others know: a claim must not be missed.
                    let claimed = self.parts.l2.hand_over().await;
                    Drain::hand_over(claimed, self.parts.hand_over)
                };
            }
            (Drain::Leaving, false) => {
                tracing::info!("this node drains no more");
                self.drain = Drain::No;
            }
            _ => {}
        }
    }

    /// Says whether this agent stands by beside MetalLB's speakers, when that has changed.
    fn stand_by(&mut self) {
        let why = self.world.rivals().over_agent(&self.parts.agent.node);
        if why == self.standing_by {
            return;
        }
        match &why {
            Some(why) => tracing::warn!("{why}"),
            None => tracing::info!("no speaker of MetalLB runs any more: announcing"),
        }
        self.parts.metrics.standing_by.set(i64::from(why.is_some()));
        self.parts.health.set_standing_by(why.clone());
        self.standing_by = why;
    }

    /// Takes in what others tell. Of this node it knows better itself.
    fn learn(&mut self, event: Event) {
        if let Event::State {
            form: Some(form), ..
        } = &event
        {
            self.terms.note(form);
        }
        match event {
            Event::State { node, form } if node == self.parts.agent.node => {
                let newer = |form: &NodeState| {
                    let before = self.before.as_ref();
                    before.is_none_or(|before| form.newer_than(before))
                };
                // What it had stays with its node, unless another one has it by now.
                if !self.synced {
                    self.before = form.filter(newer).or_else(|| self.before.take());
                }
            }
            event => self.apply(event),
        }
    }

    fn apply(&mut self, event: Event) {
        self.parts.metrics.updates.inc();
        let synced = matches!(event, Event::Synced);
        self.parts.statuses.notice(&event);
        if self.parts.forward.is_some() {
            self.tally.learn(&event);
        }
        if let Event::State {
            node,
            form: Some(form),
        } = &event
        {
            self.strangers.stations.note(node, form);
        }
        self.unintroduced |= matches!(event, Event::Node { .. } | Event::State { .. });
        let dirty = self.world.apply(event);
        self.dirty.extend(dirty);
        if synced {
            self.synced = true;
            if let Some(before) = self.before.take() {
                self.tenures.clone_from(&before.tenures);
                self.strangers.succeed(before);
                self.falter();
                self.unsettled.extend(self.tenures.keys());
            }
            tracing::info!(
                services = self.world.services().count(),
                nodes = self.world.node_names().count(),
                "in sync"
            );
        }
    }

    async fn plan(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        for object in &dirty.objects {
            if let Some(verdict) = self.world.verdicts().get(object) {
                crate::report::log_verdict(object, verdict);
            }
        }
        if !dirty.objects.is_empty() || !self.adopted {
            let verdicts = self.world.verdicts().values();
            self.parts.metrics.set_config(verdicts);
        }
        self.parts.statuses.judge(&self.world, &dirty);
        if dirty.members {
            self.meet().await;
        }
        self.introduce().await;
        if !self.tenures.is_empty() || self.world.config().stays() {
            self.unsettled.extend(&dirty.addresses);
        }
        self.tell_foreign(&dirty.forward);
        let changes = self.desired.replan(&self.world, &self.parts.agent, &dirty);
        let (announce, withdraw): (Vec<_>, Vec<_>) = changes
            .l2
            .into_iter()
            .partition(|(_, announcement)| announcement.is_some());
        // Withdrawn before anything of it is unprogrammed, and before any forwarding work.
        let withdraw: Vec<IpAddr> = withdraw.into_iter().map(|(address, _)| address).collect();
        for address in &withdraw {
            self.gate.withdraw(*address);
            self.told.remove(address);
            self.strangers.forget(*address);
        }
        self.look_for_owners(&dirty.addresses);
        if !withdraw.is_empty() {
            self.parts.l2.withdraw(withdraw.clone()).await;
        }
        if !withdraw.is_empty() {
            self.count_strangers();
        }
        for address in withdraw {
            self.parts.statuses.set(address, None).await;
        }
        let (place, take_off): (Vec<_>, Vec<_>) = changes
            .linux
            .into_iter()
            .partition(|(_, placing)| placing.is_some());
        for (address, _) in take_off {
            self.take_off(address).await;
        }
        let (advertise, retract): (Vec<_>, Vec<_>) = changes.bgp.into_iter().partition(|change| {
            matches!(
                change,
                Change::Route {
                    attributes: Some(_),
                    ..
                }
            )
        });
        // Sessions come before their routes, and withdrawals wait for nothing.
        for change in retract {
            self.retract(change).await;
        }
        if self.parts.forward.is_some() {
            let queued = self.gate.barrier().is_some() || !changes.forward.is_empty();
            self.tally.planned(&changes.forward, queued);
            let ports = self
                .lingering
                .change(Instant::now(), changes.left, changes.forward);
            self.gate.program(ports);
            let over = self.lingering.over(Instant::now(), &self.desired.forward);
            self.gate.program(over);
            if !self.adopted || self.new_locality().is_some() {
                self.gate.force();
            }
        }
        let barrier = self.gate.barrier();
        for change in changes.health {
            let _ = self.parts.checks.send(change).await;
        }
        if self.parts.forward.is_some() && barrier.is_some() {
            self.parts.proxy.queued(Instant::now());
        }
        let node = self.world.node(&self.parts.agent.node);
        self.parts
            .proxy
            .set_going(node.is_some_and(|node| node.going));
        for change in advertise {
            self.advertise(change, barrier).await;
        }
        for (address, placing) in place {
            match (placing, barrier) {
                (Some(placing), Some(job)) => {
                    self.placings.insert(address, (job, placing));
                }
                (Some(placing), None) => self.place(address, placing).await,
                (None, _) => {}
            }
        }
        let news = self.said.change(&self.world, &dirty, barrier);
        self.say(news).await;
        let mut ready = Vec::new();
        for (address, announcement) in announce {
            let Some(announcement) = announcement else {
                continue;
            };
            ready.extend(
                self.gate
                    .admit(address, announcement)
                    .map(|announcement| (address, announcement)),
            );
        }
        if !self.met && self.has_met_everybody() {
            self.met = true;
            ready.extend(self.gate.release());
        }
        self.announce(ready).await;
        self.hand_out().await;
        self.ready_routes().await;
        self.settle().await;
    }

    async fn settle(&mut self) {
        if self.gate.is_open() {
            self.parts.statuses.settle().await;
        }
    }
}

/// Never, where there is no such moment.
async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
