//! The member: beats out, deadlines, events.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use super::{
    Counters, Echo, Error, Key, Kind, MAX_PAYLOAD, NodeName, Packet, Payload, State, peer::Peer,
};

/// How often a leave is sent, since nobody repeats it later.
const LEAVE_COPIES: usize = 3;

/// Settings of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Longest time between beats; each is up to a tenth shorter, so that nodes do not march in
    /// step.
    pub beat: Duration,
    /// Silence after which a peer is dead.
    pub timeout: Duration,
    /// The cluster's secret; `None` sends and takes datagrams without authentication.
    pub key: Option<Key>,
    /// Must be greater at each start of the node than at the one before: wall-clock time will do.
    pub incarnation: u64,
    /// Of the jitter.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            beat: Duration::from_millis(100),
            timeout: Duration::from_secs(1),
            key: None,
            incarnation: 1,
            seed: 0,
        }
    }
}

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The peer's address.
    pub to: SocketAddr,
    /// The datagram.
    pub bytes: Vec<u8>,
}

/// What the caller has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer is there.
    Alive {
        /// The peer.
        node: NodeName,
    },
    /// The peer has been silent for too long.
    Dead {
        /// The peer.
        node: NodeName,
    },
    /// The peer stops on purpose.
    Left {
        /// The peer.
        node: NodeName,
    },
    /// The peer's payload is new.
    Payload {
        /// The peer.
        node: NodeName,
        /// Grows within an incarnation of the peer.
        version: u64,
        /// The payload.
        bytes: Vec<u8>,
    },
    /// This process was not run for longer than the timeout: it is isolated now.
    Paused {
        /// How late it was.
        late: Duration,
    },
    /// The isolation is over.
    Resumed,
}

#[derive(Clone, Copy, Debug)]
struct Isolation {
    /// First datagram after the pause: its echo ends the isolation.
    sequence: u64,
    /// From here on it also ends when no peer is left to wait for.
    until: Duration,
}

/// One node's view of who is alive. Every call takes the time; none goes back in it.
///
/// The caller drains its socket into [`Self::on_datagram`] before it calls [`Self::on_timeout`],
/// and after each call drains [`Self::poll_transmit`] and [`Self::poll_event`].
#[derive(Clone, Debug)]
pub struct Member {
    me: NodeName,
    config: Config,
    random: u64,
    sequence: u64,
    payload: Payload,
    peers: BTreeMap<NodeName, Peer>,
    next_beat: Duration,
    /// Not later than the earliest deadline; exact after each `on_timeout`.
    next_deadline: Option<Duration>,
    isolation: Option<Isolation>,
    left: bool,
    outbox: VecDeque<Transmit>,
    events: VecDeque<Event>,
    counters: Counters,
}

impl Member {
    /// A member without peers; its first beat is due at once.
    pub fn new(me: NodeName, config: Config, now: Duration) -> Self {
        Self {
            me,
            random: config.seed,
            config,
            sequence: 0,
            payload: Payload::default(),
            peers: BTreeMap::new(),
            next_beat: now,
            next_deadline: None,
            isolation: None,
            left: false,
            outbox: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// The other nodes and their addresses; this node's own name is passed over. Peers that were
    /// there before keep their state; those no longer named are forgotten without event.
    pub fn set_peers(&mut self, now: Duration, peers: BTreeMap<NodeName, SocketAddr>) {
        self.wake(now);
        self.peers.retain(|node, _| peers.contains_key(node));
        let deadline = now + self.config.timeout;
        for (node, address) in peers {
            if node == self.me {
                continue;
            }
            let known = self
                .peers
                .entry(node)
                .or_insert_with(|| Peer::new(address, deadline));
            known.address = address;
        }
        self.watch(deadline);
    }

    /// Gives the peers this payload, at once if it is a new one.
    pub fn set_payload(&mut self, now: Duration, bytes: Vec<u8>) -> Result<(), Error> {
        if bytes.len() > MAX_PAYLOAD {
            return Err(Error::PayloadLength {
                length: bytes.len(),
            });
        }
        self.wake(now);
        if self.payload.version == 0 || self.payload.bytes != bytes {
            self.payload = Payload {
                version: self.payload.version + 1,
                bytes,
            };
            if !self.left {
                self.outbox.clear();
                self.send(Kind::Beat);
            }
        }
        Ok(())
    }

    /// Tells the peers that this node stops on purpose, and falls silent. A node that comes back
    /// is a new member with a greater incarnation.
    pub fn leave(&mut self, now: Duration) {
        self.wake(now);
        if std::mem::replace(&mut self.left, true) {
            return;
        }
        self.outbox.clear();
        for _ in 0..LEAVE_COPIES {
            self.send(Kind::Leave);
        }
    }

    /// Takes a datagram. An error is for the log; nothing was changed but the counters.
    pub fn on_datagram(
        &mut self,
        now: Duration,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), Error> {
        self.wake(now);
        let taken = self.take(now, from, datagram);
        match &taken {
            Ok(()) => self.counters.accepted += 1,
            Err(error) => self.counters.note(error),
        }
        taken
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.outbox.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`Self::on_timeout`]; `None` once this node has left.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.left {
            return None;
        }
        Some(
            self.next_deadline
                .map_or(self.next_beat, |deadline| deadline.min(self.next_beat)),
        )
    }

    /// Beats and declares deaths as due.
    pub fn on_timeout(&mut self, now: Duration) {
        if self.left {
            return;
        }
        self.wake(now);
        if now >= self.next_beat {
            // Beats that could not be sent until now are worth nothing any more.
            self.outbox.clear();
            self.send(Kind::Beat);
            let next = self.next_beat + self.interval();
            self.next_beat = if next > now {
                next
            } else {
                now + self.interval()
            };
        }
        for (node, peer) in &mut self.peers {
            if peer.watched() && peer.deadline <= now {
                peer.state = State::Dead;
                self.events.push_back(Event::Dead { node: node.clone() });
            }
        }
        let watched = self.peers.values().filter(|peer| peer.watched());
        self.next_deadline = watched.map(|peer| peer.deadline).min();
        if self.next_deadline.is_none() && self.isolation.is_some_and(|it| now >= it.until) {
            self.resume();
        }
    }

    /// Whether this node must answer for no address: it was not run for longer than the timeout
    /// and has not yet been heard by a peer since. Ask before each answer: a pause is seen here
    /// before any other call has noticed it.
    pub fn isolated(&self, now: Duration) -> bool {
        let pausing = !self.left && !self.peers.is_empty() && self.late(now) > self.config.timeout;
        self.isolation.is_some() || pausing
    }

    /// All peers with their state, in order of name.
    pub fn peers(&self) -> impl Iterator<Item = (&NodeName, State)> {
        self.peers.iter().map(|(node, peer)| (node, peer.state))
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn take(&mut self, now: Duration, from: SocketAddr, datagram: &[u8]) -> Result<(), Error> {
        let packet = Packet::parse(datagram, self.config.key.as_ref())?;
        if packet.node == self.me {
            return Err(Error::OwnName {
                name: packet.node,
                from: from.ip(),
            });
        }
        let Some(peer) = self.peers.get_mut(&packet.node) else {
            return Err(Error::UnknownPeer { name: packet.node });
        };
        let (expected, from) = (peer.address.ip().to_canonical(), from.ip().to_canonical());
        if self.config.key.is_none() && from != expected {
            return Err(Error::WrongAddress {
                name: packet.node,
                expected,
                from,
            });
        }
        let Some(state) = peer.take(&packet)? else {
            return Ok(());
        };
        peer.deadline = now + self.config.timeout;
        let deadline = peer.deadline;
        if peer.state != state {
            peer.state = state;
            let node = packet.node.clone();
            self.events.push_back(match state {
                State::Left => Event::Left { node },
                _ => Event::Alive { node },
            });
        }
        if let Some(Payload { version, bytes }) = packet.payload
            && version > peer.heard.payload
        {
            peer.heard.payload = version;
            self.events.push_back(Event::Payload {
                node: packet.node,
                version,
                bytes,
            });
        }
        self.watch(deadline);
        let Echo {
            incarnation,
            sequence,
            ..
        } = packet.echo;
        if incarnation == self.config.incarnation
            && self.isolation.is_some_and(|it| sequence >= it.sequence)
        {
            self.resume();
        }
        Ok(())
    }

    fn late(&self, now: Duration) -> Duration {
        now.saturating_sub(self.next_beat)
    }

    /// Looks, before anything else is done at `now`, for time in which the caller did not run. A
    /// beat is due at least every `beat`, so lateness for the beat is that time.
    fn wake(&mut self, now: Duration) {
        let late = self.late(now);
        if self.left || late <= self.config.beat {
            return;
        }
        let paused = late > self.config.timeout;
        for peer in self.peers.values_mut() {
            peer.deadline = if paused {
                now + self.config.timeout
            } else {
                peer.deadline + late
            };
        }
        self.next_beat = now;
        if paused {
            self.events.push_back(Event::Paused { late });
            self.isolation = (!self.peers.is_empty()).then_some(Isolation {
                sequence: self.sequence + 1,
                until: now + self.config.timeout,
            });
        }
    }

    fn resume(&mut self) {
        self.isolation = None;
        self.events.push_back(Event::Resumed);
    }

    fn watch(&mut self, deadline: Duration) {
        self.next_deadline = Some(
            self.next_deadline
                .map_or(deadline, |next| next.min(deadline)),
        );
    }

    /// One datagram for each peer, all with the same sequence number.
    fn send(&mut self, kind: Kind) {
        self.sequence += 1;
        for peer in self.peers.values() {
            let acknowledged = if peer.echo.incarnation == self.config.incarnation {
                peer.echo.payload
            } else {
                0
            };
            let packet = Packet {
                kind,
                node: self.me.clone(),
                incarnation: self.config.incarnation,
                sequence: self.sequence,
                echo: peer.heard,
                payload: (acknowledged < self.payload.version).then(|| self.payload.clone()),
            };
            // The only error is a payload too long, which `set_payload` has refused.
            if let Ok(bytes) = packet.build(self.config.key.as_ref()) {
                self.outbox.push_back(Transmit {
                    to: peer.address,
                    bytes,
                });
            }
        }
    }

    fn interval(&mut self) -> Duration {
        let share = crate::random::next(&mut self.random) >> 48;
        self.config.beat - self.config.beat / 10 * (share as u32) / 0x1_0000
    }
}
