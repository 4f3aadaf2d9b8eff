//! When this node must not answer: others may have its addresses.

use std::time::Duration;

use super::{
    Event, Id, Member, State,
    guard::{Step, Watch},
    peer::Peer,
};

/// Beats that an isolation lasts at least: the others need them to yield.
const LEAST: u32 = 2;

/// Why a node is isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The process was not run for as long as a death takes.
    Paused {
        /// How late it was.
        late: Duration,
    },
    /// No guardian was heard for as long.
    Deaf,
    /// It read its own obituary.
    Buried,
    /// It had gone on alone, and hears one that it held for dead and that lived: it was cut off
    /// itself, and others have its addresses.
    Alone,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Isolation {
    /// First datagram of this isolation: a beat from it on is to be acknowledged.
    pub(super) sequence: u32,
    earliest: Duration,
    acknowledged: bool,
    /// When to look whether anybody is there at all.
    look: Duration,
}

impl Isolation {
    pub(super) fn due(&self) -> Duration {
        if self.acknowledged {
            self.earliest.min(self.look)
        } else {
            self.look
        }
    }
}

impl Member {
    /// Whether this node must answer for no address. Ask before each answer: a pause is seen here
    /// before any other call has noticed it.
    pub fn isolated(&self, now: Duration) -> bool {
        let pausing = !self.ends()
            && !self.peers.is_empty()
            && self.late(now) > self.config.profile.detection();
        self.isolation.is_some() || pausing
    }

    fn late(&self, now: Duration) -> Duration {
        now.saturating_sub(self.next_beat)
    }

    /// Looks, before anything else is done at `now`, for time in which the caller did not run. A
    /// beat is due at least every `beat`, so lateness for the beat is that time.
    pub(super) fn wake(&mut self, now: Duration) {
        let late = self.late(now);
        let profile = self.config.profile;
        if self.ends() || late <= profile.beat {
            return;
        }
        let paused = late > profile.detection();
        let fresh = now + profile.patience();
        for ward in self.wards.values_mut() {
            if paused {
                ward.hear(fresh);
            } else {
                ward.watch.due += late;
            }
        }
        if paused {
            self.hearing = Watch::until(fresh);
        } else {
            self.hearing.due += late;
        }
        for peer in self.peers.values_mut() {
            peer.heard = now.min(peer.heard + late);
        }
        self.wait_longer(now, late);
        self.next_beat = now;
        if paused {
            self.isolate(now, Cause::Paused { late });
        }
    }

    /// Whether this node waits to hear its guardians.
    pub(super) fn listens(&self) -> bool {
        !self.guardians.is_empty() && self.isolation.is_none()
    }

    pub(super) fn hear_guardian(&mut self, now: Duration, arrived: Duration) {
        self.hearing.hear(arrived + self.config.profile.patience());
        if std::mem::take(&mut self.deaf) {
            self.next_beat = self.next_beat.min(now);
        }
    }

    /// Asks the guardians whether they are there; where they are not, this node falls silent.
    pub(super) fn listen(&mut self, now: Duration) {
        if !self.listens() || self.hearing.due > now {
            return;
        }
        match self.hearing.step(now, &self.config.profile) {
            Step::Probe => {
                for id in self.guardians.clone() {
                    let beat = self.beat_body(true);
                    self.send(id, beat);
                }
            }
            Step::Over => self.isolate(now, Cause::Deaf),
        }
    }

    /// Its own obituary, of `incarnation`: what the others know ends, and this node lives on in the
    /// next one.
    pub(super) fn buried(&mut self, now: Duration, incarnation: u64) {
        self.change_payload();
        self.reincarnate(incarnation.saturating_add(1));
        self.isolate(now, Cause::Buried);
    }

    /// What this node said of itself may be so no longer.
    fn change_payload(&mut self) {
        if let Some(bytes) = self.after_silence.take() {
            self.payload.version += 1;
            self.payload.bytes = bytes;
        }
    }

    pub(super) fn isolate(&mut self, now: Duration, cause: Cause) {
        self.change_payload();
        // Where there is nobody, nobody has taken anything.
        if self.peers.is_empty() {
            self.events
                .extend([Event::Isolated { cause }, Event::Resumed]);
            return;
        }
        let known = self.isolation.is_some();
        let profile = self.config.profile;
        let somebody = self.hopes();
        let earliest = now + profile.beat * LEAST;
        self.isolation = Some(Isolation {
            sequence: self.sequence + 1,
            earliest,
            acknowledged: false,
            look: if somebody {
                now + profile.lost
            } else {
                earliest
            },
        });
        self.deaf = cause == Cause::Deaf;
        self.next_beat = self.next_beat.min(now);
        if !known {
            match cause {
                Cause::Paused { .. } => self.counters.paused += 1,
                Cause::Deaf | Cause::Alone => self.counters.deaf += 1,
                // Counted where it was read.
                Cause::Buried => {}
            }
            self.events.push_back(Event::Isolated { cause });
        }
    }

    /// A guardian has heard the beat with this number.
    pub(super) fn acknowledged(&mut self, now: Duration, sequence: u32) {
        if let Some(isolation) = &mut self.isolation
            && sequence >= isolation.sequence
        {
            isolation.acknowledged = true;
            if now >= isolation.earliest {
                self.resume(now);
            }
        }
    }

    /// Ends the isolation when it may end. Who has not been heard for [`super::Profile::lost`] is
    /// dead; where that is everybody, this node goes on alone.
    pub(super) fn look_out(&mut self, now: Duration) {
        let Some(isolation) = &mut self.isolation else {
            return;
        };
        if isolation.acknowledged && now >= isolation.earliest {
            self.resume(now);
            return;
        }
        let lost = self.config.profile.lost;
        if now < isolation.look {
            return;
        }
        isolation.look = now + lost;
        let silent = |id: &Id, peer: &Peer| {
            matches!(peer.state, State::Unknown | State::Alive)
                && !self.awaited.contains_key(id)
                && now >= peer.heard + lost
        };
        let dead: Vec<Id> = self
            .peers
            .iter()
            .filter(|(id, peer)| silent(id, peer))
            .map(|(id, _)| *id)
            .collect();
        for id in dead {
            self.end(now, id, State::Dead);
        }
        if !self.hopes() {
            self.resume(now);
            self.alone = true;
        }
    }

    /// Whether somebody may be there. Whose next start is to come is not.
    fn hopes(&self) -> bool {
        self.peers.iter().any(|(id, peer)| {
            matches!(peer.state, State::Unknown | State::Alive) && !self.awaited.contains_key(id)
        })
    }

    fn resume(&mut self, now: Duration) {
        self.isolation = None;
        self.deaf = false;
        self.alone = false;
        self.hearing = Watch::until(now + self.config.profile.patience());
        self.events.push_back(Event::Resumed);
    }
}
