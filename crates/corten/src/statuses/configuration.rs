//! `ConfigurationState`: written when it differs, put right when edited, made anew when deleted.

use std::time::{Duration, Instant};

use api::metallb::ConfigurationStateStatus;
use api::object::Object;
use k8s_openapi::jiff::Timestamp;
use plan::status::{Component, Configuration};
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::sink::WriteError;
use crate::sink::board::Board;
use crate::source::kube::Seen;

/// Shortest time between two writes: who deletes the object again and again is not answered at
/// once.
const PERIOD: Duration = Duration::from_millis(200);

/// Writes until the planner ends. `wanted` is `None` until everything is known: an older process's
/// word stands until then. `may_write` says whether this process speaks for the component.
pub(crate) async fn run(
    board: Board,
    component: Component,
    mut wanted: watch::Receiver<Option<Configuration>>,
    may_write: impl Fn() -> bool,
) {
    let mut seen = board.watch_configuration(&component);
    let mut observed: Option<ConfigurationStateStatus> = None;
    let mut listed = false;
    // The first write also makes the object this process's own.
    let mut first = true;
    let mut backoff = Backoff::new(PERIOD, Duration::from_secs(30));
    let mut next = Instant::now();
    loop {
        let mut again = false;
        let newest = wanted.borrow_and_update().clone();
        if let Some(newest) = newest.filter(|_| listed) {
            let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
            let due = newest.due(&component, observed.as_ref(), &now.to_string());
            let due = due.or_else(|| observed.clone().filter(|_| first));
            if let Some(status) = due {
                again = true;
                if next <= Instant::now() && may_write() {
                    match board.apply_configuration(&component, &status).await {
                        Ok(()) => {
                            observed = Some(status);
                            (first, again) = (false, false);
                            backoff.reset();
                            next = Instant::now() + PERIOD;
                        }
                        Err(error) => {
                            next = Instant::now() + backoff.next();
                            // Deleted between the two halves of a write: the watch says so too.
                            if matches!(error, WriteError::Outdated) {
                                observed = None;
                            } else {
                                tracing::warn!(
                                    error = &error as &dyn std::error::Error,
                                    "ConfigurationState not written; trying again"
                                );
                            }
                        }
                    }
                }
            }
        }
        let wake = next.max(Instant::now() + PERIOD);
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            told = seen.next() => match told {
                None => return,
                Some(Seen::Listed) => listed = true,
                Some(Seen::Applied(Object::ConfigurationState(state))) => {
                    observed = Some(state.status);
                }
                Some(Seen::Applied(_)) => {}
                Some(Seen::Gone(_)) => observed = None,
            },
            () = tokio::time::sleep_until(wake.into()), if again => {}
        }
    }
}
