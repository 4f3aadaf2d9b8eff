//! One TCP connection. A peer has two of them while both sides connect.

use std::{fmt, sync::Arc, time::Duration};

use super::super::{Framer, Negotiated};

/// Names a connection between the state machine and its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(super) u64);

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Our OPEN is sent.
    OpenSent,
    /// Theirs is there and good.
    OpenConfirm,
    /// Routes go.
    Established,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// State of the peer (RFC 4271 §8.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Stopped, or waiting after an error.
    Idle,
    /// Connecting.
    Connect,
    /// Waiting for the next attempt, or for the peer's.
    Active,
    /// Our OPEN is sent.
    OpenSent,
    /// Theirs is there and good.
    OpenConfirm,
    /// Routes go.
    Established,
}

impl From<Phase> for State {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::OpenSent => Self::OpenSent,
            Phase::OpenConfirm => Self::OpenConfirm,
            Phase::Established => Self::Established,
        }
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    /// We opened it.
    pub(super) dialled: bool,
    pub(super) phase: Phase,
    pub(super) framer: Framer,
    pub(super) negotiated: Option<Arc<Negotiated>>,
    /// When the peer has been silent for too long.
    pub(super) hold: Option<Duration>,
    /// When silence after our OPEN is worth a word.
    pub(super) warn: Option<Duration>,
    pub(super) keepalive: Option<Duration>,
    /// When the peer has not read for too long.
    pub(super) send_hold: Option<Duration>,
    pub(super) established: Option<Duration>,
}

impl Connection {
    pub(super) fn hold_time(&self) -> Duration {
        let negotiated = self.negotiated.as_ref();
        negotiated.map_or(super::OPEN_HOLD, |negotiated| negotiated.hold_time)
    }

    /// RFC 9687 §6: at least 8 minutes, and twice the hold time; none without hold time.
    pub(super) fn send_hold_time(&self) -> Option<Duration> {
        let hold = self.hold_time();
        (!hold.is_zero()).then(|| (hold * 2).max(Duration::from_secs(480)))
    }

    pub(super) fn deadlines(&self) -> impl Iterator<Item = Duration> {
        [self.hold, self.warn, self.keepalive, self.send_hold]
            .into_iter()
            .flatten()
    }
}
