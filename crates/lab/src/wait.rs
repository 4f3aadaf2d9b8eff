//! Waiting for a condition. No test sleeps: this is the one place that does.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// Short enough not to matter in what a test measures by eye.
const INTERVAL: Duration = Duration::from_millis(10);

/// A condition that did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("waited {:.1} s for {what}; last seen: {last}", waited.as_secs_f64())]
pub struct WaitError {
    /// What was awaited.
    pub what: String,
    /// How long.
    pub waited: Duration,
    /// The last observation.
    pub last: String,
}

/// Looks every few milliseconds until `look` gives `Ok`, whose value it returns.
///
/// An `Err` is what was seen instead; the last one is in the error. A look that takes longer than
/// the deadline counts as not true.
pub async fn wait_for<T, O: Debug>(
    deadline: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, O>,
) -> Result<T, WaitError> {
    let start = Instant::now();
    let end = start + deadline;
    let mut last = "nothing yet".to_owned();
    loop {
        match timeout_at(end, look()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => last = format!("{seen:?}"),
            Err(_) => last = format!("{last}, then a look that did not end"),
        }
        if Instant::now() + INTERVAL > end {
            return Err(WaitError {
                what: what.to_owned(),
                waited: start.elapsed(),
                last,
            });
        }
        sleep(INTERVAL).await;
    }
}

/// [`wait_for`] with a plain condition.
pub async fn wait_until(
    deadline: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> bool,
) -> Result<(), WaitError> {
    let look = async || {
        if condition().await {
            Ok(())
        } else {
            Err("not so")
        }
    };
    wait_for(deadline, what, look).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_condition_that_comes_true_gives_its_value() {
        let mut looks = 0;
        let value = wait_for(Duration::from_secs(5), "the third look", async || {
            looks += 1;
            if looks == 3 { Ok("there") } else { Err(looks) }
        });
        assert_eq!(value.await.expect("in time"), "there");
    }

    #[tokio::test(start_paused = true)]
    async fn the_error_says_what_how_long_and_what_was_seen() {
        let mut looks = 0;
        let error = wait_for(Duration::from_millis(35), "rain", async || {
            looks += 1;
            Err::<(), _>(looks)
        });
        assert_eq!(
            error.await.expect_err("never").to_string(),
            "waited 0.0 s for rain; last seen: 4"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_ends_at_the_deadline() {
        let never = async || std::future::pending::<Result<(), ()>>().await;
        let error = wait_for(Duration::from_secs(2), "an end", never)
            .await
            .expect_err("never");
        assert_eq!(error.waited, Duration::from_secs(2));
    }
}
