//! This node's drain: other nodes take its layer 2 addresses over, then its BGP routes go
//! (design.md §4.3). `corten drain` asks for it, and so does a kubelet whose machine shuts down.

use std::time::Duration;

use api::corten::v1alpha1::DrainPhase;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// How far it is.
#[derive(Debug, Default)]
pub(super) enum Drain {
    #[default]
    No,
    /// Others know that this node leaves; it answers for each address until one of them does.
    HandingOver {
        claimed: oneshot::Receiver<()>,
        until: Instant,
    },
    /// This node's own World says so too: nothing is announced, routes ask to be left.
    Leaving,
}

impl Drain {
    /// Begins: `claimed` completes once each address is another node's.
    pub(super) fn hand_over(claimed: oneshot::Receiver<()>, limit: Duration) -> Self {
        Self::HandingOver {
            claimed,
            until: Instant::now() + limit,
        }
    }

    /// Completes when a hand-over ends, by itself or by its limit. It may be dropped while it waits.
    pub(super) async fn handed_over(&mut self) {
        let Self::HandingOver { claimed, until } = self else {
            return std::future::pending().await;
        };
        // Whoever did not claim an address by then is not there.
        let _ = timeout_at(*until, claimed).await;
        *self = Self::Leaving;
    }

    /// As others see it.
    pub(super) const fn phase(&self) -> Option<DrainPhase> {
        match self {
            Self::No => None,
            Self::HandingOver { .. } => Some(DrainPhase::HandingOver),
            Self::Leaving => Some(DrainPhase::Leaving),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hand_over_ends_by_a_claim_or_by_its_limit() {
        let (claim, claimed) = oneshot::channel();
        let mut drain = Drain::hand_over(claimed, Duration::from_secs(3600));
        assert_eq!(drain.phase(), Some(DrainPhase::HandingOver));
        claim.send(()).expect("it waits");
        drain.handed_over().await;
        assert_eq!(drain.phase(), Some(DrainPhase::Leaving));

        let (_claim, claimed) = oneshot::channel();
        let mut drain = Drain::hand_over(claimed, Duration::from_millis(1));
        drain.handed_over().await;
        assert_eq!(drain.phase(), Some(DrainPhase::Leaving));
        assert_eq!(Drain::No.phase(), None);
    }
}
