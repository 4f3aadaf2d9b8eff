//! Publishes what the agent says of its node, newest form only, until it is written.

use std::time::Duration;

use api::corten::v1alpha1::{DrainPhase, NodeStateStatus, SessionState};
use plan::name::Name;
use tokio::sync::watch;
use tokio::time::Instant;

use super::AgentError;
use super::bgp::Sessions;
use crate::backoff::Backoff;
use crate::sink::Sink;

/// How often numbers that nobody is woken for are looked at.
const COUNTS: Duration = Duration::from_secs(10);
/// Between two writes that only BGP sessions ask for: they may come and go at any rate.
const PACE: Duration = Duration::from_secs(1);

pub(super) async fn run<K: Sink>(
    sink: K,
    node: Name,
    mut state: watch::Receiver<Option<NodeStateStatus>>,
    mut sessions: watch::Receiver<Sessions>,
) -> Result<(), AgentError> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    let mut pace = Instant::now();
    let mut last = None;
    loop {
        let more = tokio::select! {
            changed = state.changed() => changed.is_ok(),
            more = async {
                match sessions.changed().await {
                    Ok(()) => tokio::time::sleep_until(pace).await,
                    Err(_) => std::future::pending().await,
                }
                true
            } => more,
            () = tokio::time::sleep(COUNTS) => true,
        };
        if !more {
            return Ok(());
        }
        loop {
            let Some(mut newest) = state.borrow_and_update().clone() else {
                break;
            };
            newest.bgp = {
                let sessions = sessions.borrow_and_update();
                sessions.values().map(|it| it.session.clone()).collect()
            };
            conclude(&mut newest);
            if last.as_ref() == Some(&newest) {
                break;
            }
            pace = Instant::now() + PACE;
            match sink.publish(&node, &newest).await {
                Ok(()) => {
                    backoff.reset();
                    last = Some(newest);
                    break;
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "NodeState not written; trying again"
                    );
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }
}

/// A drain has ended when the last session has.
fn conclude(state: &mut NodeStateStatus) {
    let held = |it: &api::corten::v1alpha1::BgpSession| it.state == SessionState::Established;
    if state.drain == Some(DrainPhase::Leaving) && !state.bgp.iter().any(held) {
        state.drain = Some(DrainPhase::Drained);
    }
}

#[cfg(test)]
mod tests {
    use api::corten::v1alpha1::BgpSession;

    use super::*;

    #[test]
    fn a_drain_ends_with_the_last_session() {
        let after = |drain, sessions: &[SessionState]| {
            let session = |state: &SessionState| BgpSession {
                state: *state,
                ..BgpSession::default()
            };
            let mut state = NodeStateStatus {
                drain,
                bgp: sessions.iter().map(session).collect(),
                ..NodeStateStatus::default()
            };
            conclude(&mut state);
            state.drain
        };
        use DrainPhase::{Drained, HandingOver, Leaving};
        use SessionState::{Connecting, Down, Established};
        for (phase, sessions, wanted) in [
            (None, &[][..], None),
            (Some(HandingOver), &[], Some(HandingOver)),
            (Some(Leaving), &[], Some(Drained)),
            (
                Some(Leaving),
                &[SessionState::Drained, Established],
                Some(Leaving),
            ),
            // Who could not be reached holds nothing up.
            (
                Some(Leaving),
                &[SessionState::Drained, Down, Connecting],
                Some(Drained),
            ),
        ] {
            assert_eq!(after(phase, sessions), wanted, "{phase:?} {sessions:?}");
        }
    }
}
