//! Copies of what is in force of each file, for the next start.
//!
//! `DIR/.corten/good/FILE` holds a digest and then the objects of FILE, in their last good forms.
//! One process writes them, the one with the directory's lock; who starts while a file is broken
//! takes what it meant from its copy.
//! A copy is replaced by renaming and is not synced: one that was cut off has another digest and
//! counts as none. It can be read by whom the file can be read, as it may hold a password.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::state;

/// The copies in their folder.
const FOLDER: &str = "good";

/// Where the copies of a directory's files are.
#[derive(Debug)]
pub(super) struct Copies {
    folder: PathBuf,
}

impl Copies {
    pub(super) fn of(dir: &Path) -> Self {
        Self {
            folder: dir.join(state::FOLDER).join(FOLDER),
        }
    }

    /// The objects of the file in their last good forms, as a manifest, if they are known.
    pub(super) fn load(&self, file: &Path) -> Option<Vec<u8>> {
        let copy = fs::read(self.folder.join(file.file_name()?)).ok()?;
        let end = copy.iter().position(|byte| *byte == b'\n')?;
        let (head, rest) = copy.split_at_checked(end + 1)?;
        (head == heading(rest).as_bytes()).then(|| rest.to_vec())
    }

    /// Keeps the manifest of what is in force of the file.
    pub(super) fn store(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        let Some(name) = file.file_name() else {
            return Ok(());
        };
        let copy = self.folder.join(name);
        let text = [heading(bytes).as_bytes(), bytes].concat();
        if fs::read(&copy).is_ok_and(|old| old == text) {
            return Ok(());
        }
        fs::create_dir_all(&self.folder)?;
        // The name of no manifest, so of no other copy.
        let new = self.folder.join("new");
        let mut out = File::create(&new)?;
        out.set_permissions(fs::metadata(file)?.permissions())?;
        out.write_all(&text)?;
        fs::rename(new, copy)
    }

    /// Removes what is no copy of a file that is `there`.
    pub(super) fn sweep(&self, there: impl Fn(&std::ffi::OsStr) -> bool) -> io::Result<()> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if !there(&entry.file_name()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn heading(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let mut text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    text.push('\n');
    text
}
