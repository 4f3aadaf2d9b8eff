//! BGP: one task for each peer, around `proto::bgp`.
//!
//! The planner hands [`Change`]s to a manager through [`Bgp`], and it to the peers' tasks; each of
//! these owns its connection, its state machine, its Adj-RIB-Out and its Adj-RIB-In. What the peers
//! accept goes to one [`rib`], which owns the kernel's routes.

mod connection;
mod drain;
pub(super) mod events;
mod flaws;
mod intake;
mod listener;
mod neighbour;
mod peer;
pub(super) mod rib;
mod rival;
mod route;
mod sessions;

pub(super) use sessions::Sessions;

use std::collections::BTreeMap;
use std::time::Duration;

use plan::announce::bgp::{Change, Drain, PeerKey, PeerSession};
use plan::config::{Hidden, Neighbour};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::bfd::Bfd;
use super::interfaces::Snapshot;
use crate::http::Metrics;

/// Commands that may wait for a peer's task.
const QUEUE: usize = 1024;
/// How long the peers are given to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a peer's task is told.
#[derive(Debug)]
enum Command {
    Session(Box<PeerSession>, Option<Hidden>),
    Drain(Option<Drain>),
    Route(
        ipnet::IpNet,
        Option<std::sync::Arc<plan::announce::bgp::Attributes>>,
    ),
    /// All inputs are there: End-of-RIB may be sent.
    Ready,
    /// The agent stops.
    Stop,
}

/// What the tasks work with.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) node: plan::name::Name,
    pub(super) interfaces: watch::Receiver<Snapshot>,
    pub(super) bfd: Bfd,
    pub(super) metrics: Metrics,
    /// What is shown of the sessions.
    pub(super) sessions: watch::Sender<Sessions>,
}

enum Request {
    Apply(Change, Option<Hidden>),
    Ready,
    Stop(oneshot::Sender<()>),
}

/// The planner's handle.
#[derive(Clone, Debug)]
pub(super) struct Bgp {
    requests: mpsc::Sender<Request>,
}

impl Bgp {
    /// Brings a change about. `password` is that of a session in it.
    pub(super) async fn apply(&self, change: Change, password: Option<Hidden>) {
        let _ = self.requests.send(Request::Apply(change, password)).await;
    }

    /// All that the peers should know has been handed over once: End-of-RIB may follow.
    pub(super) async fn ready(&self) {
        let _ = self.requests.send(Request::Ready).await;
    }

    /// Ends all sessions: those with graceful restart so that the peers keep their routes, the
    /// others with a word. Returns when that is said, or after a second.
    pub(super) async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        let _ = self.requests.send(Request::Stop(done)).await;
        let _ = stopped.await;
    }
}

/// The handle, and the task to run.
pub(super) fn start(context: Context) -> (Bgp, impl Future<Output = ()> + Send) {
    let (requests, inbox) = mpsc::channel(QUEUE);
    let (rib, rib_task) = rib::start(context.interfaces.clone(), context.metrics.clone());
    let (listener, listener_task) = listener::start(context.metrics.clone());
    let manager = Manager {
        context,
        rib,
        listener,
        started: 0,
        peers: BTreeMap::new(),
        tasks: JoinSet::new(),
        ready: false,
    };
    let run = async {
        // The peers' last words need no routes: the kernel keeps what it has.
        tokio::select! {
            () = manager.run(inbox) => {}
            () = rib_task => {}
            () = listener_task => {}
        }
    };
    (Bgp { requests }, run)
}

/// Owns the peers' tasks.
struct Manager {
    context: Context,
    rib: rib::Rib,
    listener: listener::Listener,
    /// Tasks so far.
    started: u64,
    peers: BTreeMap<PeerKey, mpsc::Sender<Command>>,
    tasks: JoinSet<()>,
    ready: bool,
}

impl Manager {
    /// Runs until nobody asks any more.
    async fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        loop {
            tokio::select! {
                request = inbox.recv() => match request {
                    Some(Request::Apply(change, password)) => self.apply(change, password).await,
                    Some(Request::Ready) => self.ready().await,
                    Some(Request::Stop(done)) => {
                        self.stop().await;
                        let _ = done.send(());
                    }
                    None => return,
                },
                Some(ended) = self.tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a peer's task failed");
                    }
                }
            }
        }
    }

    async fn apply(&mut self, change: Change, password: Option<Hidden>) {
        let (peer, command) = match change {
            Change::Session {
                peer,
                session: None,
            } => {
                // The task ends when nobody commands it any more.
                self.peers.remove(&peer);
                return;
            }
            Change::Session {
                peer,
                session: Some(session),
            } => (peer, Command::Session(session, password)),
            Change::Drain { peer, drain } => (peer, Command::Drain(drain)),
            Change::Route {
                peer,
                prefix,
                attributes,
            } => (peer, Command::Route(prefix, attributes)),
        };
        if let Some(commands) = self.peers.get(&peer) {
            let _ = commands.send(command).await;
        } else if let Command::Session(session, password) = command {
            let (commands, inbox) = mpsc::channel(QUEUE);
            self.started += 1;
            let table = session.receive.as_ref().map(|receive| receive.table);
            // Before the RIB hears that all are known.
            let expect = rib::Message::Expect((peer.clone(), self.started), table);
            self.rib.tell(expect).await;
            let task = peer::Task::new(
                self.context.clone(),
                (self.rib.clone(), self.started),
                self.listener.clone(),
                peer.clone(),
                *session,
                password,
            );
            self.tasks.spawn(task.run(inbox));
            if self.ready {
                let _ = commands.send(Command::Ready).await;
            }
            self.peers.insert(peer, commands);
        }
    }

    async fn ready(&mut self) {
        if std::mem::replace(&mut self.ready, true) {
            return;
        }
        self.rib.tell(rib::Message::Ready).await;
        for commands in self.peers.values() {
            let _ = commands.send(Command::Ready).await;
        }
    }

    async fn stop(&mut self) {
        for commands in std::mem::take(&mut self.peers).into_values() {
            let _ = commands.send(Command::Stop).await;
        }
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GOODBYE, ended).await;
    }
}

/// The peer as metrics name it.
fn label(session: &PeerSession) -> String {
    match &session.neighbour {
        Neighbour::Address(ip) => std::net::SocketAddr::new(*ip, session.port).to_string(),
        Neighbour::Interface(name) => format!("{name}:{}", session.port),
    }
}
