//! One `corten run` per directory.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::state;

/// Held while this process writes the directory's state file; the kernel releases it with the
/// process.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "another `corten run` serves {0}; stop it first, or run `corten agent --dir` to join it"
    )]
    Taken(PathBuf),
    /// The file system refuses.
    #[error(
        "{dir} cannot be locked and written; let this process write there, as allocations are kept \
         in its folder .corten"
    )]
    Failed {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl DirLock {
    /// Takes the lock of `dir`.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Failed {
            dir: dir.to_owned(),
            source,
        };
        let folder = dir.join(state::FOLDER);
        fs::create_dir_all(&folder).map_err(failed)?;
        let file = File::create(folder.join("lock")).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Taken(dir.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}
