//! The files: a header, then a line for each change; the last line of a thing holds.
//!
//! A new journal is written beside the last one, and takes its place when it is complete: until
//! then the last one is what there is. Lines are written at most once a second, and where a journal
//! has grown to twice what it holds it is written anew.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::KeptError;
use super::record::Record;

/// The first line: the form of those that follow.
const HEADER: &str = "corten-kept 1";
/// Nobody takes so long to begin.
const ABANDONED: Duration = Duration::from_secs(3600);
/// A journal that is smaller is not written anew.
const SMALL: usize = 4 << 20;

/// One file of the two: all but secrets, and secrets.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    /// It stands here until it is complete.
    new: PathBuf,
    file: File,
    waiting: String,
    written: usize,
    /// How large it was when it was last written anew.
    base: usize,
    complete: bool,
}

impl Journal {
    /// Begins beside the one at `path`.
    pub(super) fn begin(path: &Path) -> io::Result<Self> {
        clear(path);
        // Another agent of this node may be beginning too, and each is number 1 of its Pod.
        let random = RandomState::new().hash_one(0_u8);
        let new = path.with_extension(format!("{random:016x}.new"));
        let mut journal = Self {
            file: create(&new)?,
            path: path.to_owned(),
            new,
            waiting: String::new(),
            written: 0,
            base: 0,
            complete: false,
        };
        journal.waiting.push_str(HEADER);
        journal.waiting.push('\n');
        Ok(journal)
    }

    pub(super) fn push(&mut self, line: &str) {
        self.waiting.push_str(line);
    }

    pub(super) const fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How many bytes wait.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        // Half a line at the end is found and left out.
        self.file.write_all(self.waiting.as_bytes())?;
        self.written += self.waiting.len();
        self.waiting.clear();
        Ok(())
    }

    /// All there is has been written once: takes the place of the last one.
    pub(super) fn complete(&mut self) -> io::Result<()> {
        self.flush()?;
        fs::rename(&self.new, &self.path)?;
        self.complete = true;
        self.base = self.written;
        Ok(())
    }

    /// Most of it is outdated.
    pub(super) const fn is_large(&self) -> bool {
        self.complete && self.written > SMALL && self.written / 2 > self.base
    }

    /// Writes it anew, without what is outdated.
    pub(super) fn compact(mut self) -> Result<Self, KeptError> {
        let failed = |source| KeptError::Unwritable {
            file: self.path.clone(),
            source,
        };
        let records = read(&self.path)?.unwrap_or_default();
        let mut text = format!("{HEADER}\n");
        for record in records {
            if let Ok(line) = record.line() {
                text.push_str(&line);
            }
        }
        let attempt = || -> io::Result<File> {
            let mut file = create(&self.new)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&self.new, &self.path)?;
            Ok(file)
        };
        self.file = attempt().map_err(failed)?;
        self.written = text.len();
        self.base = text.len();
        Ok(self)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if !self.complete {
            let _ = fs::remove_file(&self.new);
        }
    }
}

/// Removes what processes that were killed had begun.
fn clear(path: &Path) {
    let old = |file: &Path| {
        let age = fs::metadata(file).and_then(|it| it.modified()).ok();
        age.and_then(|at| at.elapsed().ok())
            .is_some_and(|age| age > ABANDONED)
    };
    let entries = path.parent().map(fs::read_dir);
    for entry in entries.into_iter().flatten().flatten().flatten() {
        let file = entry.path();
        let ours = file.extension().is_some_and(|it| it == "new");
        if ours && old(&file) {
            let _ = fs::remove_file(file);
        }
    }
}

/// Root's alone.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}

/// What a journal holds, each thing once, in no order; none where there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<Record>>, KeptError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(KeptError::Unreadable {
                file: path.to_owned(),
                source,
            });
        }
    };
    let damaged = |what: String| KeptError::Damaged {
        file: path.to_owned(),
        what,
    };
    let text = String::from_utf8(text).map_err(|error| damaged(error.to_string()))?;
    let (header, lines) = text.split_once('\n').unwrap_or((&text, ""));
    if header != HEADER {
        return Err(damaged(format!(
            "it begins with {:?} where this program reads {HEADER:?}",
            header.chars().take(40).collect::<String>()
        )));
    }
    let mut records: HashMap<String, Record> = HashMap::new();
    for (n, line) in lines.split_inclusive('\n').enumerate() {
        // The process ended in the middle of the last one.
        let Some(line) = line.strip_suffix('\n') else {
            break;
        };
        let record = Record::read(line)
            .map_err(|error| damaged(format!("line {}: {}", n + 2, crate::cli::chain(&error))))?;
        if record.is_there() {
            records.insert(record.key(), record);
        } else {
            records.remove(&record.key());
        }
    }
    Ok(Some(records.into_values().collect()))
}
