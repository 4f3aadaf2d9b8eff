//! One peer's task: its connection, its state machine, its Adj-RIB-Out.

mod account;
mod live;
mod parting;
mod routes;
mod session;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use api::corten::v1alpha1::SessionState;
use ipnet::IpNet;
use plan::announce::bgp::{Attributes, PeerKey, PeerSession};
use plan::config::Hidden;
use proto::bgp::adj_in::TooMany;
use proto::bgp::fsm::{ConnectionId, DialError, Output, Peer, Reset, Stop};
use proto::bgp::{AdjOut, Messages, RefreshKind};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::account::counts;
use self::live::Live;
use super::super::bfd::Watch;
use super::drain::Draining;
use super::intake::Intake;
use super::listener::{Listener, Waiter};
use super::neighbour::Locator;
use super::rib::Rib;
use super::sessions::Line;
use super::{Command, Context, connection, label, route};
use crate::http::bgp::Session;

/// Read at once.
const INBOX: usize = 64 * 1024;

pub(super) struct Task {
    context: Context,
    peer: PeerKey,
    label: String,
    counts: Session,
    session: PeerSession,
    locator: Locator,
    password: Option<Hidden>,
    fsm: Peer,
    out: AdjOut,
    intake: Intake,
    waiter: Waiter,
    routes: BTreeMap<IpNet, Arc<Attributes>>,
    draining: Draining,
    /// All inputs are there: End-of-RIB has been sent, or can be.
    ready: bool,
    start: Instant,
    live: Option<Live>,
    dials: JoinSet<(ConnectionId, Result<TcpStream, DialError>)>,
    established: Option<ConnectionId>,
    bfd: Watch,
    line: Line,
    /// The last trouble that was told.
    told: Option<String>,
    /// Whether this session's first malformed UPDATE was told.
    complained: bool,
    /// It ends: the last connection is kept until the peer has closed it too.
    ending: bool,
    last: Option<TcpStream>,
}

impl Task {
    pub(super) fn new(
        context: Context,
        (rib, number): (Rib, u64),
        listener: Listener,
        peer: PeerKey,
        session: PeerSession,
        password: Option<Hidden>,
    ) -> Self {
        let label = label(&session);
        let line = Line::new(&context.sessions, &peer, &label);
        let counts = counts(&context, &session);
        let fsm = Peer::new(route::settings(&session, &context.node, true), seed());
        let bfd = Watch::new(context.bfd.clone(), peer.clone());
        let metrics = context.metrics.clone();
        let intake = Intake::new(
            rib,
            (peer.clone(), number),
            metrics,
            session.receive.clone(),
        );
        let locator = Locator::new(&session, context.interfaces.clone());
        Self {
            context,
            peer,
            label,
            counts,
            session,
            locator,
            password,
            fsm,
            out: AdjOut::new(),
            intake,
            waiter: Waiter::new(listener),
            routes: BTreeMap::new(),
            draining: Draining::default(),
            ready: false,
            start: Instant::now(),
            live: None,
            dials: JoinSet::new(),
            established: None,
            bfd,
            line,
            told: None,
            complained: false,
            ending: false,
            last: None,
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Runs until nobody commands it any more, or the agent stops.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        self.fsm.start(self.now());
        let mut buffer = vec![0; INBOX];
        loop {
            self.settle();
            self.intake.hand_over().await;
            self.waiter.follow(&self.session, &self.password).await;
            self.bfd.follow(&self.session).await;
            let deadline = self.deadline();
            let interest = self.interest();
            let live = self.live.as_ref();
            let ready = async {
                match live {
                    Some(live) => live.stream.ready(interest).await.map(|_| live.id),
                    None => std::future::pending().await,
                }
            };
            let wait = deadline.unwrap_or_else(Instant::now);
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Stop) => return self.leave().await,
                    Some(command) => self.command(command),
                    // The peer is not configured any more.
                    None => {
                        self.intake.end().await;
                        return self.end(Stop::Removed).await;
                    }
                },
                heard = self.waiter.heard() => self.heard(heard),
                Some(dialled) = self.dials.join_next() => self.dialled(dialled),
                () = self.bfd.failure() => self.path_failed(),
                () = self.locator.changed() => self.located(),
                ready = ready => match ready {
                    Ok(_) => self.read(&mut buffer),
                    Err(_) => self.lost(),
                },
                () = tokio::time::sleep_until(wait.into()), if deadline.is_some() => {
                    self.fsm.timer(self.now());
                    self.intake.expire(self.now());
                    if self.draining.expire(Instant::now()) {
                        self.out.replace([]);
                    }
                }
            }
        }
    }

    fn interest(&self) -> Interest {
        match &self.live {
            Some(live) if !live.outbox.is_empty() => Interest::READABLE | Interest::WRITABLE,
            _ => Interest::READABLE,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let own = [self.fsm.deadline(), self.intake.deadline()];
        let own = own.into_iter().flatten().map(|at| self.start + at);
        own.chain(self.draining.deadline()).min()
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Session(session, password) => self.change(*session, password),
            Command::Drain(drain) => self.drain(drain),
            Command::Route(prefix, Some(attributes)) => {
                let old = self.routes.insert(prefix, attributes.clone());
                self.withdraw(prefix, old, Some(&attributes));
                self.offer(prefix, &attributes);
            }
            Command::Route(prefix, None) => {
                let old = self.routes.remove(&prefix);
                self.withdraw(prefix, old, None);
            }
            Command::Ready => {
                self.ready = true;
                self.out.set_ready(true);
                // What grew step by step is half empty; built at once, a map has full nodes.
                self.routes = std::mem::take(&mut self.routes).into_iter().collect();
            }
            Command::Stop => {}
        }
    }

    /// Does what the state machine asks for, and sends what is due, until both are at rest.
    fn settle(&mut self) {
        loop {
            let mut busy = false;
            while let Some(output) = self.fsm.poll() {
                busy = true;
                self.output(output);
            }
            busy |= self.fill();
            busy |= self.flush();
            if !busy {
                if self.has_told_all()
                    && let Some(why) = self.draining.conclude()
                {
                    self.part(why);
                    continue;
                }
                return self.tell_counts();
            }
        }
    }

    /// Whether the peer has been told all that is to be told.
    fn has_told_all(&self) -> bool {
        let waits = |live: &Live| !live.outbox.is_empty();
        self.established.is_some()
            && self.ready
            && self.out.is_idle()
            && !self.live.as_ref().is_some_and(waits)
    }

    /// BFD finds a dead path before the hold time does.
    fn path_failed(&mut self) {
        if self.established.is_some() {
            self.fsm.reset(self.now(), Reset::BfdDown);
        }
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Dial(id) => {
                let peer = self.locator.find();
                let dial = connection::dial(self.session.clone(), peer, self.password.clone());
                self.dials.spawn(async move { (id, dial.await) });
            }
            Output::Send(id, bytes) => {
                if let Some(live) = self.live.as_mut().filter(|live| live.id == id) {
                    self.counts.sent(Messages::in_bytes(&bytes));
                    live.outbox.extend_from_slice(&bytes);
                }
            }
            Output::Close(id) => self.close(id),
            Output::Up(id, negotiated) => {
                tracing::info!(
                    peer = &*self.peer,
                    address = self.label,
                    "session established"
                );
                self.established = Some(id);
                let missing = route::missing(&self.session, &negotiated);
                if !missing.is_empty() {
                    tracing::warn!(peer = &*self.peer, "session {missing}");
                }
                self.line
                    .show(&self.label, SessionState::Established, &missing);
                self.told = None;
                self.complained = false;
                let local = self.local_addresses();
                let origin = self.origin();
                self.intake.up(self.now(), negotiated.clone(), origin);
                self.out.up(negotiated, local);
                self.follow_path();
                self.counts.up.set(1);
            }
            Output::Down(cause) => {
                self.established = None;
                self.out.down();
                self.intake.down();
                if self.draining.is_over() {
                    tracing::info!(peer = &*self.peer, address = self.label, "session drained");
                    return;
                }
                self.counts.up.set(0);
                self.trouble(&cause, "session lost");
            }
            Output::Trouble(cause) => {
                self.counts.up.set(0);
                self.trouble(&cause, "no session");
            }
            Output::Update(update) => {
                self.flawed(&update);
                let interfaces = self.context.interfaces.borrow().clone();
                let now = self.now();
                let taken = self.intake.update(now, *update, &interfaces, &self.label);
                if let Err(TooMany { limit, .. }) = taken {
                    self.fsm.reset(self.now(), Reset::MaxPrefixes { limit });
                }
            }
            Output::Refresh(family, kind) => {
                if kind == RefreshKind::Request {
                    self.out.refresh(family);
                }
            }
            Output::Learned(learned) => {
                tracing::info!(peer = &*self.peer, ?learned, "the peer's routes");
                self.intake.learned(learned);
            }
        }
    }
}

/// Of the jitter: need not be secret.
pub(super) fn seed() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::from(since_epoch.subsec_nanos()) ^ (u64::from(std::process::id()) << 32)
}
