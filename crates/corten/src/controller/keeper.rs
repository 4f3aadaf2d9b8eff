//! Keeps the last good forms of bad objects, for the next start (design.md §4.2).

use std::time::Duration;

use api::corten::v1alpha1::AcceptedConfigSpec;
use tokio::sync::watch;

use super::elector::{Deadline, may_write};
use crate::backoff::Backoff;
use crate::sink::Sink;

/// Writes the newest forms until they are written, and waits for others; ends with the planner.
pub(super) async fn run<K: Sink>(
    sink: K,
    mut accepted: watch::Receiver<Option<AcceptedConfigSpec>>,
    mut leads_until: watch::Receiver<Deadline>,
) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    while accepted.changed().await.is_ok() {
        while may_write(&mut leads_until).await {
            let Some(newest) = accepted.borrow_and_update().clone() else {
                break;
            };
            match sink.keep(&newest).await {
                Ok(()) => {
                    backoff.reset();
                    break;
                }
                Err(error) => {
                    tracing::warn!(
                        error = crate::cli::chain(&error),
                        "last good forms not kept; trying again"
                    );
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }
}
