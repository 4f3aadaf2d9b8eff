//! Guardians and wards: beats, probes, votes, obituaries.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
    time::Duration,
};

use super::{Body, Death, Id, MAX_GUARDIANS, Member, Profile, State};

/// Guardians whose own beats tell this node often enough that it is not cut off: each is heard twice
/// as often as all together are by acknowledgements.
const ENOUGH: usize = 2;

/// One side's patience with another: silence, then probes, then the end of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pub(super) due: Duration,
    /// Probes, and what came after them.
    tries: u32,
}

/// What a watch that is due asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Probe,
    /// The probes were in vain; said again and again.
    Over,
}

impl Watch {
    /// Content until then.
    pub(super) fn until(due: Duration) -> Self {
        Self { due, tries: 0 }
    }

    /// The other side was heard: content until then, and never less long than before.
    pub(super) fn hear(&mut self, until: Duration) {
        *self = Self::until(until.max(self.due));
    }

    pub(super) fn step(&mut self, now: Duration, profile: &Profile) -> Step {
        self.tries = self.tries.saturating_add(1);
        let fast = self.tries <= 2 * profile.probes;
        let pace = if fast { profile.probe } else { profile.beat };
        // From when it was due: what timers are late by must not add up. Some time for an answer
        // there is always.
        self.due = (self.due + pace).max(now + pace / 2);
        if self.tries <= profile.probes {
            Step::Probe
        } else {
            Step::Over
        }
    }

    /// Whether probes were sent in vain.
    fn is_over(&self, profile: &Profile) -> bool {
        self.tries > profile.probes
    }
}

/// A node that has this one among its guardians.
#[derive(Clone, Debug)]
pub(super) struct Ward {
    pub(super) watch: Watch,
    /// All its guardians that are known here, this node among them.
    guardians: Vec<Id>,
    /// When fellow guardians voted.
    votes: BTreeMap<Id, Duration>,
}

impl Ward {
    pub(super) fn due(&self) -> Duration {
        self.watch.due
    }

    pub(super) fn hear(&mut self, until: Duration) {
        self.watch.hear(until);
        self.votes.clear();
    }
}

/// An obituary that this node repeats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Notice {
    death: Death,
    due: Duration,
    left: u32,
}

impl Notice {
    pub(super) fn due(&self) -> Duration {
        self.due
    }
}

impl Member {
    /// Finds this node's guardians anew: the next in the ring that are alive. Who is one no more is
    /// told, or would wait for beats.
    pub(super) fn regroup(&mut self, now: Duration) {
        let after = self.peers.range((Excluded(self.me), Unbounded));
        let before = self.peers.range(..self.me);
        let ring = after.chain(before).map(|(id, _)| *id);
        let alive = ring.filter(|id| self.is_elector(*id));
        let guardians: Vec<Id> = alive.take(MAX_GUARDIANS).collect();
        if guardians == self.guardians {
            return;
        }
        let old = std::mem::replace(&mut self.guardians, guardians);
        self.hearing = Watch::until(now + self.config.profile.patience());
        let released = old.into_iter().filter(|id| !self.guardians.contains(id));
        let told: Vec<Id> = released.chain(self.guardians.iter().copied()).collect();
        for id in told {
            let beat = self.beat_body(self.isolation.is_some());
            self.send(id, beat);
        }
    }

    pub(super) fn beat_body(&self, answer: bool) -> Body {
        Body::Beat {
            answer,
            guardians: self.guardians.iter().map(|id| id.short()).collect(),
        }
    }

    /// A beat to each guardian. Every second one asks one of them, in turns, for an answer; but not
    /// where guardians are heard anyhow, because they have this node for a guardian (few nodes).
    pub(super) fn beat(&mut self) {
        self.rounds.beats = self.rounds.beats.wrapping_add(1);
        let (turn, rest) = (self.rounds.beats / 2, self.rounds.beats % 2);
        let asked = turn as usize % MAX_GUARDIANS;
        let heard = self.guardians.iter().filter(|id| self.is_ward(**id));
        let asks = heard.count() < ENOUGH;
        for (at, id) in self.guardians.clone().into_iter().enumerate() {
            let answer = self.isolation.is_some() || (asks && rest == 0 && at == asked);
            let beat = self.beat_body(answer);
            self.send(id, beat);
        }
    }

    /// Whether the peer beats to this node, and is not missed.
    pub(super) fn is_ward(&self, id: Id) -> bool {
        self.wards
            .get(&id)
            .is_some_and(|ward| ward.watch.tries == 0)
    }

    /// The guardians that a peer's beat names.
    pub(super) fn take_ward(&mut self, arrived: Duration, id: Id, named: &[u32]) {
        if !named.contains(&self.me.short()) {
            self.wards.remove(&id);
            return;
        }
        let find = |short: &u32| {
            if *short == self.me.short() {
                return Some(self.me);
            }
            let from = Id(u64::from(*short) << 32);
            let (id, _) = self.peers.range(from..).next()?;
            (id.short() == *short).then_some(*id)
        };
        let guardians = named.iter().filter_map(find).collect();
        let until = arrived + self.config.profile.patience();
        let ward = self.wards.entry(id).or_insert_with(|| Ward {
            watch: Watch::until(until),
            guardians: Vec::new(),
            votes: BTreeMap::new(),
        });
        ward.guardians = guardians;
    }

    pub(super) fn hear_ward(&mut self, arrived: Duration, id: Id) {
        let until = arrived + self.config.profile.patience();
        if let Some(ward) = self.wards.get_mut(&id) {
            ward.hear(until);
        }
    }

    /// Probes wards that are silent, and votes.
    pub(super) fn guard(&mut self, now: Duration) {
        let due = |(id, ward): (&Id, &Ward)| (ward.due() <= now).then_some(*id);
        let due: Vec<Id> = self.wards.iter().filter_map(due).collect();
        for id in due {
            let Some(ward) = self.wards.get_mut(&id) else {
                continue;
            };
            let first = ward.watch.tries == 0;
            let voted = ward.watch.is_over(&self.config.profile);
            match ward.watch.step(now, &self.config.profile) {
                Step::Probe => {
                    self.counters.probed += u64::from(first);
                    self.send(id, Body::Probe);
                }
                // Who hears nobody has no say.
                Step::Over if self.isolation.is_some() => {}
                Step::Over => {
                    self.counters.voted += u64::from(!voted);
                    let incarnation = self.peers.get(&id).map_or(0, |peer| peer.incarnation);
                    let death = Death {
                        node: id,
                        incarnation,
                    };
                    for fellow in ward.guardians.clone() {
                        if fellow != self.me {
                            self.send(fellow, Body::Vote(death));
                        }
                    }
                    self.count(now, death);
                }
            }
        }
    }

    /// A fellow guardian does not hear a ward.
    pub(super) fn vote(&mut self, now: Duration, voter: Id, death: Death) {
        let Some(peer) = self.peers.get(&death.node) else {
            return;
        };
        // Who has lost each copy of a leave votes for ever: nobody else misses the one that left.
        let gone = matches!(peer.state, State::Dead | State::Left);
        if gone && peer.over >= death.incarnation {
            self.send(voter, Body::Obituary(death));
            return;
        }
        let current = peer.incarnation == death.incarnation;
        if let Some(ward) = self.wards.get_mut(&death.node).filter(|_| current) {
            ward.votes.insert(voter, now);
            if ward.watch.is_over(&self.config.profile) && self.isolation.is_none() {
                self.count(now, death);
            }
        }
    }

    /// Counts the votes, this node's among them. Guardians that are dead or away themselves have
    /// none, and are not waited for.
    fn count(&mut self, now: Duration, death: Death) {
        let Some(ward) = self.wards.get(&death.node) else {
            return;
        };
        let patience = self.config.profile.patience();
        let alive = |id: &&Id| **id == self.me || self.is_elector(**id);
        let voted = |id: &&Id| {
            **id == self.me || ward.votes.get(id).is_some_and(|at| now <= *at + patience)
        };
        let electors = ward.guardians.iter().filter(alive);
        let (votes, all) = (electors.clone().filter(voted).count(), electors.count());
        if votes > all / 2 {
            self.counters.obituaries += 1;
            self.bury(now, death);
            self.notices.push(Notice {
                death,
                due: now,
                left: self.config.profile.probes,
            });
            self.mourn(now);
        }
    }

    /// An incarnation has ended. Who reads it of himself takes the next.
    pub(super) fn bury(&mut self, now: Duration, death: Death) {
        if death.node == self.me {
            if death.incarnation >= self.incarnation {
                self.counters.buried += 1;
                self.buried(now, death.incarnation);
            }
            return;
        }
        let Some(peer) = self.peers.get_mut(&death.node) else {
            return;
        };
        if death.incarnation >= peer.incarnation {
            peer.over = peer.over.max(death.incarnation);
            self.end(now, death.node, State::Dead);
        }
    }

    /// Repeats obituaries: to all nodes, the dead one among them.
    pub(super) fn mourn(&mut self, now: Duration) {
        let probe = self.config.profile.probe;
        let mut due = Vec::new();
        for notice in &mut self.notices {
            if notice.due <= now {
                due.push(notice.death);
                notice.due = now + probe;
                notice.left = notice.left.saturating_sub(1);
            }
        }
        self.notices.retain(|notice| notice.left > 0);
        for death in due {
            for id in self.ids() {
                self.send(id, Body::Obituary(death));
            }
        }
    }
}
