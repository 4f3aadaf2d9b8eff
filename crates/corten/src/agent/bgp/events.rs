//! Sessions as events on the Node: what is wrong with one, and that it is well again.
//!
//! A conflict is of the node, not of the peer, and `kubectl describe node` shows it. What lasts but a
//! moment is not told, and neither is all of what comes and goes: between two events about one
//! session there is a time that grows.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use api::corten::v1alpha1::SessionState;
use plan::announce::bgp::PeerKey;
use plan::name::Name;
use tokio::sync::watch;
use tokio::time::Instant;

use super::sessions::{Sessions, Shown};
use crate::agent::AgentError;
use crate::sink::{Component, Report, Sink, Subject, WriteError};

/// What lasts for less is not told.
const SETTLED: Duration = Duration::from_secs(2);
/// Between two events about one session, at first and at most.
const PACE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));

/// How a session is, in words: reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Well(String),
    Trouble(&'static str, String),
}

impl Word {
    /// `None`: nothing is to be said, as the node drains.
    fn of(shown: &Shown) -> Option<Self> {
        let session = &shown.session;
        let which = format!("session {} ({})", session.peer, session.address);
        let cause = &session.cause;
        match session.state {
            SessionState::Established if cause.is_empty() => {
                Some(Self::Well(format!("{which} is up")))
            }
            SessionState::Established => {
                let message = format!("{which} is up, but {cause}");
                Some(Self::Trouble("BGPSessionLimited", message))
            }
            SessionState::Down => {
                let reason = match shown.taken {
                    true => "BGPSpeakerConflict",
                    false => "BGPSessionDown",
                };
                Some(Self::Trouble(reason, format!("{which}: {cause}")))
            }
            SessionState::Connecting | SessionState::Drained => None,
        }
    }

    fn report(&self, node: &Name) -> Report {
        let (warning, reason, message) = match self {
            Self::Well(message) => (false, "BGPSessionUp", message),
            Self::Trouble(reason, message) => (true, *reason, message),
        };
        Report {
            component: Component::Speaker,
            about: Subject::Node(node.clone()),
            warning,
            reason,
            message: message.clone(),
        }
    }
}

/// One session.
#[derive(Debug)]
struct Topic {
    now: Option<Word>,
    since: Instant,
    /// The trouble that was told last, if it was not the end of one.
    told: Option<Word>,
    /// The next event comes no sooner.
    next: Instant,
    pace: Duration,
}

impl Topic {
    fn new(now: Instant) -> Self {
        Self {
            now: None,
            since: now,
            told: None,
            next: now,
            pace: PACE.0,
        }
    }

    fn see(&mut self, now: Instant, shown: &Shown) {
        let word = match shown.session.state {
            // Nothing has gone wrong, nor right.
            SessionState::Connecting => return,
            SessionState::Drained => {
                self.told = None;
                None
            }
            SessionState::Established | SessionState::Down => Word::of(shown),
        };
        if word != self.now {
            self.now = word;
            self.since = now;
        }
    }

    /// What is to be told, and when.
    fn due(&self) -> Option<(Instant, &Word)> {
        let word = self.now.as_ref()?;
        let new = match word {
            Word::Well(_) => self.told.is_some(),
            Word::Trouble(..) => self.told.as_ref() != Some(word),
        };
        new.then(|| (self.next.max(self.since + SETTLED), word))
    }

    fn told(&mut self, now: Instant, word: Word) {
        // Who was quiet for long is heard at once.
        if now > self.next + self.pace {
            self.pace = PACE.0;
        }
        self.next = now + self.pace;
        self.pace = (self.pace * 2).min(PACE.1);
        self.told = matches!(word, Word::Trouble(..)).then_some(word);
    }
}

/// What was told of the sessions, and what is due.
#[derive(Debug, Default)]
struct Teller(BTreeMap<PeerKey, Topic>);

impl Teller {
    fn see(&mut self, now: Instant, sessions: &Sessions) {
        self.0.retain(|peer, _| sessions.contains_key(peer));
        for (peer, shown) in sessions {
            let topic = self.0.entry(peer.clone());
            topic.or_insert_with(|| Topic::new(now)).see(now, shown);
        }
    }

    fn due(&self, now: Instant) -> Vec<(PeerKey, Word)> {
        let all = self.0.iter();
        let due = all.filter_map(|(peer, topic)| Some((peer, topic.due()?)));
        due.filter(|(_, (at, _))| *at <= now)
            .map(|(peer, (_, word))| (peer.clone(), word.clone()))
            .collect()
    }

    fn deadline(&self) -> Option<Instant> {
        self.0.values().filter_map(|it| Some(it.due()?.0)).min()
    }

    /// It was told, or (`again`) is to be tried again later.
    fn told(&mut self, now: Instant, peer: &PeerKey, word: Word, again: bool) {
        match self.0.get_mut(peer) {
            Some(topic) if again => topic.next = now + topic.pace,
            Some(topic) => topic.told(now, word),
            None => {}
        }
    }
}

/// Tells of the sessions until they end.
pub(in super::super) async fn run<K: Sink>(
    sink: K,
    node: Name,
    mut sessions: watch::Receiver<Sessions>,
) -> Result<(), AgentError> {
    let mut teller = Teller::default();
    loop {
        let deadline = teller.deadline();
        let wake = deadline.unwrap_or_else(Instant::now);
        tokio::select! {
            changed = sessions.changed() => if changed.is_err() {
                // The peers' tasks are gone: nobody has anything to say any more.
                std::future::pending::<()>().await;
            },
            () = tokio::time::sleep_until(wake), if deadline.is_some() => {}
        }
        let now = Instant::now();
        teller.see(now, &sessions.borrow_and_update());
        for (peer, word) in teller.due(now) {
            let told = sink.report(&word.report(&node), SystemTime::now()).await;
            if let Err(error) = &told {
                let error = error as &dyn std::error::Error;
                tracing::warn!(error, peer = &*peer, "event not sent");
            }
            let again = matches!(told, Err(WriteError::Failed(_)));
            teller.told(Instant::now(), &peer, word, again);
        }
    }
}

#[cfg(test)]
mod tests {
    use api::corten::v1alpha1::BgpSession;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(500);

    fn shown(state: SessionState, cause: &str, taken: bool) -> Sessions {
        let session = BgpSession {
            peer: "r".to_owned(),
            address: "10.0.0.1:179".to_owned(),
            state,
            cause: cause.to_owned(),
            ..BgpSession::default()
        };
        Sessions::from([("r".into(), Shown::new(session, taken))])
    }

    /// What is told over these states, each of which lasts for so many seconds.
    fn heard(states: &[(SessionState, &str, u64)]) -> Vec<String> {
        let mut teller = Teller::default();
        let mut now = Instant::now();
        let mut heard = Vec::new();
        for (state, cause, seconds) in states {
            let sessions = shown(*state, cause, cause.starts_with("another"));
            let until = now + Duration::from_secs(*seconds);
            while now < until {
                teller.see(now, &sessions);
                for (peer, word) in teller.due(now) {
                    let report = word.report(&"n".into());
                    heard.push(format!("{}: {}", report.reason, report.message));
                    teller.told(now, &peer, word, false);
                }
                now += MOMENT;
            }
        }
        heard
    }

    #[test]
    fn trouble_is_told_once_and_so_is_its_end() {
        use SessionState::{Connecting, Down, Drained, Established};
        let told = heard(&[
            (Connecting, "", 9),
            (Established, "", 9),
            (Down, "a moment", 1),
            (Established, "", 9),
            (Down, "no answer", 60),
            (Down, "another BGP speaker", 60),
            (Established, "", 60),
            (Established, "without IPv6", 60),
            (Drained, "the node drains", 60),
            (Established, "", 60),
        ]);
        assert_eq!(
            told,
            [
                "BGPSessionDown: session r (10.0.0.1:179): no answer",
                "BGPSpeakerConflict: session r (10.0.0.1:179): another BGP speaker",
                "BGPSessionUp: session r (10.0.0.1:179) is up",
                "BGPSessionLimited: session r (10.0.0.1:179) is up, but without IPv6",
            ]
        );
    }

    #[test]
    fn what_comes_and_goes_is_told_ever_less() {
        use SessionState::{Down, Established};
        let flaps = [(Down, "reset", 5), (Established, "", 5)].repeat(360);
        let told = heard(&flaps).len();
        // In an hour: 10, 20, 40 ... 600 s apart.
        assert!((5..=14).contains(&told), "{told}");
        // A session that is well for long may say at once that it is not.
        let quiet = [(Down, "reset", 3), (Established, "", 1300)].repeat(3);
        assert_eq!(heard(&quiet).len(), 6);
    }

    #[test]
    fn what_could_not_be_told_is_tried_again_and_what_is_gone_is_forgotten() {
        let mut teller = Teller::default();
        let start = Instant::now();
        let down = shown(SessionState::Down, "no answer", false);
        teller.see(start, &down);
        assert_eq!(teller.due(start), []);
        assert_eq!(teller.deadline(), Some(start + SETTLED));
        let (peer, word) = teller.due(start + SETTLED).pop().expect("due");
        teller.told(start + SETTLED, &peer, word.clone(), true);
        let again = start + SETTLED + PACE.0;
        assert_eq!(teller.deadline(), Some(again));
        teller.told(again, &peer, word, false);
        assert_eq!(teller.deadline(), None);
        teller.see(again, &Sessions::new());
        teller.see(again, &down);
        assert_eq!(teller.deadline(), Some(again + SETTLED));
    }
}
