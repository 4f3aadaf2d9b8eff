//! Intervals: what packets say, what holds, and the Poll Sequence between the two (§6.5, §6.8.3).

use std::time::Duration;

/// While a session is not up, nothing is sent more often (§6.8.3).
pub(super) const SLOW: Duration = Duration::from_secs(1);

/// A pair of intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Intervals {
    /// bfd.DesiredMinTxInterval.
    pub(super) tx: Duration,
    /// bfd.RequiredMinRxInterval.
    pub(super) rx: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    Running,
    /// The intervals changed while it ran: its end proves only that the neighbour knows older ones.
    Again,
}

/// The intervals of one session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timers {
    told: Intervals,
    held: Intervals,
    poll: Option<Poll>,
}

impl Timers {
    pub(super) fn new(intervals: Intervals) -> Self {
        Self {
            told: intervals,
            held: intervals,
            poll: None,
        }
    }

    /// What packets say.
    pub(super) fn told(&self) -> Intervals {
        self.told
    }

    /// What counts: the neighbour must not be surprised by a longer silence, nor we by one that it
    /// does not yet know to be too long.
    pub(super) fn held(&self) -> Intervals {
        self.held
    }

    /// Whether packets carry P.
    pub(super) fn polling(&self) -> bool {
        self.poll.is_some()
    }

    /// Wants other intervals. In state Up a slower transmission, and a shorter detection, wait for
    /// the end of a Poll Sequence; in others nothing depends on them, and there is none.
    pub(super) fn want(&mut self, wanted: Intervals, up: bool) {
        let changed = self.told != wanted;
        self.told = wanted;
        if !up {
            self.held = wanted;
            self.poll = None;
        } else if changed {
            self.held.tx = self.held.tx.min(wanted.tx);
            self.held.rx = self.held.rx.max(wanted.rx);
            self.poll = Some(match self.poll {
                None => Poll::Running,
                Some(_) => Poll::Again,
            });
        }
    }

    /// F came.
    pub(super) fn finish(&mut self) {
        match self.poll {
            Some(Poll::Running) => {
                self.poll = None;
                self.held = self.told;
            }
            Some(Poll::Again) => self.poll = Some(Poll::Running),
            None => {}
        }
    }
}
