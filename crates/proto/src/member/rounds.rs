//! Word to all nodes: hellos at changes, and the slow rotation.

use std::{
    ops::Bound::{Excluded, Unbounded},
    time::Duration,
};

use super::{Body, Id, Member, State, peer::Peer};

/// A round comes with every third beat.
const BEATS: u32 = 3;
/// Every second beat calls a dead peer.
const BEATS_OF_DEAD: u32 = 2;
/// Rounds in which a hello is repeated to those that have not answered it.
const INSISTENCE: u32 = 10;
/// When one of the dead is heard again, so many others are called at once.
const RECALLED: usize = 64;
/// Rotations without a word after which a peer is dead, though nobody has said so.
const SILENT_ROTATIONS: u32 = 8;

/// Where the rounds are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rounds {
    pub(super) beats: u32,
    count: u32,
    /// Rounds left in which hellos are repeated.
    insist: u32,
    turn: Option<Id>,
    turn_of_dead: Option<Id>,
    /// When the dead were last called all at once.
    recalled: Option<Duration>,
}

impl Rounds {
    /// There is something that all should know.
    pub(super) fn insist(&mut self) {
        self.insist = INSISTENCE;
    }
}

impl Member {
    pub(super) fn hello(&self, id: Id, answer: bool) -> Body {
        let peer = self.peers.get(&id);
        let payload = peer
            .filter(|peer| self.payload.version > 0 && !self.is_known_to(peer))
            .map(|_| self.payload.clone());
        Body::Hello {
            answer,
            have: peer.map_or(0, |peer| peer.have),
            payload,
        }
    }

    pub(super) fn greet(&mut self, id: Id, answer: bool) {
        let hello = self.hello(id, answer);
        self.send(id, hello);
    }

    pub(super) fn greet_all(&mut self) {
        for id in self.ids() {
            self.greet(id, true);
        }
    }

    /// Whether the peer has this node's incarnation and payload.
    fn is_known_to(&self, peer: &Peer) -> bool {
        peer.acknowledged == Some(self.payload.version)
    }

    /// Follows each beat.
    pub(super) fn round(&mut self, now: Duration) {
        // Two that were cut off from each other both answer until they hear of it.
        if self.rounds.beats.is_multiple_of(BEATS_OF_DEAD) {
            self.call_dead();
        }
        if !self.rounds.beats.is_multiple_of(BEATS) {
            return;
        }
        self.rounds.count = self.rounds.count.wrapping_add(1);
        self.repeat();
        self.give_up(now);
        if self.rounds.count.is_multiple_of(2) {
            self.rotate(now);
        }
    }

    /// Repeats hellos to those that have not answered.
    fn repeat(&mut self) {
        if self.rounds.insist == 0 {
            return;
        }
        self.rounds.insist -= 1;
        let waits = |peer: &Peer| {
            matches!(peer.state, State::Unknown | State::Alive) && !self.is_known_to(peer)
        };
        let peers = self.peers.iter().filter(|(_, peer)| waits(peer));
        let ids: Vec<Id> = peers.map(|(id, _)| *id).collect();
        if ids.is_empty() {
            self.rounds.insist = 0;
        }
        for id in ids {
            self.greet(id, true);
        }
    }

    /// Who was never heard is dead after a while.
    fn give_up(&mut self, now: Duration) {
        let lost = self.config.profile.lost;
        let gone = |peer: &Peer| peer.state == State::Unknown && now >= peer.heard + lost;
        let peers = self.peers.iter().filter(|(_, peer)| gone(peer));
        let ids: Vec<Id> = peers.map(|(id, _)| *id).collect();
        for id in ids {
            self.end(now, id, State::Dead);
        }
    }

    /// The next peer of the rotation gets a hello, unless it needs none, or is found to have been
    /// silent for too long.
    fn rotate(&mut self, now: Duration) {
        let Some(id) = self.next_of(self.rounds.turn, |_| true) else {
            return;
        };
        self.rounds.turn = Some(id);
        let nodes = u32::try_from(self.peers.len()).unwrap_or(u32::MAX);
        let profile = self.config.profile;
        let rotation = (profile.beat * 2 * BEATS).saturating_mul(nodes);
        let limit = profile.lost.max(rotation.saturating_mul(SILENT_ROTATIONS));
        let there = self.is_elector(id);
        let silent = |peer: &Peer| there && now >= peer.heard + limit;
        // Who hears nobody knows nothing of the others.
        if self.isolation.is_none() && self.peers.get(&id).is_some_and(silent) {
            self.end(now, id, State::Dead);
        }
        // Where both beat to the other and each has what the other says of itself, there is no news.
        let known = |peer: &Peer| peer.have > 0 && self.is_known_to(peer);
        let beats = self.guardians.contains(&id) && self.is_ward(id);
        if !(beats && self.guardians.len() > 1 && self.peers.get(&id).is_some_and(known)) {
            self.greet(id, true);
        }
    }

    /// The next dead peer gets a hello: it may be back, or on the other side of a cut that has
    /// healed.
    fn call_dead(&mut self) {
        let next = self.next_of(self.rounds.turn_of_dead, |peer| peer.state == State::Dead);
        if let Some(id) = next {
            self.rounds.turn_of_dead = Some(id);
            self.greet(id, true);
        }
    }

    /// One that was held for dead lives: a cut may have healed, and others be back with it.
    pub(super) fn recall_dead(&mut self, now: Duration) {
        let beat = self.config.profile.beat;
        if self.rounds.recalled.is_some_and(|at| now < at + beat) {
            return;
        }
        self.rounds.recalled = Some(now);
        let dead = self.peers.iter();
        let dead = dead.filter(|(_, peer)| peer.state == State::Dead);
        let ids: Vec<Id> = dead.map(|(id, _)| *id).take(RECALLED).collect();
        for id in ids {
            self.greet(id, true);
        }
    }

    fn next_of(&self, after: Option<Id>, wanted: impl Fn(&Peer) -> bool) -> Option<Id> {
        let start = after.map_or(Unbounded, Excluded);
        let rest = self.peers.range((start, Unbounded));
        let mut all = rest.chain(self.peers.iter());
        all.find(|(_, peer)| wanted(peer)).map(|(id, _)| *id)
    }
}
