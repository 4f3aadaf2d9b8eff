//! One peer's task: its connection, its state machine, its Adj-RIB-Out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use api::corten::v1alpha1::SessionState;
use ipnet::IpNet;
use linux::netlink::Interface;
use plan::announce::bgp::SessionChange;
use plan::announce::bgp::{Attributes, Drain, GRACEFUL_SHUTDOWN, PeerKey, PeerSession};
use plan::config::{Hidden, Neighbour, Password, RemoteAs};
use proto::bgp::adj_in::TooMany;
use proto::bgp::fsm::{ConnectionId, DialError, Output, Peer, Reset, Stop};
use proto::bgp::{AdjOut, Messages, Nlri, Path, Refresh, RefreshKind};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::bfd::Watch;
use super::drain::{self, Draining};
use super::intake::Intake;
use super::listener::{Heard, Listener, Waiter};
use super::neighbour::Locator;
use super::rib::{Origin, Rib};
use super::sessions::Line;
use super::{Command, Context, connection, label, route};
use crate::http::bgp::Session;

/// UPDATEs are made while fewer bytes than this wait for the kernel.
const OUTBOX: usize = 64 * 1024;
/// Read at once.
const INBOX: usize = 64 * 1024;
/// How long routes ask to be left where the whole agent ends and graceful restart was not agreed on.
const FAREWELL: Duration = Duration::from_millis(300);
/// How long a peer may take to close a connection that we have closed.
const PARTING: Duration = Duration::from_millis(500);

/// A connection with what waits to be sent on it.
struct Live {
    id: ConnectionId,
    stream: TcpStream,
    outbox: Vec<u8>,
}

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
        let machine = self.fsm.deadline().map(|at| self.start + at);
        [machine, self.draining.deadline()]
            .into_iter()
            .flatten()
            .min()
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
            }
            Command::Stop => {}
        }
    }

    fn offer(&mut self, prefix: IpNet, attributes: &Attributes) {
        if self.draining.withholds() {
            return;
        }
        for (nlri, path) in route::paths(&self.session, prefix, attributes) {
            self.out.announce(nlri, &path);
        }
    }

    /// Withdraws the paths of a route's old form that the new one has no more.
    fn withdraw(&mut self, prefix: IpNet, old: Option<Arc<Attributes>>, new: Option<&Attributes>) {
        if !self.session.add_path {
            if let (None, Some(nlri)) = (new, route::nlri(prefix)) {
                self.out.withdraw(&nlri);
            }
            return;
        }
        let paths = |form: &Attributes| -> BTreeSet<Nlri> {
            let paths = route::paths(&self.session, prefix, form);
            paths.map(|(nlri, _)| nlri).collect()
        };
        let kept = new.map(paths).unwrap_or_default();
        for nlri in old.as_deref().map(paths).unwrap_or_default() {
            if !kept.contains(&nlri) {
                self.out.withdraw(&nlri);
            }
        }
    }

    /// Offers every route anew, in the session's present form.
    fn offer_all(&mut self) {
        if self.draining.withholds() {
            return self.out.replace([]);
        }
        let session = &self.session;
        let routes: Vec<(Nlri, Arc<Path>)> = self
            .routes
            .iter()
            .flat_map(|(prefix, attributes)| route::paths(session, *prefix, attributes))
            .collect();
        self.out.replace(routes);
    }

    /// A Service's address and its announcement change the routes; this changes the session.
    fn change(&mut self, session: PeerSession, password: Option<Hidden>) {
        let deep = self.session.change_to(&session);
        // A Secret that is gone takes no session with it.
        let gone = matches!(session.password, Password::Secret { digest: None, .. });
        let password = match password {
            None if gone && deep < SessionChange::Reopen => self.password.clone(),
            password => password,
        };
        let deep = if self.password == password {
            deep
        } else {
            deep.max(SessionChange::Reopen)
        };
        self.session = session;
        self.password = password;
        match deep {
            SessionChange::Nothing => {}
            SessionChange::Live => self.retune(),
            SessionChange::Reopen | SessionChange::Replace => self.reopen(deep),
        }
        if self.intake.set_policy(self.session.receive.clone()) {
            self.ask_again();
        }
        self.offer_all();
    }

    /// Asks the peer for all its routes (RFC 2918); one that cannot be asked is reset.
    fn ask_again(&mut self) {
        let now = self.now();
        let Some(session) = self.fsm.session().cloned() else {
            return;
        };
        let established = self.established;
        let live = self
            .live
            .as_mut()
            .filter(|live| Some(live.id) == established);
        match live {
            Some(live) if session.route_refresh => {
                let before = live.outbox.len();
                for family in session.codec.families.iter() {
                    let refresh = Refresh {
                        family: family.into(),
                        kind: RefreshKind::Request,
                    };
                    refresh.encode(&mut live.outbox);
                }
                let new = live.outbox.get(before..).unwrap_or_default();
                self.counts.sent(Messages::in_bytes(new));
                self.fsm.queued(now, live.id);
            }
            _ => {
                let text = "other routes are wanted".to_owned();
                self.fsm.reset(now, Reset::Administrative { text });
            }
        }
    }

    /// Takes over what the session need not be closed for.
    fn retune(&mut self) {
        tracing::info!(
            peer = &*self.peer,
            "the session's settings changed; an open one stays open"
        );
        let settings = route::settings(&self.session, &self.context.node, false);
        self.fsm.retune(self.now(), &settings);
        if let Some(live) = &self.live {
            connection::retune(&live.stream, &self.session);
        }
        if self.established.is_some() {
            self.follow_path();
        }
    }

    /// Closes the session and opens it in its new form: as over a restart where the peer is the
    /// same and keeps our routes meanwhile.
    fn reopen(&mut self, deep: SessionChange) {
        tracing::info!(peer = &*self.peer, "the session's settings changed");
        // One who only helps has not asked the peer to keep anything.
        let config = self.fsm.config().graceful;
        let asked = config.is_some_and(|it| !it.families.is_empty());
        let both = self.fsm.session().is_some_and(|it| it.graceful.is_some());
        let restart = asked && both && deep == SessionChange::Reopen;
        let stop = if restart {
            Stop::Restart
        } else {
            let text = "configuration changed".to_owned();
            Stop::Drain { text }
        };
        self.fsm.stop(self.now(), stop);
        self.settle();
        self.down_metric();
        self.label = label(&self.session);
        if deep == SessionChange::Replace {
            self.bfd.forget();
            self.locator = Locator::new(&self.session, self.context.interfaces.clone());
        }
        match self.draining.over() {
            Some(why) => self.line.show(&self.label, SessionState::Drained, &why),
            None => self.begin_anew(restart),
        }
    }

    /// The interface tells something new of the peer.
    fn located(&mut self) {
        let live = self.live.as_ref();
        match live.and_then(|live| live.stream.peer_addr().ok()) {
            Some(peer) if self.locator.has_lost(peer) => {
                self.fsm.reset(self.now(), Reset::LinkDown);
            }
            Some(_) => {}
            None => self.fsm.hurry(self.now()),
        }
    }

    fn drain(&mut self, drain: Option<Drain>) {
        tracing::info!(peer = &*self.peer, ?drain, "drain");
        match drain {
            Some(why) => {
                let session = drain::Session {
                    up: self.established.is_some(),
                    routes: !self.routes.is_empty(),
                    graceful: self.session.graceful_restart,
                };
                self.draining.ask(why, session, Instant::now());
                if let Some(why) = self.draining.over() {
                    self.part(why);
                }
            }
            None if self.draining.end() => self.begin_anew(false),
            None => {}
        }
        // The planner sends the routes in their new form.
        self.offer_all();
    }

    /// Ends the session for the time of a drain.
    fn part(&mut self, why: String) {
        self.line.show(&self.label, SessionState::Drained, &why);
        self.fsm.stop(self.now(), Stop::Drain { text: why });
        self.bfd.forget();
        // A session that is not to be there is no alarm.
        self.down_metric();
    }

    /// Begins a session where none was wanted, or in its new form. `restart`: the peer may have our
    /// routes from before.
    fn begin_anew(&mut self, restart: bool) {
        self.counts = counts(&self.context, &self.session);
        self.line.show(&self.label, SessionState::Connecting, "");
        let settings = route::settings(&self.session, &self.context.node, restart);
        self.fsm = Peer::new(settings, seed());
        self.fsm.start_later(self.now());
    }

    /// Whether the peer has been told all that is to be told.
    fn has_told_all(&self) -> bool {
        let waits = |live: &Live| !live.outbox.is_empty();
        self.established.is_some()
            && self.ready
            && self.out.is_idle()
            && !self.live.as_ref().is_some_and(waits)
    }

    fn dialled(
        &mut self,
        dialled: Result<(ConnectionId, Result<TcpStream, DialError>), tokio::task::JoinError>,
    ) {
        let now = self.now();
        match dialled {
            Ok((id, Ok(stream))) => {
                self.live = Some(Live {
                    id,
                    stream,
                    outbox: Vec::new(),
                });
                self.fsm.dialled(now, id);
            }
            Ok((id, Err(error))) => self.fsm.dial_failed(now, id, error),
            // Given up by the state machine.
            Err(_) => {}
        }
    }

    /// The neighbour can connect.
    fn waits(&mut self) {
        self.told = None;
        if let (None, Some(port)) = (self.established, self.session.listen) {
            let waits = format!("waiting for the neighbour to connect to port {port}");
            self.line
                .show(&self.label, SessionState::Connecting, &waits);
        }
    }

    /// The neighbour has connected, or cannot.
    fn heard(&mut self, heard: Heard) {
        let stream = match heard {
            Heard::Connection(stream) => stream,
            Heard::Open => return self.waits(),
            Heard::Trouble(why) => return self.trouble(&DialError::Other(why), "no session"),
        };
        let suits = connection::accepted(&stream, &self.session);
        let id = suits.then(|| self.fsm.accept(self.now())).flatten();
        let Some(id) = id else {
            tracing::debug!(peer = &*self.peer, "a connection is not wanted now");
            let refused = &self.context.metrics.bgp_connections_refused;
            return refused.with_label_values(&["unwanted"]).inc();
        };
        // What the state machine says of an older connection comes before its first word on this.
        let mut stream = Some(stream);
        while let Some(output) = self.fsm.poll() {
            if matches!(&output, Output::Send(of, _) if *of == id)
                && let Some(stream) = stream.take()
            {
                let outbox = Vec::new();
                self.live = Some(Live { id, stream, outbox });
            }
            self.output(output);
        }
    }

    fn read(&mut self, buffer: &mut [u8]) {
        let Some(live) = &self.live else { return };
        let id = live.id;
        match live.stream.try_read(buffer) {
            Ok(0) => self.lost(),
            Ok(length) => {
                let now = self.now();
                let bytes = buffer.get(..length).unwrap_or_default();
                self.fsm.received(now, id, bytes);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => self.lost(),
        }
    }

    /// BFD finds a dead path before the hold time does.
    fn path_failed(&mut self) {
        if self.established.is_some() {
            self.fsm.reset(self.now(), Reset::BfdDown);
        }
    }

    /// The connection is gone.
    fn lost(&mut self) {
        if let Some(live) = self.live.take() {
            self.fsm.closed(self.now(), live.id);
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
                let local = self.local_addresses();
                self.intake.up(negotiated.clone(), self.origin());
                self.out.up(negotiated, local);
                self.follow_path();
                self.counts.up.set(1);
            }
            Output::Down(cause) => {
                self.established = None;
                self.out.down();
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
                let interfaces = self.context.interfaces.borrow().clone();
                let taken = self.intake.update(*update, &interfaces, &self.label);
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

    fn close(&mut self, id: ConnectionId) {
        if self.live.as_ref().is_some_and(|live| live.id == id) {
            self.flush();
            let live = self.live.take().filter(|_| self.ending);
            self.last = live.map(|live| live.stream);
        } else {
            // An attempt to connect: there is one at a time.
            self.dials.abort_all();
        }
    }

    /// Tells trouble once, until it is another one.
    fn trouble(&mut self, cause: &(dyn std::error::Error + 'static), what: &str) {
        let why = crate::cli::chain(cause);
        self.line.show(&self.label, SessionState::Down, &why);
        if self.told.as_deref() != Some(&why) {
            tracing::warn!(peer = &*self.peer, address = self.label, why, "{what}");
            self.told = Some(why);
        }
    }

    fn local_addresses(&self) -> proto::bgp::LocalAddresses {
        let addresses = self.live.as_ref().and_then(|live| {
            let local = live.stream.local_addr().ok()?;
            let peer = live.stream.peer_addr().ok()?;
            Some((local, peer.ip()))
        });
        let (local, peer): (SocketAddr, IpAddr) = match addresses {
            Some(found) => found,
            None => return proto::bgp::LocalAddresses::default(),
        };
        route::local_addresses(local, peer, &self.context.interfaces.borrow())
    }

    /// Where the session's routes come from.
    fn origin(&self) -> Origin {
        let local = self.live.as_ref().map(|live| live.stream.local_addr());
        let interfaces = self.context.interfaces.borrow();
        let of = |which: &dyn Fn(&Interface) -> bool| {
            interfaces.iter().find(|it| which(it)).map(|it| it.index)
        };
        Origin {
            external: false,
            device: local
                .and_then(Result::ok)
                .and_then(|local| of(&|it| it.addresses.iter().any(|(ip, _)| *ip == local.ip()))),
            vrf: self
                .session
                .vrf
                .as_ref()
                .and_then(|vrf| of(&|it| it.name == **vrf)),
        }
    }

    /// Has BFD follow the path of the connection.
    fn follow_path(&mut self) {
        let Some(live) = &self.live else { return };
        if let (Ok(local), Ok(peer)) = (live.stream.local_addr(), live.stream.peer_addr()) {
            let interfaces = self.context.interfaces.borrow();
            self.bfd.up(&self.session, local, peer, &interfaces);
        }
    }

    /// Makes UPDATEs for the established connection.
    fn fill(&mut self) -> bool {
        let now = self.now();
        let Some(live) = &mut self.live else {
            return false;
        };
        if self.established != Some(live.id) || self.out.is_idle() || live.outbox.len() >= OUTBOX {
            return false;
        }
        let before = live.outbox.len();
        self.out.poll(&mut live.outbox, OUTBOX);
        let more = live.outbox.len() > before;
        if more {
            self.fsm.queued(now, live.id);
            let new = live.outbox.get(before..).unwrap_or_default();
            self.counts.sent(Messages::in_bytes(new));
        }
        more
    }

    /// Gives the kernel what it takes at once.
    fn flush(&mut self) -> bool {
        let now = self.now();
        let Some(live) = &mut self.live else {
            return false;
        };
        let mut sent = 0;
        while let Some(rest) = live.outbox.get(sent..).filter(|rest| !rest.is_empty()) {
            match live.stream.try_write(rest) {
                Ok(0) | Err(_) => break,
                Ok(length) => sent += length,
            }
        }
        if sent == 0 {
            return false;
        }
        live.outbox.drain(..sent);
        self.fsm.written(now, live.id, live.outbox.len());
        true
    }

    fn tell_counts(&mut self) {
        self.counts.heard(self.fsm.take_heard());
        if self.draining.is_over() {
            return;
        }
        let counts = self.out.counts();
        let set = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.counts.announced.set(set(counts.sent));
        let pending = counts.desired.saturating_sub(counts.sent);
        self.counts.pending.set(set(pending));
        let accepted = self.intake.accepted();
        self.counts.received.set(accepted);
        self.line.count(self.remote_as(), counts.sent, accepted);
    }

    fn down_metric(&self) {
        self.counts.forget();
    }

    /// The peer's AS number: what it says, or else what is wanted; 0: any.
    fn remote_as(&self) -> u32 {
        match (self.fsm.session(), self.session.remote) {
            (Some(terms), _) => terms.remote_as.0,
            (None, RemoteAs::Number(asn)) => asn,
            (None, RemoteAs::Internal) => self.session.asn,
            (None, RemoteAs::External) => 0,
        }
    }

    /// The agent stops. With graceful restart the peer keeps our routes; without it they ask to be
    /// left, then they are withdrawn, then the session ends with a word (design.md §4.3).
    async fn leave(mut self) {
        if self.draining.is_under_way() {
            self.draining.withdraw();
            self.out.replace([]);
            self.settle();
            let text = "the node drains".to_owned();
            return self.end(Stop::Drain { text }).await;
        }
        let both = self.fsm.session().is_some_and(|it| it.graceful.is_some());
        // Without our part in it we only help the peer.
        if both && self.session.graceful_restart {
            return self.end(Stop::Restart).await;
        }
        if self.established.is_some() && !self.routes.is_empty() {
            let leaving: BTreeMap<IpNet, Arc<Attributes>> = self
                .routes
                .iter()
                .map(|(prefix, attributes)| {
                    let mut leaving = Attributes::clone(attributes);
                    leaving
                        .communities
                        .extend(BTreeSet::from([GRACEFUL_SHUTDOWN]));
                    leaving.local_pref = leaving.local_pref.map(|_| 0);
                    (*prefix, Arc::new(leaving))
                })
                .collect();
            self.routes = leaving;
            self.offer_all();
            self.settle();
            tokio::time::sleep(FAREWELL).await;
            self.out.replace([]);
            self.settle();
        }
        let text = "the agent stops".to_owned();
        self.end(Stop::Drain { text }).await;
    }

    async fn end(mut self, stop: Stop) {
        self.ending = true;
        self.fsm.stop(self.now(), stop);
        self.settle();
        // After BGP: that BFD ends must not look like a failure of a session that lives. The peer's
        // BGP may hear of it by another way, and sooner than our last message.
        if let Some(last) = self.last.take() {
            let _ = tokio::time::timeout(PARTING, connection::part(last)).await;
        }
        self.bfd.end().await;
        self.down_metric();
    }
}

/// The session's counts, under the names that FRR gives it.
fn counts(context: &Context, session: &PeerSession) -> Session {
    let port = session.port;
    let peer = match &session.neighbour {
        Neighbour::Address(ip) => format!("{ip}:{port}"),
        Neighbour::Interface(name) => format!("{name}:{port}"),
    };
    let vrf = session.vrf.as_deref().unwrap_or("default");
    context.metrics.bgp.session(&peer, vrf)
}

/// Of the jitter: need not be secret.
pub(super) fn seed() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::from(since_epoch.subsec_nanos()) ^ (u64::from(std::process::id()) << 32)
}
