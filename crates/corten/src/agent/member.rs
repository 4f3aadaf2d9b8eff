//! Failure detection: one UDP socket around `proto::member`, on a thread of its own: no other work
//! of the agent can delay a beat or an answer to a probe.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use plan::name::Name;
use plan::world;
use proto::member::{Cause, Counters, Event, Key, Member, NodeName, State};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{mpsc, oneshot, watch};

use super::{AgentError, Config, beat};
use crate::http::member::Counts;

/// Commands that may wait.
const QUEUE: usize = 64;
/// Datagrams are at most this long.
const MAX_DATAGRAM: usize = 2048;
/// Between two times that metrics are brought up to date.
const COUNTING: Duration = Duration::from_secs(1);

/// What the planner asks of failure detection.
#[derive(Debug)]
pub(super) enum Command {
    /// The other nodes, with the addresses of their agents.
    Peers(BTreeMap<Name, IpAddr>),
    /// What this node says of itself, and what from the moment on in which it is silent, where that
    /// is less.
    State(Vec<u8>, Option<Vec<u8>>),
    /// This node stops on purpose; answered, once the others were told, with how many there are.
    Leave(oneshot::Sender<usize>),
    /// This process stops, and the node's next agent follows within that time; answered once the
    /// others know, or cannot be reached.
    MakeWay(Duration, oneshot::Sender<()>),
}

/// Whether this node may answer: not after a pause, until a peer was heard, as another may own its
/// addresses by now.
#[derive(Clone, Debug)]
pub(super) struct Silence {
    told: watch::Receiver<bool>,
    pulse: Arc<Pulse>,
}

impl Silence {
    /// Whether nothing may be said now. True from the pause's end on, whichever task runs first
    /// then.
    pub(super) fn holds(&self) -> bool {
        *self.told.borrow() || self.pulse.is_late()
    }

    /// Whether it began or ended since that was last awaited.
    pub(super) fn has_changed(&self) -> bool {
        self.told.has_changed().unwrap_or(true)
    }

    /// Waits until what it holds may have changed.
    pub(super) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.told.changed().await
    }
}

/// When the task ran last. It runs for every beat, so that a longer time is a pause.
#[derive(Debug)]
struct Pulse {
    start: Instant,
    /// Nanoseconds after `start`.
    ran: AtomicU64,
    limit: Duration,
}

impl Pulse {
    fn beat(&self) {
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.ran.store(now, Ordering::Relaxed);
    }

    /// No more beats will come, and that says nothing.
    fn end(&self) {
        self.ran.store(u64::MAX, Ordering::Relaxed);
    }

    fn is_late(&self) -> bool {
        let ran = Duration::from_nanos(self.ran.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(ran) > self.limit
    }
}

/// Why failure detection does not start.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The socket.
    #[error("cannot use UDP port {port} for failure detection; choose another with --member-port")]
    Socket {
        /// The port.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// The secret.
    #[error("the key file {file} cannot be used: {why}")]
    Key {
        /// The file.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// The thread.
    #[error("cannot start a thread for failure detection")]
    Thread(#[source] io::Error),
    /// This node's name.
    #[error("the node name {0} cannot be used: at most 253 letters, digits, - and .")]
    Name(Name),
}

/// Opens the socket; the task is to be run.
pub(super) fn start(
    config: &Config,
    events: mpsc::Sender<world::Event>,
    counts: Counts,
) -> Result<(mpsc::Sender<Command>, Silence, Task), MemberError> {
    let port = config.member_port;
    let socket = open(port).map_err(|source| MemberError::Socket { port, source })?;
    let key = config.member_key.clone().map(read_key).transpose()?;
    if key.is_none() {
        tracing::warn!("beats are not authenticated; give --member-key-file to every agent");
    }
    let me = NodeName::new(&*config.agent.node)
        .map_err(|_| MemberError::Name(config.agent.node.clone()))?;
    let since_epoch = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let settings = proto::member::Config {
        profile: config.member_profile,
        key,
        incarnation: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
        seed: u64::from(since_epoch.subsec_nanos()) ^ u64::from(std::process::id()),
    };
    let start = Instant::now();
    let pulse = Arc::new(Pulse {
        start,
        ran: AtomicU64::new(0),
        limit: settings.profile.detection(),
    });
    let (silent, told) = watch::channel(false);
    let silence = Silence {
        told,
        pulse: pulse.clone(),
    };
    let member = Member::new(me, settings, start.elapsed());
    let (commands_in, commands) = mpsc::channel(QUEUE);
    let dual = socket.local_addr().is_ok_and(|address| address.is_ipv6());
    let task = Task {
        member,
        socket,
        dual,
        start,
        port,
        commands,
        events,
        untold: VecDeque::new(),
        silent,
        pulse,
        left: false,
        makes_way: None,
        counts,
        counted: Counters::default(),
        next_count: Duration::ZERO,
    };
    Ok((commands_in, silence, task))
}

/// One socket for both families where the host has both.
fn open(port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))
        .and_then(|socket| {
            socket.set_only_v6(false)?;
            socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
            Ok(socket)
        })
        .or_else(|error| {
            if error.kind() == io::ErrorKind::AddrInUse {
                return Err(error);
            }
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
            socket.bind(&SocketAddr::from(([0, 0, 0, 0], port)).into())?;
            Ok(socket)
        })?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn read_key(file: PathBuf) -> Result<Key, MemberError> {
    use sha2::{Digest, Sha256};
    let bytes = std::fs::read(&file).map_err(|error| MemberError::Key {
        file: file.clone(),
        why: error.to_string(),
    })?;
    let secret = bytes.trim_ascii();
    if secret.is_empty() {
        return Err(MemberError::Key {
            file,
            why: "it is empty".to_owned(),
        });
    }
    Ok(Key(Sha256::digest(secret).into()))
}

/// Failure detection, to be run.
pub(super) struct Task {
    member: Member,
    socket: UdpSocket,
    /// The socket is of IPv6, for both families.
    dual: bool,
    start: Instant,
    port: u16,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<world::Event>,
    /// Events that the planner has no room for yet: the newest of each node and kind.
    untold: VecDeque<world::Event>,
    silent: watch::Sender<bool>,
    pulse: Arc<Pulse>,
    left: bool,
    /// Who waits for the others to know that the next agent follows.
    makes_way: Option<oneshot::Sender<()>>,
    counts: Counts,
    /// What metrics know.
    counted: Counters,
    next_count: Duration,
}

impl Task {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Starts the thread, and ends with it.
    pub(super) async fn run(self) -> Result<(), AgentError> {
        let (ended_in, ended) = oneshot::channel();
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build();
            let _ = ended_in.send(runtime.and_then(|runtime| runtime.block_on(self.work())));
        };
        std::thread::Builder::new()
            .name("member".to_owned())
            .spawn(work)
            .map_err(MemberError::Thread)?;
        match ended.await {
            Ok(worked) => Ok(worked.map_err(MemberError::Thread)?),
            Err(_) => Err(AgentError::Task("failure detection".to_owned())),
        }
    }

    async fn work(mut self) -> io::Result<()> {
        let ready = tokio::net::UdpSocket::from_std(self.socket.try_clone()?)?;
        let events = self.events.clone();
        let mut datagram = [0; MAX_DATAGRAM];
        loop {
            let due = self.member.poll_timeout();
            let due = due.map(|due| tokio::time::Instant::from_std(self.start + due));
            tokio::select! {
                received = ready.recv_from(&mut datagram) => {
                    // An error here is an earlier send's (port unreachable): the peer's silence
                    // says the same.
                    if let Ok((length, from)) = received {
                        self.receive(from, datagram.get(..length).unwrap_or_default());
                    }
                }
                command = self.commands.recv() => match command {
                    None => return Ok(()),
                    Some(command) => self.command(command),
                },
                room = events.reserve(), if !self.untold.is_empty() => match room {
                    Ok(room) => {
                        if let Some(event) = self.untold.pop_front() {
                            room.send(event);
                        }
                    }
                    Err(_) => return Ok(()),
                },
                () = tokio::time::sleep_until(due.unwrap_or_else(far)), if due.is_some() => {}
            }
            // What has arrived is taken before deadlines are judged: this thread may be late.
            while let Ok((length, from)) = self.socket.recv_from(&mut datagram) {
                self.receive(from, datagram.get(..length).unwrap_or_default());
            }
            if self
                .member
                .poll_timeout()
                .is_some_and(|due| due <= self.now())
            {
                self.member.on_timeout(self.now());
            }
            self.flush();
            if self.member.has_left()
                && let Some(done) = self.makes_way.take()
            {
                let _ = done.send(());
            }
            self.count();
            // Events first: a pause is told before the pulse looks well again.
            while let Some(event) = self.member.poll_event() {
                if let Some(event) = self.translate(event) {
                    self.tell(event);
                }
            }
            if !self.left {
                self.pulse.beat();
            }
        }
    }

    /// Brings the metrics up to date, now and then: beats are sent far oftener than anybody asks.
    fn count(&mut self) {
        let now = self.now();
        if now < self.next_count {
            return;
        }
        self.next_count = now + COUNTING;
        let counters = *self.member.counters();
        self.counts.add(&self.counted, &counters);
        self.counted = counters;
        self.counts
            .set_peers(self.member.peers().map(|(_, state)| state));
    }

    /// Hands an event to the planner; what it has no room for waits, and only the newest counts.
    fn tell(&mut self, event: world::Event) {
        use world::Event::{Member, State};
        let event = if self.untold.is_empty() {
            match self.events.try_send(event) {
                Ok(()) => return,
                Err(error) => error.into_inner(),
            }
        } else {
            event
        };
        self.untold.retain(|old| match (old, &event) {
            (Member { node: old, .. }, Member { node, .. })
            | (State { node: old, .. }, State { node, .. }) => old != node,
            _ => true,
        });
        self.untold.push_back(event);
    }

    fn receive(&mut self, from: SocketAddr, datagram: &[u8]) {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        if let Err(error) = self.member.on_datagram(self.now(), from, datagram) {
            tracing::debug!(%from, error = &error as &dyn std::error::Error, "beat refused");
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Peers(peers) => {
                let peers = peers
                    .into_iter()
                    .filter_map(|(node, ip)| {
                        Some((NodeName::new(&*node).ok()?, SocketAddr::new(ip, self.port)))
                    })
                    .collect();
                self.member.set_peers(self.now(), peers);
            }
            Command::State(bytes, silent) => {
                let mut set = self.member.set_payload(self.now(), bytes);
                if let (Ok(()), Some(silent)) = (&set, silent) {
                    set = self.member.set_payload_after_silence(silent);
                }
                if let Err(error) = set {
                    // The API carries it as well, only slower.
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "this node's state does not fit into beats"
                    );
                }
            }
            Command::Leave(done) => {
                let alive = |(_, state): &(_, State)| *state == State::Alive;
                let others = self.member.peers().filter(alive).count();
                self.left = true;
                self.pulse.end();
                self.member.leave(self.now());
                self.flush();
                let _ = done.send(others);
            }
            Command::MakeWay(within, done) => {
                self.left = true;
                self.pulse.end();
                self.member.make_way(self.now(), within);
                self.makes_way = Some(done);
            }
        }
    }

    /// Sends what is to be sent. A datagram that cannot be sent now is lost, as on any network.
    fn flush(&mut self) {
        while let Some(transmit) = self.member.poll_transmit() {
            let to = match transmit.to {
                SocketAddr::V4(to) if self.dual => {
                    SocketAddr::from((to.ip().to_ipv6_mapped(), to.port()))
                }
                to => to,
            };
            if let Err(error) = self.socket.send_to(&transmit.bytes, to) {
                self.counts.unsent.inc();
                tracing::trace!(%to, %error, "beat not sent");
            }
        }
    }

    fn translate(&self, event: Event) -> Option<world::Event> {
        let member = |node: NodeName, alive| {
            Some(world::Event::Member {
                node: node.as_str().into(),
                alive: Some(alive),
            })
        };
        match event {
            Event::Alive { node } => {
                tracing::info!(node = node.as_str(), "alive");
                member(node, true)
            }
            Event::Dead { node } => {
                tracing::warn!(node = node.as_str(), "dead: not heard of for too long");
                member(node, false)
            }
            Event::Left { node } => {
                tracing::info!(node = node.as_str(), "left");
                member(node, false)
            }
            Event::Payload { node, bytes, .. } => {
                let state = beat::decode(&bytes)
                    .inspect_err(|error| {
                        tracing::warn!(node = node.as_str(), %error, "its state is not understood");
                    })
                    .ok()?;
                Some(world::Event::State {
                    node: node.as_str().into(),
                    form: Some(state),
                })
            }
            Event::Isolated { cause } => {
                match cause {
                    Cause::Paused { late } => tracing::warn!(
                        ?late,
                        "this process was not run; silent until a peer is heard"
                    ),
                    Cause::Deaf => {
                        tracing::warn!("no peer is heard; silent until a peer is heard");
                    }
                    Cause::Buried => tracing::warn!(
                        "the peers held this node for dead; silent until a peer is heard"
                    ),
                    Cause::Alone => tracing::warn!(
                        "this node was cut off and went on alone; silent until a peer is heard"
                    ),
                }
                self.silent.send_replace(true);
                None
            }
            Event::Resumed => {
                tracing::info!("a peer was heard: answering again");
                self.silent.send_replace(false);
                None
            }
        }
    }
}

/// A moment that is never awaited.
fn far() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(3600)
}
