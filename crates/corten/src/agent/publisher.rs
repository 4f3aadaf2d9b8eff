//! Publishes what the agent says of its node, newest form only, until it is written.

use std::time::Duration;

use api::corten::v1alpha1::NodeStateStatus;
use plan::name::Name;
use tokio::sync::watch;

use super::AgentError;
use crate::backoff::Backoff;
use crate::sink::Sink;

pub(super) async fn run<K: Sink>(
    sink: K,
    node: Name,
    mut state: watch::Receiver<Option<NodeStateStatus>>,
) -> Result<(), AgentError> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    while state.changed().await.is_ok() {
        loop {
            let Some(newest) = state.borrow_and_update().clone() else {
                break;
            };
            match sink.publish(&node, &newest).await {
                Ok(()) => {
                    backoff.reset();
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
    Ok(())
}
