//! A node's next start follows its end at once: an upgrade. Nobody is to take that for a death.
//!
//! Who ends tells everybody, until all that live have acknowledged it or [`super::Profile::probes`]
//! copies are sent. From then on it counts as alive, is guarded by nobody, guards nobody and votes
//! on nothing. The next incarnation ends that; where none comes in time, the node is dead.

use std::{collections::BTreeSet, time::Duration};

use super::{Body, Id, Member, State};

/// Nobody is waited for longer, whatever it says.
pub const LONGEST_ABSENCE: Duration = Duration::from_secs(10);

/// A peer whose next incarnation is to come; its state is alive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Awaited {
    pub(super) until: Duration,
    /// The one that ends.
    pub(super) incarnation: u64,
}

/// This node's end.
#[derive(Clone, Debug)]
pub(super) struct Parting {
    /// Milliseconds.
    within: u32,
    /// First datagram of it.
    sequence: u32,
    due: Duration,
    copies: u32,
    unaware: BTreeSet<Id>,
}

impl Parting {
    pub(super) fn due(&self) -> Duration {
        self.due
    }
}

impl Member {
    /// Tells the peers that this process ends and that this node's next one follows `within` that
    /// time, which is [`LONGEST_ABSENCE`] at most: nobody buries it before. Beats end. To be gone on
    /// with until [`Self::has_left`].
    pub fn make_way(&mut self, now: Duration, within: Duration) {
        self.wake(now);
        if self.left || self.parting.is_some() {
            return;
        }
        let within = within.min(LONGEST_ABSENCE).as_millis();
        let all = self.peers.keys().copied();
        let alive: BTreeSet<Id> = all.filter(|id| self.is_elector(*id)).collect();
        self.parting = Some(Parting {
            within: u32::try_from(within).unwrap_or(u32::MAX),
            sequence: self.sequence.saturating_add(1),
            due: now,
            copies: self.config.profile.probes,
            unaware: alive,
        });
        self.part(now);
    }

    /// Whether this node has nothing more to say: it has left, or all know of its successor.
    pub fn has_left(&self) -> bool {
        self.left
    }

    /// Tells those that have not acknowledged it.
    pub(super) fn part(&mut self, now: Duration) {
        let probe = self.config.profile.probe;
        let Some(parting) = &mut self.parting else {
            return;
        };
        if parting.unaware.is_empty() || (parting.copies == 0 && parting.due <= now) {
            self.left = true;
            return;
        }
        if parting.due > now {
            return;
        }
        parting.copies -= 1;
        parting.due = now + probe;
        let (ids, within) = (parting.unaware.clone(), parting.within);
        for id in ids {
            self.send(id, Body::Follow { within });
        }
    }

    /// What is said to a node that ends: only that it was understood is of interest.
    pub(super) fn hear_parting(&mut self, now: Duration, id: Id, body: &Body) {
        if let (Some(parting), Body::Ack { sequence }) = (&mut self.parting, body)
            && *sequence >= parting.sequence
        {
            parting.unaware.remove(&id);
            self.part(now);
        }
    }

    /// A peer's next incarnation is to come.
    pub(super) fn await_next(&mut self, now: Duration, id: Id, sequence: u32, within: u32) {
        let within = Duration::from_millis(within.into()).min(LONGEST_ABSENCE);
        if let Some(peer) = self.peers.get(&id) {
            // What is repeated is said of the same end.
            self.awaited.entry(id).or_insert(Awaited {
                until: now + within,
                incarnation: peer.incarnation,
            });
        }
        self.wards.remove(&id);
        self.send(id, Body::Ack { sequence });
        self.regroup(now);
    }

    /// Whether this is said by an incarnation that has ended. The next one ends the wait.
    pub(super) fn is_awaited(&mut self, now: Duration, id: Id, incarnation: u64) -> bool {
        match self.awaited.get(&id) {
            Some(awaited) if incarnation <= awaited.incarnation => return true,
            Some(_) => {}
            None => return false,
        }
        self.awaited.remove(&id);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.heard = now;
        }
        self.regroup(now);
        false
    }

    /// Who did not come is dead.
    pub(super) fn miss(&mut self, now: Duration) {
        let late: Vec<(Id, Awaited)> = self
            .awaited
            .iter()
            .filter(|(_, awaited)| awaited.until <= now)
            .map(|(id, awaited)| (*id, *awaited))
            .collect();
        for (id, awaited) in late {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.over = peer.over.max(awaited.incarnation);
            }
            self.end(now, id, State::Dead);
        }
    }

    /// This node was not run for so long: that counts against nobody.
    pub(super) fn wait_longer(&mut self, now: Duration, late: Duration) {
        let least = now + self.config.profile.patience();
        for awaited in self.awaited.values_mut() {
            awaited.until = (awaited.until + late).min(awaited.until.max(least));
        }
    }

    /// Whether the peer is alive and there: nobody else guards or votes.
    pub(super) fn is_elector(&self, id: Id) -> bool {
        let peer = self.peers.get(&id);
        peer.is_some_and(|peer| peer.state == State::Alive) && !self.awaited.contains_key(&id)
    }
}
