//! Layer 2: which address is answered for on which interface, and when that is told unasked.
//!
//! The manager owns the announcements and the schedule of gratuitous frames; each interface is a
//! port with a task of its own.

mod inquiry;
mod own_mac;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use plan::announce::l2::{Announcement, Interfaces};
use plan::name::Name;
use proto::announcer::{self, Announcer};
use proto::ethernet::Mac;
use proto::inquiry::Inquiry;
use tokio::sync::{mpsc, oneshot, watch};

use super::addresses::Addresses;
use super::exclude::Exclude;
use super::interfaces::{self, Snapshot};
use super::member::{Silence, Unheard};
use super::port;
use super::reception::Reception;
use crate::http::Metrics;
use crate::http::announced::Protocol;
use crate::report::Reporter;

/// Commands that may wait.
const QUEUE: usize = 64;
/// Refused MAC addresses that may wait.
const REFUSALS: usize = 1024;
/// After an interface's sockets could not be opened, they are tried again this often.
const RETRY: Duration = Duration::from_secs(1);

/// What the manager works with.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) node: Name,
    pub(super) interfaces: watch::Receiver<Snapshot>,
    /// Interfaces that have another way to their network.
    pub(super) moved: mpsc::Receiver<u32>,
    pub(super) exclude: Exclude,
    pub(super) addresses: Addresses,
    pub(super) reception: Reception,
    /// Where claims of other stations go.
    pub(super) claims: mpsc::Sender<port::Claim>,
    pub(super) reporter: Reporter,
    pub(super) silence: Silence,
    /// Who is not heard, and is to be asked for.
    pub(super) unheard: watch::Receiver<Unheard>,
    /// Between two questions of all nodes that hear each other.
    pub(super) beat: Duration,
    pub(super) metrics: Metrics,
}

/// Another node: its addresses, of which its agent has the first one, each with the MAC address that
/// it told of the interface there.
pub(super) type Neighbour = Vec<(IpAddr, Option<Mac>)>;

enum Command {
    /// Announce these; answered with those that no interface can announce.
    Announce(Vec<(IpAddr, Announcement)>, oneshot::Sender<Vec<IpAddr>>),
    /// Stop announcing these; answered once nobody answers for them any more.
    Withdraw(Vec<IpAddr>, oneshot::Sender<()>),
    /// This node's own addresses, and the other nodes.
    Neighbours(Vec<IpAddr>, Vec<Neighbour>),
    /// Everything was announced once.
    Settle,
    /// The last command: what lingers need not any more.
    End(oneshot::Sender<()>),
    /// Tell again that these are here, as far as they are announced.
    Repeat(Vec<IpAddr>),
    /// Ask whether somebody has this address; where, if it is not announced.
    Probe(IpAddr, Option<Interfaces>),
    /// A stranger claims it: tell again that it is here.
    Defend(IpAddr),
    /// Answer for each address only until another node claims it; answered once all are claimed.
    HandOver(oneshot::Sender<()>),
}

/// The planner's handle.
#[derive(Clone, Debug)]
pub(super) struct L2 {
    commands: mpsc::Sender<Command>,
}

impl L2 {
    /// Announces addresses; returns those that no interface of this node can announce.
    pub(super) async fn announce(&self, wanted: Vec<(IpAddr, Announcement)>) -> Vec<IpAddr> {
        if wanted.is_empty() {
            return Vec::new();
        }
        let (done, nowhere) = oneshot::channel();
        let _ = self.commands.send(Command::Announce(wanted, done)).await;
        nowhere.await.unwrap_or_default()
    }

    /// Withdraws addresses; returns when they are no longer answered for.
    pub(super) async fn withdraw(&self, addresses: Vec<IpAddr>) {
        let (done, withdrawn) = oneshot::channel();
        let _ = self.commands.send(Command::Withdraw(addresses, done)).await;
        let _ = withdrawn.await;
    }

    /// Where this node is, and who the other nodes are: neighbours that can be asked what the
    /// network carries, and are asked for when they are not heard.
    pub(super) async fn neighbours(&self, own: Vec<IpAddr>, others: Vec<Neighbour>) {
        let _ = self.commands.send(Command::Neighbours(own, others)).await;
    }

    /// Everything has been announced once: what an earlier agent left goes.
    pub(super) async fn settle(&self) {
        let _ = self.commands.send(Command::Settle).await;
    }

    /// The agent ends: nothing is received for addresses that others have.
    pub(super) async fn end(&self) {
        let (done, ended) = oneshot::channel();
        let _ = self.commands.send(Command::End(done)).await;
        let _ = ended.await;
    }

    /// Tells again that these addresses are here, as after a take-over.
    pub(super) async fn repeat(&self, addresses: Vec<IpAddr>) {
        if !addresses.is_empty() {
            let _ = self.commands.send(Command::Repeat(addresses)).await;
        }
    }

    /// Asks whether somebody has this address; where, if it is not announced.
    pub(super) async fn probe(&self, address: IpAddr, interfaces: Option<Interfaces>) {
        let _ = self
            .commands
            .send(Command::Probe(address, interfaces))
            .await;
    }

    /// Tells that an address is here, as a stranger says otherwise; once in 10 s (RFC 5227 §2.4).
    pub(super) async fn defend(&self, address: IpAddr) {
        let _ = self.commands.send(Command::Defend(address)).await;
    }

    /// From now on each address is answered for only until another node claims it; completes once
    /// all are claimed.
    pub(super) async fn hand_over(&self) -> oneshot::Receiver<()> {
        let (done, claimed) = oneshot::channel();
        let _ = self.commands.send(Command::HandOver(done)).await;
        claimed
    }
}

/// The handle, and the task to run.
pub(super) fn start(context: Context) -> (L2, impl Future<Output = ()> + Send) {
    let (commands_in, commands) = mpsc::channel(QUEUE);
    let (claims_in, claims) = mpsc::channel(QUEUE);
    let (refusals_in, refusals) = mpsc::channel(REFUSALS);
    let manager = Manager {
        inquiry: Inquiry::new(context.beat),
        context,
        own: Vec::new(),
        claims: claims_in,
        refusals: refusals_in,
        refused: BTreeSet::new(),
        lingering: BTreeMap::new(),
        neighbours: Vec::new(),
        unreceived: None,
        again: None,
        leaving: None,
        ports: HashMap::new(),
        announced: BTreeMap::new(),
        probed: BTreeSet::new(),
        announcer: Announcer::new(announcer::Config::default()),
        start: Instant::now(),
        retry: false,
    };
    (
        L2 {
            commands: commands_in,
        },
        manager.run(commands, claims, refusals),
    )
}

struct Port {
    name: String,
    mac: Mac,
    commands: mpsc::Sender<port::Command>,
    /// The addresses that it answers for, and with which MAC address of their own.
    given: HashMap<IpAddr, Option<Mac>>,
    neighbours: Vec<Ipv4Addr>,
}

struct Manager {
    context: Context,
    ports: HashMap<u32, Port>,
    announced: BTreeMap<IpAddr, Announcement>,
    /// Addresses that are not announced, but asked for.
    probed: BTreeSet<IpAddr>,
    announcer: Announcer,
    start: Instant,
    /// Some interface has no port although it should.
    retry: bool,
    /// Where ports tell of addresses that another station claims.
    claims: mpsc::Sender<port::Claim>,
    /// Where ports tell of MAC addresses that their network does not carry.
    refusals: mpsc::Sender<(u32, IpAddr)>,
    /// Of which addresses, on which interface.
    refused: BTreeSet<(u32, IpAddr)>,
    /// What was given up, and until when frames for its own MAC address are received.
    lingering: BTreeMap<IpAddr, (Instant, Announcement)>,
    /// This node's own addresses.
    own: Vec<IpAddr>,
    /// The other nodes.
    neighbours: Vec<Neighbour>,
    /// When those that are not heard are asked for.
    inquiry: Inquiry,
    /// Why frames for addresses' own MAC addresses cannot be received.
    unreceived: Option<String>,
    /// When what is received for is to be looked at again.
    again: Option<Instant>,
    leaving: Option<Leaving>,
}

/// A hand-over under way.
struct Leaving {
    /// Addresses that nobody else has claimed yet.
    unclaimed: BTreeSet<IpAddr>,
    done: Option<oneshot::Sender<()>>,
}

impl Leaving {
    fn look(&mut self) {
        if self.unclaimed.is_empty()
            && let Some(done) = self.done.take()
        {
            let _ = done.send(());
        }
    }
}

impl Manager {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut claims: mpsc::Receiver<port::Claim>,
        mut refusals: mpsc::Receiver<(u32, IpAddr)>,
    ) {
        self.reconcile().await;
        loop {
            // What is due is not left to a timer, which is a millisecond late.
            let due: Vec<IpAddr> = self.announcer.on_timeout(self.start.elapsed()).collect();
            for address in due {
                self.tell(address, port::Command::Gratuitous).await;
            }
            while let Some(peer) = self.inquiry.on_timeout(self.start.elapsed()) {
                self.ask_for(peer).await;
            }
            let due = [self.announcer.poll_timeout(), self.inquiry.poll_timeout()];
            let due = due.into_iter().flatten().min().map(|due| self.start + due);
            let due = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            let again = self.again;
            let look = async move {
                match again {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = commands.recv() => match command {
                    None => return,
                    Some(Command::Neighbours(own, neighbours)) => {
                        (self.own, self.neighbours) = (own, neighbours);
                        self.introduce().await;
                    }
                    Some(Command::Settle) => self.context.reception.settle().await,
                    Some(Command::End(done)) => {
                        self.lingering.clear();
                        self.receive().await;
                        let _ = done.send(());
                    }
                    Some(Command::Announce(wanted, done)) => {
                        let nowhere = self.announce(wanted).await;
                        let _ = done.send(nowhere);
                    }
                    Some(Command::Withdraw(addresses, done)) => {
                        self.withdraw(&addresses).await;
                        let _ = done.send(());
                    }
                    Some(Command::Repeat(addresses)) => {
                        let announced = |it: &&IpAddr| self.announced.contains_key(*it);
                        for address in addresses.iter().filter(announced) {
                            self.announcer.trigger(self.start.elapsed(), *address);
                        }
                    }
                    Some(Command::Probe(address, interfaces)) => {
                        self.probe(address, interfaces).await;
                    }
                    Some(Command::Defend(address)) => {
                        self.announcer.defend(self.start.elapsed(), address);
                    }
                    Some(Command::HandOver(done)) => {
                        let mut leaving = Leaving {
                            unclaimed: self.announced.keys().copied().collect(),
                            done: Some(done),
                        };
                        leaving.look();
                        self.leaving = Some(leaving);
                    }
                },
                // Never closed: this task holds a sender itself.
                Some(claim) = claims.recv() => self.claimed(claim).await,
                Some((index, address)) = refusals.recv() => self.refuse(index, address).await,
                Some(index) = self.context.moved.recv() => self.tell_again(index),
                () = look => {
                    self.receive().await;
                    self.bring_all().await;
                }
                changed = self.context.silence.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.end_silence();
                }
                changed = self.context.unheard.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let unheard = self.context.unheard.borrow_and_update().clone();
                    let now = self.start.elapsed();
                    self.inquiry.set(now, unheard.dead, unheard.heard);
                }
                changed = self.context.interfaces.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.reconcile().await;
                }
                () = tokio::time::sleep(RETRY), if self.retry => self.reconcile().await,
                () = tokio::time::sleep_until(due.into()) => {}
            }
        }
    }

    async fn announce(&mut self, wanted: Vec<(IpAddr, Announcement)>) -> Vec<IpAddr> {
        let mut nowhere = Vec::new();
        let mut news = Vec::new();
        let mut own = false;
        for (address, announcement) in wanted {
            self.lingering.remove(&address);
            self.probed.remove(&address);
            let old = self.announced.insert(address, announcement.clone());
            own |= announcement.mac.is_some() || old.as_ref().is_some_and(|it| it.mac.is_some());
            news.push((address, old, announcement));
        }
        if own {
            // Frames come as soon as somebody is told.
            self.receive().await;
        }
        for (address, old, announcement) in news {
            self.bring(address).await;
            self.count(address, old.as_ref(), false);
            self.place(address, old.as_ref(), &announcement).await;
            let mut names = self.ports.values().map(|port| &port.name);
            if names.any(|name| announcement.interfaces.contains(name)) {
                self.count(address, Some(&announcement), true);
                let same = |old: Announcement| {
                    old.interfaces == announcement.interfaces && old.mac == announcement.mac
                };
                if !old.is_some_and(same) {
                    self.announcer.trigger(self.start.elapsed(), address);
                }
            } else {
                nowhere.push(address);
            }
        }
        nowhere
    }

    /// Has the ports answer for `address` as they should, or no longer; says whether one changed
    /// what it answers.
    async fn bring(&mut self, address: IpAddr) -> bool {
        let announcement = self.announced.get(&address);
        let mut changed = false;
        for (index, port) in &mut self.ports {
            let wanted = announcement.filter(|it| it.interfaces.contains(&port.name));
            let refused = self.unreceived.is_some() || self.refused.contains(&(*index, address));
            let mac = wanted.map(|it| it.mac.filter(|_| !refused).map(|mac| Mac(mac.0)));
            if port.given.get(&address).copied() == mac {
                continue;
            }
            let command = match mac {
                Some(mac) => {
                    port.given.insert(address, mac);
                    port::Command::Announce(address, mac)
                }
                None => {
                    port.given.remove(&address);
                    port::Command::Withdraw(address)
                }
            };
            changed |= mac.is_some();
            let _ = port.commands.send(command).await;
        }
        changed
    }

    /// As [`Self::bring`], for all; who answers otherwise says so.
    async fn bring_all(&mut self) {
        let addresses: Vec<IpAddr> = self.announced.keys().copied().collect();
        for address in addresses {
            if self.bring(address).await {
                self.announcer.trigger(self.start.elapsed(), address);
            }
        }
    }

    /// Puts the address on an interface, where that is wanted.
    async fn place(&self, address: IpAddr, old: Option<&Announcement>, new: &Announcement) {
        let before = old.and_then(|old| old.placed.as_ref());
        match &new.placed {
            Some(place) => {
                let addresses = &self.context.addresses;
                addresses.put_on_lan(address, place.clone()).await;
            }
            None if before.is_some() => self.context.addresses.take_off_lan(vec![address]).await,
            None => {}
        }
    }

    /// Another station says that it has `address`: when this node is leaving, its successor.
    async fn claimed(&mut self, claim: port::Claim) {
        let address = claim.ip;
        // One that finds no room is told again: gratuitous frames and answers are repeated.
        let _ = self.context.claims.try_send(claim);
        let Some(leaving) = &mut self.leaving else {
            return;
        };
        if leaving.unclaimed.remove(&address) {
            tracing::info!(%address, "handed over");
            leaving.look();
            self.withdraw(&[address]).await;
        }
    }

    /// Asks whether somebody has `address`, where it is announced or would be.
    async fn probe(&mut self, address: IpAddr, interfaces: Option<Interfaces>) {
        let announced = self.announced.get(&address);
        if announced.is_none() {
            self.probed.insert(address);
        }
        let Some(interfaces) = announced.map(|it| it.interfaces.clone()).or(interfaces) else {
            return;
        };
        for port in self.ports.values() {
            if interfaces.contains(&port.name) {
                let _ = port.commands.send(port::Command::Probe(address)).await;
            }
        }
    }

    /// After a pause others had this node's addresses, and clients go there still.
    fn end_silence(&mut self) {
        if self.context.silence.holds() {
            return;
        }
        for address in self.announced.keys() {
            self.announcer.trigger(self.start.elapsed(), *address);
        }
    }

    /// Switches and clients behind an interface are to learn where they reach it now.
    fn tell_again(&mut self, index: u32) {
        let given = self.ports.get(&index).map(|port| &port.given);
        for address in given.into_iter().flat_map(HashMap::keys) {
            self.announcer.trigger(self.start.elapsed(), *address);
        }
    }

    async fn withdraw(&mut self, addresses: &[IpAddr]) {
        let placed = |address: &&IpAddr| {
            let announced = self.announced.get(*address);
            announced.is_some_and(|it| it.placed.is_some())
        };
        let placed: Vec<IpAddr> = addresses.iter().filter(placed).copied().collect();
        self.context.addresses.take_off_lan(placed).await;
        for address in addresses {
            if let Some(leaving) = &mut self.leaving {
                leaving.unclaimed.remove(address);
                leaving.look();
            }
            self.announcer.remove(*address);
            if self.probed.remove(address) {
                for port in self.ports.values() {
                    let _ = port.commands.send(port::Command::Withdraw(*address)).await;
                }
            }
            let old = self.announced.remove(address);
            self.bring(*address).await;
            self.refused.retain(|(_, refused)| refused != address);
            self.linger(*address, old.as_ref());
            self.count(*address, old.as_ref(), false);
        }
        for port in self.ports.values() {
            let (done, reached) = oneshot::channel();
            if port
                .commands
                .send(port::Command::Barrier(done))
                .await
                .is_ok()
            {
                let _ = reached.await;
            }
        }
    }

    /// Tells the ports that announce `address`.
    async fn tell(&self, address: IpAddr, command: fn(IpAddr) -> port::Command) {
        let Some(announcement) = self.announced.get(&address) else {
            return;
        };
        for port in self.ports.values() {
            if announcement.interfaces.contains(&port.name) {
                let _ = port.commands.send(command(address)).await;
            }
        }
    }

    /// Brings the ports in line with the interfaces.
    async fn reconcile(&mut self) {
        let snapshot = self.context.interfaces.borrow_and_update().clone();
        let fit: HashMap<u32, _> = snapshot
            .iter()
            .filter(|interface| interfaces::fit(interface, &self.context.exclude))
            .filter_map(|interface| Some((interface.index, (interface, Mac(interface.mac?)))))
            .collect();
        let before = self.ports.len();
        self.ports.retain(|index, port| {
            let same = fit.get(index).is_some_and(|(interface, mac)| {
                interface.name == port.name && *mac == port.mac && !port.commands.is_closed()
            });
            if !same {
                tracing::info!(interface = port.name, "no longer announcing here");
            }
            same
        });
        self.refused
            .retain(|(index, _)| self.ports.contains_key(index));
        self.retry = false;
        let mut changed = self.ports.len() < before;
        for (index, (interface, mac)) in fit {
            if self.ports.contains_key(&index) {
                continue;
            }
            let identity = port::Identity {
                name: interface.name.clone(),
                index,
                mac,
            };
            let context = port::Context {
                silence: self.context.silence.clone(),
                claims: self.claims.clone(),
                refusals: self.refusals.clone(),
                metrics: self.context.metrics.clone(),
            };
            match port::start(identity, context) {
                Ok(commands) => {
                    tracing::info!(interface = interface.name, %mac, "announcing here");
                    let port = Port {
                        name: interface.name.clone(),
                        mac,
                        commands,
                        given: HashMap::new(),
                        neighbours: Vec::new(),
                    };
                    self.ports.insert(index, port);
                    changed = true;
                }
                Err(error) => {
                    self.retry |= !error.is_missing();
                    tracing::warn!(
                        interface = interface.name,
                        error = &error as &dyn std::error::Error,
                        "cannot announce here"
                    );
                }
            }
        }
        self.introduce().await;
        if changed {
            self.receive().await;
            self.bring_all().await;
        }
    }

    /// Shows in `metallb_speaker_announced` what is announced of `address`, or no longer.
    fn count(&self, address: IpAddr, announcement: Option<&Announcement>, up: bool) {
        let announced = &self.context.metrics.announced;
        let services = announcement.into_iter().flat_map(|it| &it.services);
        for service in services {
            if up {
                let node = &self.context.node;
                announced.begin(node, service.clone(), Protocol::Layer2, address);
            } else {
                announced.end(service, Protocol::Layer2, address);
            }
        }
    }
}
