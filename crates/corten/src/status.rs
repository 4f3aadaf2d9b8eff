//! What the program says of itself: readiness, for probes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Shared by the tasks that know and the HTTP server that tells.
#[derive(Clone, Debug, Default)]
pub struct Health {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    synced: AtomicBool,
    standby: AtomicBool,
    /// Why it goes on from what was kept.
    kept: Mutex<Option<String>>,
    /// What keeps a kind from being read, with the remedy.
    obstacles: Mutex<BTreeMap<&'static str, String>>,
    /// Why work is left to MetalLB, with the remedy.
    standing_by: Mutex<Option<String>>,
}

impl Health {
    /// Everything that existed at the start is known.
    pub fn set_synced(&self) {
        self.state.synced.store(true, Ordering::Release);
    }

    /// Another process does the work, and this one is ready to follow it; or this one does it, and
    /// the one that follows is ready.
    pub fn set_standby(&self, standby: bool) {
        self.state.standby.store(standby, Ordering::Release);
    }

    /// It goes on from what was kept, and why; `None`: no more.
    pub(crate) fn set_kept(&self, why: Option<String>) {
        *self
            .state
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Why it goes on from what was kept, if it does.
    pub(crate) fn kept(&self) -> Option<String> {
        let kept = self.state.kept.lock();
        kept.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What keeps a kind from being read, with the remedy; `None`: nothing any more.
    pub(crate) fn set_obstacle(&self, kind: &'static str, obstacle: Option<String>) {
        let obstacles = self.state.obstacles.lock();
        let mut obstacles = obstacles.unwrap_or_else(PoisonError::into_inner);
        match obstacle {
            Some(text) => obstacles.insert(kind, text),
            None => obstacles.remove(kind),
        };
    }

    /// All obstacles there are, in the order of their kinds.
    pub(crate) fn obstacles(&self) -> Vec<String> {
        let obstacles = self.state.obstacles.lock();
        let obstacles = obstacles.unwrap_or_else(PoisonError::into_inner);
        obstacles.values().cloned().collect()
    }

    /// Why work is left to MetalLB, with the remedy; `None`: it is not, or no longer. The process is
    /// ready all the same: to take over, and for all the rest that it does.
    pub fn set_standing_by(&self, why: Option<String>) {
        let standing_by = self.state.standing_by.lock();
        *standing_by.unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Why work is left to MetalLB.
    pub fn standing_by(&self) -> Option<String> {
        let standing_by = self.state.standing_by.lock();
        standing_by.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why it is not ready; `None` when it is.
    pub fn unready(&self) -> Option<String> {
        let synced = self.state.synced.load(Ordering::Acquire);
        let standby = self.state.standby.load(Ordering::Acquire);
        if synced || standby {
            return None;
        }
        let waits = "waiting for the first complete list of objects".to_owned();
        Some([vec![waits], self.obstacles()].concat().join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_is_in_the_message_until_it_is_gone() {
        let health = Health::default();
        health.set_obstacle("Pool", Some("Pool: no".to_owned()));
        let why = health.unready().expect("not ready");
        assert!(why.ends_with("list of objects; Pool: no"), "{why}");
        health.set_obstacle("Pool", None);
        assert!(!health.unready().expect("not ready").contains("Pool"));
        health.set_synced();
        assert_eq!(health.unready(), None);
    }
}
