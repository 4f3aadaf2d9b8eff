//! Failure detection: a UDP port around `proto::member`, on a thread of its own: no other work of
//! the agent can delay a beat or an answer to a probe. That is nearly all that an idle agent does, so
//! the thread waits without a runtime, and most of what comes in waits in a socket of its own until
//! the next beat is due (`linux::divided`): the thread is woken once a beat.

mod worker;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use linux::divided::{Divided, Pattern};
use plan::name::Name;
use plan::world;
use proto::member::{Key, Member, NodeName, PATIENT};
use tokio::sync::{mpsc, oneshot, watch};

use super::{AgentError, Config};
use crate::http::member::Counts;
use worker::Worker;

/// Commands that may wait.
const QUEUE: usize = 64;

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

/// Nodes that are held for dead, by their addresses, and how many others are heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unheard {
    pub(super) dead: Vec<IpAddr>,
    pub(super) heard: usize,
}

/// Who has it asks failure detection.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    // Before the rope: when the thread hears that nobody holds that, there is no sender either.
    commands: mpsc::Sender<Command>,
    /// Wakes the thread.
    rope: Arc<UnixStream>,
}

impl Handle {
    /// Hands over a command; false if failure detection has ended.
    pub(super) async fn send(&self, command: Command) -> bool {
        let sent = self.commands.send(command).await.is_ok();
        // Full, it rings already.
        let _ = (&*self.rope).write(&[0]);
        sent
    }
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
    /// It ran at this time, after `start`.
    fn beat(&self, now: Duration) {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
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
    unheard: watch::Sender<Unheard>,
    counts: Counts,
) -> Result<(Handle, Silence, Task), MemberError> {
    let port = config.member_port;
    let waits = Pattern {
        offset: PATIENT.offset as u32,
        mask: PATIENT.mask,
        values: PATIENT.values,
    };
    let sockets =
        Divided::bind(port, &waits).map_err(|source| MemberError::Socket { port, source })?;
    if sockets.patient.is_none() {
        tracing::info!(
            "the kernel does not divide beats from what is to be read at once; this costs more"
        );
    }
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
    let dual = sockets
        .urgent
        .local_addr()
        .is_ok_and(|address| address.is_ipv6());
    let (rope, bell) = UnixStream::pair()
        .and_then(|(rope, bell)| {
            rope.set_nonblocking(true)?;
            bell.set_nonblocking(true)?;
            Ok((rope, bell))
        })
        .map_err(MemberError::Thread)?;
    let handle = Handle {
        commands: commands_in,
        rope: Arc::new(rope),
    };
    let worker = Worker::new(worker::Parts {
        commands,
        bell,
        member,
        sockets,
        dual,
        start,
        port,
        events,
        silent,
        unheard,
        pulse,
        counts,
    });
    Ok((handle, silence, Task { worker }))
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
    worker: Worker,
}

impl Task {
    /// Starts the thread, and ends with it: once nobody has a handle any more.
    pub(super) async fn run(self) -> Result<(), AgentError> {
        let (ended_in, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("member".to_owned())
            .spawn(move || {
                let _ = ended_in.send(self.worker.work());
            })
            .map_err(MemberError::Thread)?;
        match ended.await {
            Ok(worked) => Ok(worked.map_err(MemberError::Thread)?),
            Err(_) => Err(AgentError::Task("failure detection".to_owned())),
        }
    }
}
