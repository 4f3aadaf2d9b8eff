//! Waiting times of loops that try again: exponential, with full jitter.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

/// Grows from `base` to `cap`; each wait is a random part of the current bound, at least half of
/// it, so that many clients that lost the same server do not come back at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    bound: Duration,
}

impl Backoff {
    /// A backoff between `base` and `cap`.
    pub(crate) const fn new(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            cap,
            bound: base,
        }
    }

    /// It worked: the next failure begins at `base` again.
    pub(crate) const fn reset(&mut self) {
        self.bound = self.base;
    }

    /// How long to wait now.
    pub(crate) fn next(&mut self) -> Duration {
        let bound = self.bound;
        self.bound = (bound * 2).min(self.cap);
        bound / 2 + (bound / 2).mul_f64(random_fraction())
    }
}

/// Who is woken together comes back within this time.
const SPREAD: Duration = Duration::from_millis(200);

/// Loops that wait for one server: the first that reaches it again wakes the others, which else
/// would sleep on, each its own time. Many loops so find a server that is back soon, though each of
/// them tries seldom.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reached(Arc<Notify>);

impl Reached {
    /// The server answers.
    pub(crate) fn tell(&self) {
        self.0.notify_waiters();
    }

    /// Waits for this time, or until another loop has reached the server and a moment more, so that
    /// they do not all come at once.
    pub(crate) async fn wait(&self, time: Duration) {
        if tokio::time::timeout(time, self.0.notified()).await.is_ok() {
            tokio::time::sleep(SPREAD.mul_f64(random_fraction())).await;
        }
    }
}

/// A random number in 0..1; quality does not matter, only that two processes differ.
fn random_fraction() -> f64 {
    let random = RandomState::new().hash_one(0u8) >> 32;
    f64::from(random as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_its_cap_and_starts_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for bound in [100, 200, 400, 800, 1000, 1000] {
            let bound = Duration::from_millis(bound);
            let wait = backoff.next();
            assert!(
                bound / 2 <= wait && wait <= bound,
                "{wait:?} for a bound of {bound:?}"
            );
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(100));
    }

    #[tokio::test]
    async fn who_reaches_the_server_wakes_the_others() {
        let reached = Reached::default();
        let hour = Duration::from_secs(3600);
        let others = async { tokio::join!(reached.wait(hour), reached.wait(hour)) };
        let first = async {
            tokio::task::yield_now().await;
            reached.tell();
        };
        let minute = Duration::from_secs(60);
        let woken = tokio::time::timeout(minute, async { tokio::join!(others, first) }).await;
        assert!(woken.is_ok());
        let late = tokio::time::timeout(Duration::from_millis(300), reached.wait(hour)).await;
        assert!(late.is_err(), "an earlier word counts no more");
    }

    /// Equal by chance once in 2^256 runs.
    #[test]
    fn two_of_them_do_not_keep_step() {
        let waits = || {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
            std::array::from_fn::<_, 8, _>(|_| backoff.next())
        };
        assert_ne!(waits(), waits());
    }
}
