//! The thread of failure detection: what comes in, what is due, what goes out.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linux::divided::{self, Divided};
use plan::world;
use proto::member::{Cause, Counters, Event, Member, NodeName, State};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Command, Pulse, Unheard};
use crate::agent::beat;
use crate::http::member::Counts;

/// Datagrams are at most this long.
const MAX_DATAGRAM: usize = 2048;
/// More are not read at once, so that a flood keeps no deadline waiting; more than a socket holds.
const MOST: usize = 512;
/// Where more than these have waited, there may soon be no room for others.
const CROWD: usize = 64;
/// Between two times that metrics are brought up to date.
const COUNTING: Duration = Duration::from_secs(1);

/// What it works with.
pub(super) struct Parts {
    pub(super) commands: mpsc::Receiver<Command>,
    /// Rings when there is a command.
    pub(super) bell: UnixStream,
    pub(super) member: Member,
    pub(super) sockets: Divided,
    /// The sockets are of IPv6, for both families.
    pub(super) dual: bool,
    /// When time began.
    pub(super) start: Instant,
    pub(super) port: u16,
    pub(super) events: mpsc::Sender<world::Event>,
    pub(super) silent: watch::Sender<bool>,
    /// Told who is not heard.
    pub(super) unheard: watch::Sender<Unheard>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) counts: Counts,
}

pub(super) struct Worker {
    parts: Parts,
    /// Events that the planner has no room for yet: the newest of each node and kind.
    untold: VecDeque<world::Event>,
    left: bool,
    /// When it last looked for what has come.
    looked: Duration,
    /// Too much was waiting then.
    crowded: bool,
    /// Who waits for the others to know that the next agent follows.
    makes_way: Option<oneshot::Sender<()>>,
    /// What metrics know.
    counted: Counters,
    next_count: Duration,
}

impl Worker {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            parts,
            untold: VecDeque::new(),
            left: false,
            looked: Duration::ZERO,
            crowded: false,
            makes_way: None,
            counted: Counters::default(),
            next_count: Duration::ZERO,
        }
    }

    fn now(&self) -> Duration {
        self.parts.start.elapsed()
    }

    /// Works until nobody can command it any more.
    pub(super) fn work(mut self) -> io::Result<()> {
        if let Err(error) = linux::thread::be_prompt() {
            tracing::debug!(%error, "failure detection's thread is scheduled as any other");
        }
        loop {
            let rung = self.wait()?;
            // One time for all that is done now. What comes meanwhile is not missed: it wakes anew.
            let now = self.now();
            if rung && !silence(&self.parts.bell) {
                return Ok(());
            }
            loop {
                match self.parts.commands.try_recv() {
                    Ok(command) => self.command(now, command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            self.tell_untold();
            // What has arrived is taken before deadlines are judged: this thread may be late.
            self.receive(now);
            if self
                .parts
                .member
                .poll_timeout()
                .is_some_and(|due| due <= now)
            {
                self.parts.member.on_timeout(now);
            }
            self.flush();
            if self.parts.member.has_left()
                && let Some(done) = self.makes_way.take()
            {
                let _ = done.send(());
            }
            self.count(now);
            // Events first: a pause is told before the pulse looks well again.
            while let Some(event) = self.parts.member.poll_event() {
                if matches!(event, Event::Alive { .. } | Event::Dead { .. }) {
                    self.tell_unheard();
                }
                if let Some(event) = self.translate(event) {
                    self.tell(event);
                }
            }
            if !self.left {
                self.parts.pulse.beat(now);
            }
        }
    }

    /// Waits until something is due, or comes that is to be read at once; whether it rang.
    fn wait(&self) -> io::Result<bool> {
        let due = self.parts.member.poll_timeout();
        let limit = due.map(|due| due.saturating_sub(self.now()));
        let Divided { urgent, patient } = &self.parts.sockets;
        let (urgent, bell) = (urgent.as_fd(), self.parts.bell.as_fd());
        match patient {
            Some(patient) if self.crowded || !self.parts.member.may_wait() => {
                let all = [urgent, bell, patient.as_fd()];
                linux::thread::await_readable(all, limit).map(|[_, rung, _]| rung)
            }
            _ => linux::thread::await_readable([urgent, bell], limit).map(|[_, rung]| rung),
        }
    }

    /// Takes what has arrived, what may have waited first. An error is an earlier send's (port
    /// unreachable): the peer's silence says the same.
    fn receive(&mut self, now: Duration) {
        let mut buffer = [0; MAX_DATAGRAM];
        let member = &mut self.parts.member;
        let mut take = |arrived, from: SocketAddr, datagram: Option<&[u8]>| {
            let from = SocketAddr::new(from.ip().to_canonical(), from.port());
            let datagram = datagram.unwrap_or_default();
            if let Err(error) = member.on_waiting(now, arrived, from, datagram) {
                tracing::debug!(%from, error = &error as &dyn std::error::Error, "beat refused");
            }
        };
        if let Some(patient) = &self.parts.sockets.patient {
            let mut count = 0;
            while count < MOST
                && let Ok((length, from, waited)) = divided::receive(patient, &mut buffer)
            {
                // The wall clock may have been set meanwhile.
                let arrived = now.saturating_sub(waited).max(self.looked);
                take(arrived, from, buffer.get(..length));
                count += 1;
            }
            self.crowded = count > CROWD;
        }
        for _ in 0..MOST {
            let Ok((length, from)) = self.parts.sockets.urgent.recv_from(&mut buffer) else {
                break;
            };
            take(now, from, buffer.get(..length));
        }
        self.looked = now;
    }

    /// Hands on what the planner had no room for.
    fn tell_untold(&mut self) {
        while let Some(event) = self.untold.pop_front() {
            if let Err(error) = self.parts.events.try_send(event) {
                self.untold.push_front(error.into_inner());
                return;
            }
        }
    }

    /// Brings the metrics up to date, now and then: beats are sent far oftener than anybody asks.
    fn count(&mut self, now: Duration) {
        if now < self.next_count {
            return;
        }
        self.next_count = now + COUNTING;
        let counters = *self.parts.member.counters();
        self.parts.counts.add(&self.counted, &counters);
        self.counted = counters;
        self.parts
            .counts
            .set_peers(self.parts.member.peers().map(|(_, state)| state));
    }

    fn tell_unheard(&self) {
        let member = &self.parts.member;
        let alive = |(_, state): &(_, State)| *state == State::Alive;
        let now = Unheard {
            dead: member.dead().collect(),
            heard: member.peers().filter(alive).count(),
        };
        self.parts.unheard.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
    }

    /// Hands an event to the planner; what it has no room for waits, and only the newest counts.
    fn tell(&mut self, event: world::Event) {
        use world::Event::{Member, State};
        let event = if self.untold.is_empty() {
            match self.parts.events.try_send(event) {
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

    fn command(&mut self, now: Duration, command: Command) {
        match command {
            Command::Peers(peers) => {
                let peers = peers
                    .into_iter()
                    .filter_map(|(node, ip)| {
                        Some((
                            NodeName::new(&*node).ok()?,
                            SocketAddr::new(ip, self.parts.port),
                        ))
                    })
                    .collect();
                self.parts.member.set_peers(now, peers);
                self.tell_unheard();
            }
            Command::State(bytes, silent) => {
                let mut set = self.parts.member.set_payload(now, bytes);
                if let (Ok(()), Some(silent)) = (&set, silent) {
                    set = self.parts.member.set_payload_after_silence(silent);
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
                let others = self.parts.member.peers().filter(alive).count();
                self.left = true;
                self.parts.pulse.end();
                self.parts.member.leave(now);
                self.flush();
                let _ = done.send(others);
            }
            Command::MakeWay(within, done) => {
                self.left = true;
                self.parts.pulse.end();
                self.parts.member.make_way(now, within);
                self.makes_way = Some(done);
            }
        }
    }

    /// Sends what is to be sent. A datagram that cannot be sent now is lost, as on any network.
    fn flush(&mut self) {
        while let Some(transmit) = self.parts.member.poll_transmit() {
            let to = match transmit.to {
                SocketAddr::V4(to) if self.parts.dual => {
                    SocketAddr::from((to.ip().to_ipv6_mapped(), to.port()))
                }
                to => to,
            };
            if let Err(error) = self.parts.sockets.urgent.send_to(&transmit.bytes, to) {
                self.parts.counts.unsent.inc();
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
                self.parts.silent.send_replace(true);
                None
            }
            Event::Resumed => {
                tracing::info!("a peer was heard: answering again");
                self.parts.silent.send_replace(false);
                None
            }
        }
    }
}

/// Stops the ringing; false once nobody can ring any more.
fn silence(mut bell: &UnixStream) -> bool {
    let mut rings = [0; 64];
    loop {
        match bell.read(&mut rings) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => {
                let kind = error.kind();
                return matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
            }
        }
    }
}
