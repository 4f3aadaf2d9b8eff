//! What the program says of itself: readiness, for probes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by the tasks that know and the HTTP server that tells.
#[derive(Clone, Debug, Default)]
pub struct Health {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    synced: AtomicBool,
    standby: AtomicBool,
}

impl Health {
    /// Everything that existed at the start is known.
    pub fn set_synced(&self) {
        self.state.synced.store(true, Ordering::Release);
    }

    /// Another replica leads: ready to take over.
    pub fn set_standby(&self, standby: bool) {
        self.state.standby.store(standby, Ordering::Release);
    }

    /// Why it is not ready; `None` when it is.
    pub fn unready(&self) -> Option<&'static str> {
        let synced = self.state.synced.load(Ordering::Acquire);
        let standby = self.state.standby.load(Ordering::Acquire);
        (!synced && !standby).then_some("waiting for the first complete list of objects")
    }
}
