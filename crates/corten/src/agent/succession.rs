//! One agent per node, and one after another without a gap (design.md §4.8).
//!
//! A node's agent holds its place: an abstract unix socket, which is the network namespace's. An
//! agent that finds it held says that it is there, reads all that it must know, says that it is
//! ready, and waits. The one before it, when it is stopped, goes on until its successor is ready,
//! and ends without a hand-over: no address moves, so no connection does. A rolling update with
//! `maxSurge` does that; without a successor an agent hands over to other nodes as ever.
//!
//! Both are of one user: another user's socket is no agent's.
//!
//! On a bare host ([`Alone`]) nobody queues: a second agent is refused, and told who the first is.
//!
//! Two agents cannot both serve the node's port for probes. Until the place is its own, an agent
//! tells the kubelet by [`crate::probe`] how far it is; the probes that the one before answers
//! meanwhile are for both: they succeed when either is ready.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use plan::world::Event;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::probe::is_ours;
use crate::source::{self, Source, Stopped, Updates};
use crate::status::Health;

/// The socket's name.
const NAME: &str = "\0corten-agent";
/// What a successor says when it is ready.
const READY: u8 = b'r';
/// How long the one before waits for that: less than a Pod is given to end.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two tries to take a place that is being left.
const RETRY: Duration = Duration::from_millis(5);
/// How long an agent that ends may take to close its ports.
const CLOSING: Duration = Duration::from_secs(5);

/// Why a bare host's place cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Another agent has it.
    #[error(
        "another Corten agent serves this host ({}): only one may answer for its addresses and \
         speak BGP for it; remedy: stop that one first{}",
        shown(*.0),
        stopping(*.0)
    )]
    Taken(Option<i32>),
    /// There is no such socket to be had.
    #[error("the socket @corten-agent, which keeps a second agent away, cannot be made")]
    Failed(#[source] io::Error),
}

fn shown(pid: Option<i32>) -> String {
    pid.map_or_else(
        || "a process outside this container".to_owned(),
        |pid| format!("process {pid}"),
    )
}

fn stopping(pid: Option<i32>) -> String {
    pid.map_or_else(String::new, |pid| {
        format!(" (`kill {pid}`, or its service)")
    })
}

/// The process at the other end; `None` where this process may not know it.
fn pid_of(stream: &UnixStream) -> Option<i32> {
    let pid = stream.peer_cred().ok()?.pid();
    // Zero: it is in another PID namespace.
    pid.filter(|pid| *pid > 0)
}

/// A bare host's place, held until it is dropped.
#[derive(Debug)]
pub struct Alone(#[expect(dead_code, reason = "held")] UnixListener);

impl Alone {
    /// Takes it, if nobody has it.
    ///
    /// # Errors
    /// When another agent has it, or it cannot be made.
    pub async fn take() -> Result<Self, PlaceError> {
        Self::take_at(NAME).await
    }

    async fn take_at(name: &str) -> Result<Self, PlaceError> {
        loop {
            match UnixListener::bind(name) {
                // Nobody is answered: an agent of a cluster that queues here waits for the end.
                Ok(listener) => return Ok(Self(listener)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(PlaceError::Failed(error)),
            }
            match UnixStream::connect(name).await {
                Ok(stream) => return Err(PlaceError::Taken(pid_of(&stream))),
                // Too many queue there already.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(PlaceError::Taken(None));
                }
                // It has ended in between.
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }
}

/// Who comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Nobody,
    Preparing,
    Ready,
}

/// The place, held until it is dropped.
#[derive(Debug)]
pub struct Place {
    next: watch::Receiver<Next>,
    _listening: JoinSet<()>,
}

/// A place, or one's turn for it.
#[derive(Debug)]
pub enum Turn {
    /// It was free.
    Held(Place),
    /// Another agent holds it, and knows of this one.
    Behind(UnixStream),
}

impl Turn {
    /// Takes the node's place, or queues for it. To be called first of all: a predecessor may be
    /// stopped at any time. `health` is what this agent says of itself.
    ///
    /// # Errors
    /// When the socket is another user's, or cannot be made.
    pub async fn queue(health: &Health) -> io::Result<Self> {
        Self::queue_at(NAME, health).await
    }

    async fn queue_at(name: &str, health: &Health) -> io::Result<Self> {
        loop {
            match UnixListener::bind(name) {
                Ok(listener) => return Ok(Self::Held(Place::hold(listener, health.clone()))),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
            match UnixStream::connect(name).await {
                Ok(stream) if is_ours(&stream)? => return Ok(Self::Behind(stream)),
                Ok(_) => {
                    return Err(io::Error::other(
                        "the socket @corten-agent is another user's",
                    ));
                }
                // It has ended in between.
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// Waits for the place, and reads all there is meanwhile.
    ///
    /// # Errors
    /// As [`Turn::queue`].
    pub async fn take(self, begun: &mut Begun, health: &Health) -> io::Result<Place> {
        self.take_at(NAME, begun, health).await
    }

    async fn take_at(self, name: &str, begun: &mut Begun, health: &Health) -> io::Result<Place> {
        let mut turn = self;
        loop {
            let mut before = match turn {
                Self::Held(place) => return Ok(place),
                Self::Behind(before) => before,
            };
            let pid = pid_of(&before);
            tracing::info!(
                pid,
                "another agent serves this node: following it when it stops"
            );
            let mut end = [0];
            tokio::select! {
                () = begun.synced() => {
                    health.set_standby(true);
                    tracing::info!("ready to follow it");
                    // It may be gone by now: the same as its end.
                    let _ = before.write_all(&[READY]).await;
                    let _ = before.read(&mut end).await;
                }
                _ = before.read(&mut end) => {}
            }
            health.set_standby(false);
            turn = Self::queue_at(name, health).await?;
        }
    }
}

impl Place {
    fn hold(listener: UnixListener, health: Health) -> Self {
        let (tell, next) = watch::channel(Next::Nobody);
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            loop {
                // An error is that of one connection.
                let Ok((mut stream, _)) = listener.accept().await else {
                    tokio::time::sleep(RETRY).await;
                    continue;
                };
                if !is_ours(&stream).unwrap_or(false) {
                    continue;
                }
                tell.send_replace(Next::Preparing);
                let mut said = [0];
                while let Ok(1) = stream.read(&mut said).await {
                    if said == [READY] {
                        health.set_standby(true);
                        tell.send_replace(Next::Ready);
                    }
                }
                tell.send_replace(Next::Nobody);
                health.set_standby(false);
            }
        });
        Self {
            next,
            _listening: listening,
        }
    }

    /// Whether another agent goes on in this one's place; waits for it to be ready.
    pub async fn has_successor(&mut self) -> bool {
        let decided = self.next.wait_for(|next| *next != Next::Preparing);
        match tokio::time::timeout(PATIENCE, decided).await {
            Ok(Ok(next)) => *next == Next::Ready,
            _ => false,
        }
    }
}

/// Waits until nobody has these ports any more: the one before is ending, and its sockets do not all
/// close at once. Whoever else has one of them is named when it is opened.
pub async fn ports_free(tcp: &[SocketAddr], udp: &[SocketAddr]) {
    let free = || {
        tcp.iter().all(|at| std::net::TcpListener::bind(at).is_ok())
            && udp.iter().all(|at| std::net::UdpSocket::bind(at).is_ok())
    };
    let end = tokio::time::Instant::now() + CLOSING;
    while !free() && tokio::time::Instant::now() < end {
        tokio::time::sleep(RETRY).await;
    }
}

/// A source that has begun before the agent does.
#[derive(Debug)]
pub struct Begun {
    updates: Updates,
    told: Vec<Event>,
    synced: bool,
    _task: JoinSet<Stopped>,
}

impl Begun {
    /// Begins.
    pub fn start<S: Source>(source: S) -> Self {
        let (out, updates) = mpsc::channel(source::QUEUE);
        let mut task = JoinSet::new();
        task.spawn(source.run(out));
        Self {
            updates,
            told: Vec::new(),
            synced: false,
            _task: task,
        }
    }

    /// Completes when all there is has been told, once; keeps it. What changes afterwards waits in
    /// the source.
    async fn synced(&mut self) {
        while !self.synced {
            let Some(event) = self.updates.recv().await else {
                break;
            };
            self.synced = matches!(event, Event::Synced);
            self.told.push(event);
        }
    }
}

impl Source for Begun {
    async fn run(mut self, out: mpsc::Sender<Event>) -> Stopped {
        for event in std::mem::take(&mut self.told) {
            if let Err(stopped) = source::tell(&out, event).await {
                return stopped;
            }
        }
        while let Some(event) = self.updates.recv().await {
            if let Err(stopped) = source::tell(&out, event).await {
                return stopped;
            }
        }
        Stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tells this, and then waits.
    struct Fixed(Vec<Event>, Option<tokio::sync::oneshot::Receiver<()>>);

    impl Source for Fixed {
        async fn run(self, out: mpsc::Sender<Event>) -> Stopped {
            for event in self.0 {
                if let Err(stopped) = source::tell(&out, event).await {
                    return stopped;
                }
            }
            if let Some(go) = self.1 {
                let _ = go.await;
                let _ = source::tell(&out, Event::Synced).await;
            }
            std::future::pending().await
        }
    }

    fn gone(name: &str) -> Event {
        Event::Node {
            name: name.into(),
            form: None,
        }
    }

    fn name(test: &str) -> String {
        format!("\0corten-{test}-{}", std::process::id())
    }

    #[tokio::test]
    async fn a_successor_is_waited_for_and_takes_the_place() {
        let name = name("successor");
        let (old, new) = (Health::default(), Health::default());
        let Turn::Held(mut first) = Turn::queue_at(&name, &old).await.expect("free") else {
            panic!("held by nobody");
        };
        let turn = Turn::queue_at(&name, &new).await.expect("queued");
        assert!(matches!(turn, Turn::Behind(_)));
        let (go, gate) = tokio::sync::oneshot::channel();
        let mut begun = Begun::start(Fixed(vec![gone("a")], Some(gate)));
        let (at, health) = (name.clone(), new.clone());
        let second = tokio::spawn(async move {
            let place = turn.take_at(&at, &mut begun, &health).await;
            (place, begun)
        });
        // The first knows of the second, which is not ready.
        let mut next = first.next.clone();
        next.wait_for(|next| *next == Next::Preparing)
            .await
            .expect("told");
        assert!(new.unready().is_some() && old.unready().is_some());
        go.send(()).expect("it waits");
        assert!(first.has_successor().await);
        assert!(!second.is_finished(), "the first is still there");
        // Whichever of them answers a probe.
        assert_eq!((new.unready(), old.unready()), (None, None));
        drop(first);
        let (place, begun) = second.await.expect("no panic");
        let mut place = place.expect("taken");
        assert!(new.unready().is_some(), "its own planner has yet to say so");
        assert!(!place.has_successor().await);
        let (out, mut told) = mpsc::channel(8);
        tokio::spawn(begun.run(out));
        assert_eq!(told.recv().await, Some(gone("a")));
        assert_eq!(told.recv().await, Some(Event::Synced));
    }

    #[tokio::test]
    async fn a_successor_that_dies_is_none() {
        let name = name("dies");
        let Turn::Held(mut first) = Turn::queue_at(&name, &Health::default())
            .await
            .expect("free")
        else {
            panic!("held by nobody");
        };
        let turn = Turn::queue_at(&name, &Health::default())
            .await
            .expect("queued");
        let mut next = first.next.clone();
        next.wait_for(|next| *next == Next::Preparing)
            .await
            .expect("told");
        drop(turn);
        assert!(!first.has_successor().await);
    }

    #[tokio::test]
    async fn a_bare_host_has_one_agent_and_a_second_is_told_of_it() {
        let name = name("alone");
        let first = Alone::take_at(&name).await.expect("free");
        let told = Alone::take_at(&name).await.expect_err("taken").to_string();
        let pid = std::process::id();
        for part in [format!("(process {pid})"), format!("`kill {pid}`")] {
            assert!(told.contains(&part), "{told}");
        }
        // An agent of a cluster waits for its end.
        let health = Health::default();
        let turn = Turn::queue_at(&name, &health).await.expect("queued");
        assert!(matches!(turn, Turn::Behind(_)));
        drop(first);
        let mut begun = Begun::start(Fixed(vec![gone("a")], None));
        let place = turn.take_at(&name, &mut begun, &health).await;
        let _place = place.expect("taken");
        let told = Alone::take_at(&name).await.expect_err("taken by it");
        assert!(matches!(told, PlaceError::Taken(Some(_))), "{told}");
        let unknown = PlaceError::Taken(None).to_string();
        assert!(unknown.contains("outside this container"), "{unknown}");
    }

    #[tokio::test]
    async fn ports_that_are_being_closed_are_waited_for() {
        let held = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let at = held.local_addr().expect("its address");
        let waiting = tokio::spawn(async move { ports_free(&[at], &[]).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        waiting.await.expect("no panic");
    }

    #[tokio::test]
    async fn who_waits_takes_the_place_also_unprepared() {
        let name = name("unprepared");
        let Turn::Held(first) = Turn::queue_at(&name, &Health::default())
            .await
            .expect("free")
        else {
            panic!("held by nobody");
        };
        let turn = Turn::queue_at(&name, &Health::default())
            .await
            .expect("queued");
        drop(first);
        let mut begun = Begun::start(Fixed(vec![gone("a")], None));
        turn.take_at(&name, &mut begun, &Health::default())
            .await
            .expect("taken");
    }
}
