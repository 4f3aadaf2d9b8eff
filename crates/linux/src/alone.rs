//! Tests in a network namespace of their own.

use std::{future::Future, time::Duration};

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Longer than any of these tests takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(10);

/// Runs a test on a thread with a network namespace of its own, in a runtime. Needs root; without
/// it the test says so and passes, except under CI.
pub(crate) fn alone<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: only this thread changes its network namespace, and it ends with the test.
            if let Err(e) = unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
                assert!(std::env::var_os("CI").is_none(), "no namespace: {e}");
                return println!("skipped: no network namespace: {e}");
            }
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().expect("runtime");
            runtime.block_on(async {
                tokio::time::timeout(LIMIT, test()).await.expect("in time");
            });
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}
