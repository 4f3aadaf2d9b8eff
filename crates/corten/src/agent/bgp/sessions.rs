//! The sessions as people see them (`NodeState`): up or down, since when, and why.

use std::collections::BTreeMap;

use api::corten::v1alpha1::{BgpSession, SessionState};
use k8s_openapi::jiff::Timestamp;
use plan::announce::bgp::PeerKey;
use tokio::sync::watch;

/// What is shown of each peer.
pub(in super::super) type Sessions = BTreeMap<PeerKey, Shown>;

/// What is shown of a peer.
#[derive(Clone, Debug)]
pub(in super::super) struct Shown {
    /// The task that shows it.
    task: u64,
    pub(in super::super) session: BgpSession,
    /// Another speaker of this node has the session.
    pub(super) taken: bool,
}

#[cfg(test)]
impl Shown {
    pub(super) const fn new(session: BgpSession, taken: bool) -> Self {
        Self {
            task: 0,
            session,
            taken,
        }
    }
}

/// One peer's line; it goes with its task.
#[derive(Debug)]
pub(super) struct Line {
    sessions: watch::Sender<Sessions>,
    peer: PeerKey,
    /// The next task of the same peer may begin before this one ends.
    number: u64,
}

impl Line {
    pub(super) fn new(sessions: &watch::Sender<Sessions>, peer: &PeerKey, address: &str) -> Self {
        let mut line = Self {
            sessions: sessions.clone(),
            peer: peer.clone(),
            number: 0,
        };
        sessions.send_modify(|sessions| {
            line.number = sessions.get(peer).map_or(0, |shown| shown.task + 1);
            let session = BgpSession {
                peer: peer.to_string(),
                address: address.to_owned(),
                state: SessionState::Connecting,
                since: now(),
                cause: String::new(),
                ..BgpSession::default()
            };
            let shown = Shown {
                task: line.number,
                session,
                taken: false,
            };
            sessions.insert(peer.clone(), shown);
        });
        line
    }

    /// Shows what is new. The time is that of the last change of state.
    pub(super) fn show(&self, address: &str, state: SessionState, cause: &str) {
        self.tell(address, state, cause, false);
    }

    /// The session is not up: another speaker of this node has it, or (`taken` false) something else
    /// is wrong.
    pub(super) fn down(&self, address: &str, cause: &str, taken: bool) {
        self.tell(address, SessionState::Down, cause, taken);
    }

    fn tell(&self, address: &str, state: SessionState, cause: &str, taken: bool) {
        self.sessions.send_if_modified(|sessions| {
            let Some(shown) = sessions.get_mut(&self.peer) else {
                return false;
            };
            let session = &mut shown.session;
            let same = session.state == state && session.cause == cause;
            if shown.task != self.number || (same && session.address == address) {
                return false;
            }
            shown.taken = taken;
            if session.state != state {
                session.since = now();
            }
            session.state = state;
            cause.clone_into(&mut session.cause);
            address.clone_into(&mut session.address);
            true
        });
    }
}

impl Line {
    /// Shows how much there is; nobody is woken for that.
    pub(super) fn count(&self, asn: u32, sent: usize, received: i64) {
        self.sessions.send_if_modified(|sessions| {
            if let Some(shown) = sessions.get_mut(&self.peer)
                && shown.task == self.number
            {
                let session = &mut shown.session;
                session.asn = asn;
                session.sent = u32::try_from(sent).unwrap_or(u32::MAX);
                session.received = u32::try_from(received).unwrap_or_default();
            }
            false
        });
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.sessions.send_if_modified(|sessions| {
            let ours = sessions
                .get(&self.peer)
                .is_some_and(|shown| shown.task == self.number);
            ours && sessions.remove(&self.peer).is_some()
        });
    }
}

fn now() -> String {
    let now = Timestamp::from_second(Timestamp::now().as_second());
    now.unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_lives_as_long_as_its_task() {
        let (sender, mut seen) = watch::channel(Sessions::new());
        let peer: PeerKey = "p".into();
        let first = Line::new(&sender, &peer, "10.0.0.1:179");
        let mut shown = || {
            let new = seen.has_changed().expect("a sender");
            let found = seen.borrow_and_update().get("p").cloned();
            let found = found.map(|it| it.session);
            let found = found.map(|it| (it.address, it.state, it.cause));
            (new, found)
        };
        let line =
            |address: &str, state, cause: &str| Some((address.to_owned(), state, cause.to_owned()));
        let connecting = line("10.0.0.1:179", SessionState::Connecting, "");
        assert_eq!(shown(), (true, connecting));
        first.show("10.0.0.1:179", SessionState::Down, "no answer");
        let down = line("10.0.0.1:179", SessionState::Down, "no answer");
        assert_eq!(shown(), (true, down.clone()));
        first.show("10.0.0.1:179", SessionState::Down, "no answer");
        assert_eq!(shown(), (false, down), "nothing new");

        // The peer's next task begins before the last one has ended.
        let second = Line::new(&sender, &peer, "10.0.0.2:179");
        first.show(
            "10.0.0.1:179",
            SessionState::Down,
            "not configured any more",
        );
        drop(first);
        let connecting = line("10.0.0.2:179", SessionState::Connecting, "");
        assert_eq!(shown(), (true, connecting));
        drop(second);
        assert_eq!(shown(), (true, None));
    }
}
