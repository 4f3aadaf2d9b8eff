//! Why no guest ran a test.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use linux::namespace::SandboxError;

/// Why there is no guest, or why it did not end well.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// Whoever needs a guest is skipped here.
    #[error("no guest can be had here: {0}")]
    Missing(String),
    /// A program that prepares the guest.
    #[error("{program} failed ({status}): {said}")]
    Program {
        /// Its name.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said.
        said: String,
    },
    /// What a program said or made is not what it should be.
    #[error("{0}")]
    Unexpected(String),
    /// A file could not be used.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The emulator did not start.
    #[error("cannot start the guest")]
    Sandbox(#[from] SandboxError),
    /// Killed.
    #[error("the guest was killed after {} s; its console ends with:\n{console}", after.as_secs())]
    TooLate {
        /// Its deadline.
        after: Duration,
        /// The end of what it said.
        console: String,
    },
    /// It stopped without a word on the script.
    #[error("the guest ended without a status; its console ends with:\n{console}")]
    NoStatus {
        /// The end of what it said.
        console: String,
    },
}

impl GuestError {
    pub(super) fn io(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { path, source }
    }
}
