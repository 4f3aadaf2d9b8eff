//! The member: what comes in, what goes out. Guarding, isolation and the rounds to all nodes have
//! files of their own.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    Body, Cause, Counters, Death, Error, Id, Key, MAX_PAYLOAD, NodeName, Packet, Payload, Profile,
    State,
    counters::note_kind,
    guard::{Notice, Ward, Watch},
    isolation::Isolation,
    peer::Peer,
    rounds::Rounds,
    succession::{Awaited, Parting},
};

/// How often a leave is sent, since nobody repeats it later.
const LEAVE_COPIES: usize = 3;
/// In a hello to who has proved nothing yet: no version of its payload, and it has to repeat itself.
const NOTHING: u32 = u32::MAX;
/// An incarnation ends before its sequence numbers do; more than is sent between two beats.
const LAST_SEQUENCE: u32 = u32::MAX - (1 << 24);

/// Settings of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Intervals.
    pub profile: Profile,
    /// The cluster's secret; `None` sends and takes datagrams without authentication.
    pub key: Option<Key>,
    /// Should be greater at each start of the node than at the one before: wall-clock time will do.
    /// Where it is not, the peers say so, and the node corrects it.
    pub incarnation: u64,
    /// Of the jitter.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            profile: Profile::DEFAULT,
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
    /// The peer was buried, or has been silent for too long.
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
        version: u32,
        /// The payload.
        bytes: Vec<u8>,
    },
    /// Others may have this node's addresses: it is isolated now.
    Isolated {
        /// Why.
        cause: Cause,
    },
    /// The isolation is over; what others took in the meantime is to be claimed again.
    Resumed,
}

/// One node's view of who is alive. Every call takes the time; none goes back in it.
///
/// The caller drains its socket into [`Self::on_datagram`] before it calls [`Self::on_timeout`]
/// with a time from before that; what may wait comes first, to [`Self::on_waiting`], whatever the
/// caller has woken for. After each call it drains [`Self::poll_transmit`] and [`Self::poll_event`].
#[derive(Clone, Debug)]
pub struct Member {
    pub(super) me: Id,
    name: NodeName,
    pub(super) config: Config,
    random: u64,
    /// Incarnations of this process: from the first to the present one.
    first: u64,
    pub(super) incarnation: u64,
    pub(super) sequence: u32,
    pub(super) payload: Payload,
    /// What takes its place when this node falls silent.
    pub(super) after_silence: Option<Vec<u8>>,
    pub(super) peers: BTreeMap<Id, Peer>,
    /// Who is beaten to.
    pub(super) guardians: Vec<Id>,
    /// Who beats to this node as its guardian.
    pub(super) wards: BTreeMap<Id, Ward>,
    pub(super) notices: Vec<Notice>,
    /// The guardians, as this node hears them.
    pub(super) hearing: Watch,
    pub(super) isolation: Option<Isolation>,
    /// No guardian has been heard since the isolation began.
    pub(super) deaf: bool,
    /// Its last isolation ended because nobody was there, and nobody has been heard since.
    pub(super) alone: bool,
    pub(super) rounds: Rounds,
    pub(super) next_beat: Duration,
    /// It ends, and its next start follows.
    pub(super) parting: Option<Parting>,
    pub(super) left: bool,
    /// Peers whose next start follows.
    pub(super) awaited: BTreeMap<Id, Awaited>,
    outbox: VecDeque<Transmit>,
    pub(super) events: VecDeque<Event>,
    pub(super) counters: Counters,
}

impl Member {
    /// A member without peers; its first beat is due at once.
    pub fn new(name: NodeName, config: Config, now: Duration) -> Self {
        Self {
            me: Id::of(&name),
            name,
            random: config.seed,
            first: config.incarnation,
            incarnation: config.incarnation,
            config,
            sequence: 0,
            payload: Payload::default(),
            after_silence: None,
            peers: BTreeMap::new(),
            guardians: Vec::new(),
            wards: BTreeMap::new(),
            notices: Vec::new(),
            hearing: Watch::until(now),
            isolation: None,
            deaf: false,
            alone: false,
            rounds: Rounds::default(),
            next_beat: now,
            parting: None,
            left: false,
            awaited: BTreeMap::new(),
            outbox: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// The other nodes and their addresses; this node's own name is passed over. Peers that were
    /// there before keep their state; those no longer named are forgotten without event.
    pub fn set_peers(&mut self, now: Duration, peers: BTreeMap<NodeName, SocketAddr>) {
        self.wake(now);
        let wanted: BTreeMap<Id, (NodeName, SocketAddr)> = peers
            .into_iter()
            .map(|(name, address)| (Id::of(&name), (name, address)))
            .filter(|(id, _)| *id != self.me)
            .collect();
        self.peers.retain(|id, _| wanted.contains_key(id));
        self.wards.retain(|id, _| wanted.contains_key(id));
        self.awaited.retain(|id, _| wanted.contains_key(id));
        let mut new = Vec::new();
        for (id, (name, address)) in wanted {
            if let Some(known) = self.peers.get_mut(&id) {
                known.address = address;
            } else {
                self.peers.insert(id, Peer::new(name, address, now));
                new.push(id);
            }
        }
        if self.ends() {
            return;
        }
        self.regroup(now);
        if !new.is_empty() {
            self.rounds.insist();
        }
        for id in new {
            self.greet(id, true);
        }
    }

    /// Gives the peers this payload, at once if it is a new one.
    pub fn set_payload(&mut self, now: Duration, bytes: Vec<u8>) -> Result<(), Error> {
        if bytes.len() > MAX_PAYLOAD {
            return Err(Error::PayloadLength {
                length: bytes.len(),
            });
        }
        self.wake(now);
        self.after_silence = None;
        if self.payload.version == 0 || self.payload.bytes != bytes {
            self.payload = Payload {
                version: self.payload.version + 1,
                bytes,
            };
            if !self.ends() {
                self.rounds.insist();
                self.greet_all();
            }
        }
        Ok(())
    }

    /// What the peers get in place of the payload from the moment on in which this node is isolated,
    /// until the next [`Self::set_payload`]: what it says then, it says before the caller can.
    pub fn set_payload_after_silence(&mut self, bytes: Vec<u8>) -> Result<(), Error> {
        if bytes.len() > MAX_PAYLOAD {
            return Err(Error::PayloadLength {
                length: bytes.len(),
            });
        }
        self.after_silence = Some(bytes);
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
            for id in self.ids() {
                self.send(id, Body::Leave);
            }
        }
    }

    /// Takes a datagram that arrived just now. An error is for the log; nothing was changed but the
    /// counters.
    pub fn on_datagram(
        &mut self,
        now: Duration,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), Error> {
        self.on_waiting(now, now, from, datagram)
    }

    /// The same with one that has waited in its socket since it `arrived`: its sender was heard then.
    pub fn on_waiting(
        &mut self,
        now: Duration,
        arrived: Duration,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), Error> {
        self.wake(now);
        let taken = self.take(now, arrived.min(now), from, datagram);
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

    /// Whether datagrams that [`super::PATIENT`] describes may wait until something is due or another
    /// datagram comes. Not while this node waits to be heard or somebody is missed, whose word changes
    /// who answers.
    pub fn may_wait(&self) -> bool {
        let well = |peer: &Peer| matches!(peer.state, State::Alive | State::Left);
        self.isolation.is_none() && self.parting.is_none() && self.peers.values().all(well)
    }

    /// When to call [`Self::on_timeout`]; `None` once this node has left.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.left {
            return None;
        }
        if let Some(parting) = &self.parting {
            return Some(parting.due());
        }
        let wards = self.wards.values().map(Ward::due);
        let notices = self.notices.iter().map(Notice::due);
        let hearing = self.listens().then_some(self.hearing.due);
        let isolation = self.isolation.as_ref().map(Isolation::due);
        let awaited = self.awaited.values().map(|awaited| awaited.until);
        let others = wards.chain(notices).chain(hearing).chain(isolation);
        let others = others.chain(awaited);
        Some(others.fold(self.next_beat, Duration::min))
    }

    /// Does what is due.
    pub fn on_timeout(&mut self, now: Duration) {
        if self.left {
            return;
        }
        self.wake(now);
        if self.parting.is_some() {
            self.part(now);
            return;
        }
        if now >= self.next_beat {
            if self.sequence > LAST_SEQUENCE {
                self.reincarnate(self.incarnation.saturating_add(1));
            }
            self.beat();
            self.round(now);
            let next = self.next_beat + self.interval();
            self.next_beat = if next > now {
                next
            } else {
                now + self.interval()
            };
        }
        // Before this node's own hearing: where two are left, one buries the other and goes on.
        self.guard(now);
        self.listen(now);
        self.mourn(now);
        self.miss(now);
        self.look_out(now);
    }

    /// All peers with their state.
    pub fn peers(&self) -> impl Iterator<Item = (&NodeName, State)> {
        self.peers.values().map(|peer| (&peer.name, peer.state))
    }

    /// The addresses of those that are held for dead.
    pub fn dead(&self) -> impl Iterator<Item = IpAddr> {
        let dead = |peer: &&Peer| peer.state == State::Dead;
        self.peers.values().filter(dead).map(|it| it.address.ip())
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn take(
        &mut self,
        now: Duration,
        arrived: Duration,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), Error> {
        let packet = Packet::parse(datagram, self.config.key.as_ref())?;
        if packet.from == self.me {
            return Err(Error::OwnName {
                name: self.name.clone(),
                from: from.ip(),
            });
        }
        let id = packet.from;
        let Some(peer) = self.peers.get(&id) else {
            return Err(Error::UnknownPeer { id });
        };
        let (expected, from) = (peer.address.ip().to_canonical(), from.ip().to_canonical());
        if self.config.key.is_none() && from != expected {
            return Err(Error::WrongAddress {
                name: peer.name.clone(),
                expected,
                from,
            });
        }
        if self.left {
            return Ok(());
        }
        if packet.to > self.incarnation {
            // This node's clock was set back since its last start.
            let next = packet.to.saturating_add(1);
            self.first = next;
            self.reincarnate(next);
        }
        let proves = (self.first..=self.incarnation).contains(&packet.to);
        let Some(peer) = self.peers.get_mut(&id) else {
            return Ok(());
        };
        if !proves || packet.incarnation < peer.incarnation {
            let (incarnation, known) = (packet.incarnation, peer.incarnation);
            let replayed = Error::Replayed {
                name: peer.name.clone(),
                incarnation,
                sequence: packet.sequence,
                last: known,
            };
            self.introduce(now, id, incarnation.max(known));
            // Who does not know this node yet is no attacker.
            return if incarnation < known {
                Err(replayed)
            } else {
                Ok(())
            };
        }
        peer.admit(&packet)?;
        note_kind(&mut self.counters.received, &packet.body);
        if self.parting.is_some() {
            self.hear_parting(now, id, &packet.body);
            return Ok(());
        }
        if packet.incarnation <= peer.over {
            let (over, dead) = (peer.over, peer.state == State::Dead);
            // Two that buried each other must be able to say so.
            if let Body::Obituary(death) = packet.body
                && death.node == self.me
            {
                self.bury(now, death);
            }
            if dead && self.may_answer(now, id) {
                self.send(
                    id,
                    Body::Obituary(Death {
                        node: id,
                        incarnation: over,
                    }),
                );
            }
            return Ok(());
        }
        if packet.body == Body::Leave {
            peer.over = packet.incarnation;
            self.end(now, id, State::Left);
            return Ok(());
        }
        if let Body::Follow { within } = packet.body {
            self.revive(now, arrived, id);
            self.await_next(now, id, packet.sequence, within);
            return Ok(());
        }
        if self.is_awaited(now, id, packet.incarnation) {
            return Ok(());
        }
        let told = self.events.len();
        if !packet.deaf {
            self.revive(now, arrived, id);
        }
        if self.guardians.contains(&id) {
            self.hear_guardian(now, arrived);
        }
        if !packet.deaf {
            self.hear_ward(arrived, id);
        }
        self.read(now, arrived, id, packet);
        self.put_payload_first(told);
        Ok(())
    }

    /// Of one datagram's events: who is alive is known with what it says of itself now, not with what
    /// it said before it died.
    fn put_payload_first(&mut self, told: usize) {
        let mut events = self.events.range(told..);
        let place = events.position(|event| matches!(event, Event::Payload { .. }));
        if let Some(event) = place.and_then(|place| self.events.remove(told + place)) {
            self.events.insert(told, event);
        }
    }

    /// What a living peer says.
    fn read(&mut self, now: Duration, arrived: Duration, id: Id, packet: Packet) {
        let sequence = packet.sequence;
        match packet.body {
            Body::Beat { answer, guardians } => {
                if !packet.deaf {
                    self.take_ward(arrived, id, &guardians);
                }
                if answer {
                    self.send(id, Body::Ack { sequence });
                }
            }
            Body::Ack { sequence } if packet.to == self.incarnation => {
                self.acknowledged(now, sequence);
            }
            Body::Ack { .. } => {}
            Body::Probe => {
                let beat = self.beat_body(false);
                self.send(id, beat);
            }
            Body::Vote(death) => self.vote(now, id, death),
            Body::Obituary(death) => self.bury(now, death),
            Body::Hello {
                answer,
                have,
                payload,
            } => {
                let known = (packet.to == self.incarnation).then_some(have);
                let news = payload.is_some();
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.acknowledged = known;
                    if let Some(Payload { version, bytes }) = payload
                        && version > peer.have
                    {
                        peer.have = version;
                        self.events.push_back(Event::Payload {
                            node: peer.name.clone(),
                            version,
                            bytes,
                        });
                    }
                }
                if answer || news {
                    self.greet(id, false);
                }
            }
            Body::Leave | Body::Follow { .. } => {}
        }
    }

    /// The peer is heard: it is alive, whatever was thought of it.
    fn revive(&mut self, now: Duration, arrived: Duration, id: Id) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.heard = peer.heard.max(arrived);
        if peer.state != State::Alive {
            // One that was started again is another one.
            let lived =
                peer.state == State::Dead && peer.incarnation <= peer.died.saturating_add(1);
            self.counters.revived += u64::from(lived);
            peer.state = State::Alive;
            let node = peer.name.clone();
            // Before this node has been heard by it, which may take longer than hearing it: the
            // first datagrams over a link that is back may be lost.
            if std::mem::take(&mut self.alone) && lived {
                self.isolate(now, Cause::Alone);
            }
            self.events.push_back(Event::Alive { node });
            self.regroup(now);
            if lived {
                self.recall_dead(now);
            }
        }
    }

    /// The peer is gone.
    pub(super) fn end(&mut self, now: Duration, id: Id, state: State) {
        self.wards.remove(&id);
        self.awaited.remove(&id);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.died = peer.incarnation;
        // Should it live, it says anew what it is.
        peer.have = 0;
        let was = std::mem::replace(&mut peer.state, state);
        let node = peer.name.clone();
        match (was, state) {
            // Who is buried does not leave any more, and the other way round.
            (State::Dead | State::Left, _) => peer.state = was,
            (_, State::Left) => self.events.push_back(Event::Left { node }),
            _ => self.events.push_back(Event::Dead { node }),
        }
        self.regroup(now);
    }

    /// Takes a new incarnation: what was said of the old one holds no more.
    pub(super) fn reincarnate(&mut self, next: u64) {
        self.incarnation = next;
        self.sequence = 0;
        for peer in self.peers.values_mut() {
            peer.acknowledged = None;
        }
        if let Some(isolation) = &mut self.isolation {
            isolation.sequence = 1;
        }
        self.rounds.insist();
        self.greet_all();
    }

    /// Whether nothing more is to be said, but that.
    pub(super) fn ends(&self) -> bool {
        self.left || self.parting.is_some()
    }

    pub(super) fn ids(&self) -> Vec<Id> {
        self.peers.keys().copied().collect()
    }

    /// Tells a peer that does not know this node, or thinks of an earlier incarnation.
    fn introduce(&mut self, now: Duration, id: Id, to: u64) {
        if self.may_answer(now, id) {
            let mut hello = self.hello(id, true);
            if let Body::Hello { have, .. } = &mut hello
                && self
                    .peers
                    .get(&id)
                    .is_some_and(|peer| peer.incarnation < to)
            {
                // What is known is an earlier start's.
                *have = NOTHING;
            }
            self.send_to(id, to, hello);
        }
    }

    /// What proves nothing is answered once a beat, so that a recording cannot be used to flood.
    fn may_answer(&mut self, now: Duration, id: Id) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else {
            return false;
        };
        let beat = self.config.profile.beat;
        if peer.answered.is_some_and(|at| now < at + beat) {
            return false;
        }
        peer.answered = Some(now);
        true
    }

    pub(super) fn send(&mut self, id: Id, body: Body) {
        if let Some(peer) = self.peers.get(&id) {
            self.send_to(id, peer.incarnation, body);
        }
    }

    fn send_to(&mut self, id: Id, to: u64, body: Body) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        self.sequence += 1;
        let packet = Packet {
            from: self.me,
            incarnation: self.incarnation,
            to,
            sequence: self.sequence,
            deaf: self.deaf,
            body,
        };
        // What a caller does not fetch must not pile up.
        if self.outbox.len() > 8 * self.peers.len() + 64 {
            self.outbox.pop_front();
            self.counters.overflowed += 1;
        }
        note_kind(&mut self.counters.sent, &packet.body);
        // The only error is a payload too long, which `set_payload` has refused.
        if let Ok(bytes) = packet.build(self.config.key.as_ref()) {
            self.outbox.push_back(Transmit {
                to: peer.address,
                bytes,
            });
        }
    }

    pub(super) fn interval(&mut self) -> Duration {
        let beat = self.config.profile.beat;
        let share = crate::random::next(&mut self.random) >> 48;
        beat - beat / 10 * (share as u32) / 0x1_0000
    }
}
