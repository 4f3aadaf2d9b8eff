//! How a peer's routes and its session are given up (design.md §4.3): the routes ask to be left
//! (RFC 8326), are withdrawn after a while, and the session ends with a hard reset (RFC 8538).

use std::time::{Duration, Instant};

use plan::announce::bgp::Drain;

/// How long routes that ask to be left stay, before they are withdrawn (RFC 8326 §4.1 leaves it to
/// the operator): longer than a router takes to find other ways.
const ASKING: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Routes ask to be left, until then.
    Asking(Instant),
    /// The peer is to know of no route any more; a session ends when it does.
    Withdrawing,
    /// No session is held.
    Over,
}

/// A drain, if there is one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Draining(Option<(Drain, Stage)>);

/// What is known of the session when a drain begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    /// It is established.
    pub(super) up: bool,
    /// The peer has routes of ours on it.
    pub(super) routes: bool,
    /// Graceful restart is offered: without a session the peer may have routes from before.
    pub(super) graceful: bool,
}

impl Draining {
    /// Begins, or goes on for another reason.
    pub(super) fn ask(&mut self, why: Drain, session: Session, now: Instant) {
        let stage = match self.0 {
            Some((_, stage)) => stage,
            None if session.up && session.routes => Stage::Asking(now + ASKING),
            None if session.up || session.graceful => Stage::Withdrawing,
            None => Stage::Over,
        };
        self.0 = Some((why, stage));
    }

    /// Ends it; returns whether the session has to begin anew.
    pub(super) fn end(&mut self) -> bool {
        let was_over = self.is_over();
        self.0 = None;
        was_over
    }

    pub(super) fn is_under_way(self) -> bool {
        self.0.is_some()
    }

    /// No session is held, nor tried.
    pub(super) fn is_over(self) -> bool {
        matches!(self.0, Some((_, Stage::Over)))
    }

    /// No route is to be offered any more.
    pub(super) fn withholds(self) -> bool {
        matches!(self.0, Some((_, Stage::Withdrawing | Stage::Over)))
    }

    /// When [`Draining::expire`] is to be called.
    pub(super) fn deadline(self) -> Option<Instant> {
        match self.0 {
            Some((_, Stage::Asking(until))) => Some(until),
            _ => None,
        }
    }

    /// Returns whether the routes are to be withdrawn now.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let due = self.deadline().is_some_and(|until| until <= now);
        due && self.withdraw()
    }

    /// The same at once, for an agent that ends.
    pub(super) fn withdraw(&mut self) -> bool {
        match &mut self.0 {
            Some((_, stage @ Stage::Asking(_))) => {
                *stage = Stage::Withdrawing;
                true
            }
            _ => false,
        }
    }

    /// All is withdrawn, and the peer knows it: why the session ends, if it has to.
    pub(super) fn conclude(&mut self) -> Option<String> {
        match &mut self.0 {
            Some((why, stage @ Stage::Withdrawing)) => {
                *stage = Stage::Over;
                Some(why.to_string())
            }
            _ => None,
        }
    }

    /// Why there is no session, where that is because of a drain.
    pub(super) fn over(self) -> Option<String> {
        match self.0 {
            Some((why, Stage::Over)) => Some(why.to_string()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Session = Session {
        up: true,
        routes: true,
        graceful: true,
    };

    #[test]
    fn routes_ask_are_withdrawn_and_the_session_ends() {
        let now = Instant::now();
        let mut drain = Draining::default();
        assert!(!drain.is_under_way() && !drain.withholds());
        drain.ask(Drain::Cordoned, UP, now);
        assert_eq!(drain.deadline(), Some(now + ASKING));
        // Another reason does not begin it anew.
        drain.ask(Drain::Asked, UP, now + ASKING / 2);
        assert_eq!(drain.deadline(), Some(now + ASKING));
        assert_eq!(drain.conclude(), None);
        assert!(!drain.expire(now + ASKING / 2));
        assert!(drain.expire(now + ASKING));
        assert!(drain.withholds() && !drain.is_over());
        assert_eq!(drain.conclude().as_deref(), Some("the node drains"));
        assert_eq!(drain.over().as_deref(), Some("the node drains"));
        assert_eq!((drain.conclude(), drain.deadline()), (None, None));
        assert!(drain.end(), "the session begins anew");
        assert!(!drain.is_under_way());
    }

    #[test]
    fn what_is_not_there_is_not_waited_for() {
        let begin = |session| {
            let mut drain = Draining::default();
            drain.ask(Drain::Excluded, session, Instant::now());
            drain.0.expect("a drain").1
        };
        // (up, routes, graceful): a peer without a session may have routes from before.
        for (up, routes, graceful, stage) in [
            (true, false, false, Stage::Withdrawing),
            (false, true, true, Stage::Withdrawing),
            (false, true, false, Stage::Over),
        ] {
            let session = Session {
                up,
                routes,
                graceful,
            };
            assert_eq!(begin(session), stage, "{session:?}");
        }
    }

    #[test]
    fn a_drain_that_is_taken_back_in_time_keeps_the_session() {
        let mut drain = Draining::default();
        drain.ask(Drain::Asked, UP, Instant::now());
        assert!(!drain.end());
        assert!(!drain.withholds());
    }
}
