//! BFD: one task for all sessions, around `proto::bfd`; a room of sessions and sockets for each
//! VRF. It has a thread of its own: intervals are as short as 10 ms, and planning for thousands of
//! Services, or a burst of routes, must not keep a packet waiting.
//!
//! A peer's task has a [`Watch`]. The session begins when BGP first comes up (only then is our
//! address known), outlives BGP sessions, and ends with the peer; the neighbour is then told that
//! it is no failure. Only an end that neither side wanted is reported (RFC 5882 §3.2): BFD that
//! has not come up keeps nothing from working.

mod frames;
mod inbox;
mod room;
mod watch;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::time::{Duration, Instant};

use plan::announce::bgp::PeerKey;
use plan::name::Name;
use proto::bfd::{Key, Settings};
use tokio::sync::{mpsc, oneshot};

use self::room::Room;
pub(super) use self::watch::Watch;
use crate::http::Metrics;

/// Requests that may wait.
const QUEUE: usize = 1024;
/// How long neighbours are given to take note of an end.
const GOODBYE: Duration = Duration::from_secs(1);
/// After this long sockets that could not be opened are tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Whom a session is with, and in which VRF.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    vrf: Option<Name>,
    key: Key,
}

#[derive(Debug)]
enum Request {
    /// The owner wants the session, and to hear of failures.
    Set {
        owner: PeerKey,
        target: Target,
        settings: Settings,
        failed: mpsc::Sender<()>,
    },
    /// The owner wants it no more.
    Release { owner: PeerKey, target: Target },
    /// The agent stops: answers when the neighbours know.
    Stop(oneshot::Sender<()>),
}

/// The handle.
#[derive(Clone, Debug)]
pub(super) struct Bfd {
    requests: mpsc::Sender<Request>,
}

impl Bfd {
    async fn send(&self, request: Request) {
        let _ = self.requests.send(request).await;
    }

    /// Ends all sessions with a word. Returns when the neighbours took note, or after a second.
    pub(super) async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        self.send(Request::Stop(done)).await;
        let _ = stopped.await;
    }
}

/// The handle, and what ends when BFD does.
pub(super) fn start(metrics: Metrics) -> io::Result<(Bfd, impl Future<Output = ()> + Send)> {
    let (requests, inbox) = mpsc::channel(QUEUE);
    let task = Task {
        start: Instant::now(),
        metrics,
        rooms: BTreeMap::new(),
        retry: None,
        stopped: Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (end, ended) = oneshot::channel::<()>();
    std::thread::Builder::new()
        .name("bfd".to_owned())
        .spawn(move || {
            if let Err(error) = linux::thread::be_prompt() {
                tracing::debug!(%error, "BFD's thread is scheduled as any other");
            }
            runtime.block_on(task.run(inbox));
            drop(end);
        })?;
    let ended = async move { _ = ended.await };
    Ok((Bfd { requests }, ended))
}

struct Task {
    start: Instant,
    metrics: Metrics,
    rooms: BTreeMap<Option<Name>, Room>,
    /// When to try again to open sockets.
    retry: Option<Duration>,
    /// Who waits for the end of all sessions.
    stopped: Vec<oneshot::Sender<()>>,
}

impl Task {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Runs until nobody asks any more.
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            self.settle();
            let deadline = self.deadline().map(|due| self.start + due);
            let wait = deadline.unwrap_or_else(Instant::now);
            let (start, rooms) = (self.start, &mut self.rooms);
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => self.request(request),
                    None => return,
                },
                // Every socket is asked each time, for only who asks is woken.
                () = poll_fn(|context| {
                    let mut took = std::task::Poll::Pending;
                    for room in rooms.values_mut() {
                        if room.poll_recv(context, start).is_ready() {
                            took = std::task::Poll::Ready(());
                        }
                    }
                    took
                }) => {}
                () = tokio::time::sleep_until(wait.into()), if deadline.is_some() => {}
            }
            self.due();
        }
    }

    fn request(&mut self, request: Request) {
        let now = self.now();
        match request {
            Request::Set {
                owner,
                target,
                settings,
                failed,
            } => {
                let room = self
                    .rooms
                    .entry(target.vrf.clone())
                    .or_insert_with(|| Room::new(target.vrf, self.metrics.bfd.clone()));
                room.set(now, target.key, settings, owner, failed);
                self.open();
            }
            Request::Release { owner, target } => {
                if let Some(room) = self.rooms.get_mut(&target.vrf) {
                    room.release(now, &target.key, &owner, now + GOODBYE);
                }
            }
            Request::Stop(done) => {
                for room in self.rooms.values_mut() {
                    room.release_all(now, now + GOODBYE);
                }
                self.stopped.push(done);
            }
        }
    }

    /// Opens the sockets that are missing; if one cannot be, tries again later.
    fn open(&mut self) {
        let mut whole = true;
        for room in self.rooms.values_mut() {
            whole &= room.open();
        }
        self.retry = (!whole).then(|| self.now() + RETRY);
    }

    fn deadline(&self) -> Option<Duration> {
        let rooms = self.rooms.values().filter_map(Room::deadline);
        rooms.chain(self.retry).min()
    }

    /// Does what the time has come for. What waits in a socket was in time.
    fn due(&mut self) {
        let start = self.start;
        for room in self.rooms.values_mut() {
            if room.deadline().is_some_and(|due| due <= start.elapsed()) {
                room.drain(start);
                room.on_timeout(start.elapsed());
            }
        }
        if self.retry.is_some_and(|due| due <= self.now()) {
            self.open();
        }
    }

    /// Sends and tells what is to be, and forgets what is over.
    fn settle(&mut self) {
        for room in self.rooms.values_mut() {
            room.settle();
        }
        self.rooms.retain(|_, room| !room.is_empty());
        if self.rooms.is_empty() {
            for done in self.stopped.drain(..) {
                let _ = done.send(());
            }
        }
    }
}
