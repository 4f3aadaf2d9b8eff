//! Memory that is free and still held.

/// Gives pages that hold nothing back to the system, where the C library keeps them: after work that
/// needed much for a moment. Elsewhere it does nothing.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes no pointers and may be called at any time by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
