//! The sessions as people see them (`NodeState`): up or down, since when, and why.

use std::collections::BTreeMap;

use api::corten::v1alpha1::{BgpSession, SessionState};
use k8s_openapi::jiff::Timestamp;
use plan::announce::bgp::PeerKey;
use tokio::sync::watch;

/// What is shown of each peer, with the number of the task that shows it.
pub(in super::super) type Sessions = BTreeMap<PeerKey, (u64, BgpSession)>;

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
            line.number = sessions.get(peer).map_or(0, |(number, _)| number + 1);
            let session = BgpSession {
                peer: peer.to_string(),
                address: address.to_owned(),
                state: SessionState::Connecting,
                since: now(),
                cause: String::new(),
                ..BgpSession::default()
            };
            sessions.insert(peer.clone(), (line.number, session));
        });
        line
    }

    /// Shows what is new. The time is that of the last change of state.
    pub(super) fn show(&self, address: &str, state: SessionState, cause: &str) {
        self.sessions.send_if_modified(|sessions| {
            let Some((number, session)) = sessions.get_mut(&self.peer) else {
                return false;
            };
            let same = session.state == state && session.cause == cause;
            if *number != self.number || (same && session.address == address) {
                return false;
            }
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
            if let Some((number, session)) = sessions.get_mut(&self.peer)
                && *number == self.number
            {
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
                .is_some_and(|(number, _)| *number == self.number);
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
            let found = found.map(|(_, it)| (it.address, it.state, it.cause));
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
