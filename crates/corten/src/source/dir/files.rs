//! The files of a directory, as last read.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use api::object::Object;
use sha2::{Digest, Sha256};

use super::Duties;
use super::copies::Copies;
use crate::manifest::{self, Manifest, Problem};

/// Which object: kind, namespace, name.
pub(super) type Id = (String, String, String);

pub(super) fn id(object: &Object) -> Id {
    (
        object.kind().to_owned(),
        object.namespace().to_owned(),
        object.name().to_owned(),
    )
}

/// A file younger than this when it was read may change again without a new time: the clocks of
/// file systems tick every few milliseconds.
const TICK: Duration = Duration::from_millis(100);

/// Enough to see an edit, a rename over the file included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    /// Seconds and nanoseconds of the last change of content or metadata, which nobody can set.
    changed: (i64, i64),
    size: u64,
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            size: metadata.len(),
        }
    }

    /// Whether every change from now on is sure to give another stamp.
    fn is_settled(self) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let changed = Duration::new(
            u64::try_from(seconds).unwrap_or_default(),
            u32::try_from(nanoseconds).unwrap_or_default(),
        );
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH + changed)
            .is_ok_and(|age| age > TICK)
    }
}

/// One file, as last read.
pub(super) struct FileState {
    stamp: Stamp,
    /// The stamp tells of every change since it was read.
    settled: bool,
    /// Of its content, where the stamp does not tell all.
    digest: [u8; 32],
    /// Something in it is wrong, so it does not say what is not there.
    broken: bool,
    /// It is broken and has no copy, so nobody knows what was in force of it before the start.
    unknown: bool,
    pub(super) manifests: BTreeMap<Id, Manifest>,
}

/// What was in force of a file, and whether more of it may have been before the start.
type Earlier = (BTreeMap<Id, Manifest>, bool);

/// The files of a directory, as last read.
pub(super) struct Files {
    dir: PathBuf,
    duties: Duties,
    copies: Copies,
    /// The copies are those of the files.
    swept: bool,
    files: BTreeMap<PathBuf, FileState>,
}

impl Files {
    pub(super) fn new(dir: &Path, duties: Duties) -> Self {
        Self {
            dir: dir.to_owned(),
            duties,
            copies: Copies::of(dir),
            swept: false,
            files: BTreeMap::new(),
        }
    }

    /// Every file, in the order of names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&PathBuf, &FileState)> {
        self.files.iter()
    }

    /// Whether some file is not understood, so that more may be meant than is known.
    pub(super) fn any_broken(&self) -> bool {
        self.files.values().any(|file| file.broken)
    }

    /// A broken file of which it is not known what was in force before the start.
    pub(super) fn unknown(&self) -> Option<&PathBuf> {
        let mut files = self.files.iter();
        files.find_map(|(path, file)| file.unknown.then_some(path))
    }

    pub(super) fn tell(&self, problem: &Problem) {
        if self.duties.tells {
            tracing::error!("{problem}");
        }
    }

    /// Reads what has changed; says whether anything had.
    pub(super) fn read(&mut self) -> io::Result<bool> {
        let found = self.list()?;
        let before = self.files.len();
        self.files.retain(|path, _| found.contains_key(path));
        let mut changed = self.files.len() != before;
        if self.duties.keeps && (changed || !self.swept) {
            let swept = self
                .copies
                .sweep(|name| found.contains_key(&self.dir.join(name)));
            self.swept = self.done("removed", swept);
        }
        for (path, stamp) in found {
            let known = self.files.remove(&path);
            let (state, new) = match known {
                Some(known) if known.stamp == stamp && known.settled => (known, false),
                known => match self.read_file(&path, stamp, known) {
                    Some(read) => read,
                    // Gone between looking and reading: it is gone.
                    None => {
                        changed = true;
                        continue;
                    }
                },
            };
            changed |= new;
            self.files.insert(path, state);
        }
        Ok(changed)
    }

    fn list(&self) -> io::Result<BTreeMap<PathBuf, Stamp>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if !super::is_manifest(&path) {
                continue;
            }
            // Gone between listing and looking: it is gone.
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            if metadata.is_file() {
                found.insert(path, Stamp::of(&metadata));
            }
        }
        Ok(found)
    }

    /// The file's new state, and whether it says anything new.
    fn read_file(
        &self,
        path: &Path,
        stamp: Stamp,
        known: Option<FileState>,
    ) -> Option<(FileState, bool)> {
        let settled = stamp.is_settled();
        let name = path.display().to_string();
        let mut earlier = None;
        let (digest, parsed) = match fs::read(path) {
            Ok(bytes) => {
                let digest: [u8; 32] = Sha256::digest(&bytes).into();
                if let Some(known) = known.as_ref().filter(|known| known.digest == digest) {
                    let manifests = known.manifests.clone();
                    let (broken, unknown) = (known.broken, known.unknown);
                    let state = FileState {
                        stamp,
                        settled,
                        digest,
                        broken,
                        unknown,
                        manifests,
                    };
                    return Some((state, false));
                }
                let mut parsed = manifest::parse(&name, &bytes);
                if bytes.is_empty() || !parsed.problems.is_empty() {
                    earlier = self.earlier(path, known);
                }
                let had_objects = |(manifests, _): &Earlier| !manifests.is_empty();
                if bytes.is_empty() && earlier.as_ref().is_some_and(had_objects) {
                    // A full disk or an editor under way leaves this; nobody means it.
                    parsed.problems.push(problem(
                        &name,
                        "the file is empty",
                        "remove the file to remove its objects",
                    ));
                }
                (digest, parsed)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                earlier = self.earlier(path, known);
                let parsed = manifest::Parsed {
                    problems: vec![problem(
                        &name,
                        &error.to_string(),
                        "let this process read the file",
                    )],
                    ..manifest::Parsed::default()
                };
                ([0; 32], parsed)
            }
        };
        for problem in &parsed.problems {
            self.tell(problem);
        }
        let broken = !parsed.problems.is_empty();
        let mut manifests = by_id(parsed.manifests);
        let mut unknown = false;
        if broken {
            // What a broken document meant to replace stays in force.
            let (earlier, never_known) = earlier.unwrap_or((BTreeMap::new(), true));
            unknown = never_known;
            for (id, manifest) in earlier {
                manifests.entry(id).or_insert(manifest);
            }
        }
        let state = FileState {
            stamp,
            settled,
            digest,
            broken,
            unknown,
            manifests,
        };
        if !unknown {
            self.copy(path, &state);
        }
        Some((state, true))
    }

    /// From now on nothing that is in force came from what is not known: what a file says that was
    /// never understood is new when it is understood.
    pub(super) fn settle(&mut self) {
        for (path, file) in &self.files {
            if file.unknown {
                self.copy(path, file);
            }
        }
        for file in self.files.values_mut() {
            file.unknown = false;
        }
    }

    fn copy(&self, path: &Path, file: &FileState) {
        if self.duties.keeps {
            let text: String = file.manifests.values().map(Manifest::text).collect();
            self.done("written", self.copies.store(path, text.as_bytes()));
        }
    }

    /// What was in force of the file so far, in this process or before it started.
    fn earlier(&self, path: &Path, known: Option<FileState>) -> Option<Earlier> {
        if let Some(known) = known {
            return Some((known.manifests, known.unknown));
        }
        let bytes = self.copies.load(path)?;
        let manifests = manifest::parse(&path.display().to_string(), &bytes).manifests;
        if self.duties.tells {
            tracing::info!(
                file = %path.display(), objects = manifests.len(),
                "what the file said before this start stays in force until it is mended"
            );
        }
        Some((by_id(manifests), false))
    }

    /// Whether something was done to the copies; tells why not.
    fn done(&self, what: &str, result: io::Result<()>) -> bool {
        if let Err(error) = &result {
            tracing::warn!(
                dir = %self.dir.display(), %error,
                "copies of good files not {what}; a file that is broken at the next start may be lost"
            );
        }
        result.is_ok()
    }
}

fn by_id(manifests: Vec<Manifest>) -> BTreeMap<Id, Manifest> {
    let pairs = manifests.into_iter();
    pairs
        .map(|manifest| (id(&manifest.object), manifest))
        .collect()
}

fn problem(file: &str, message: &str, remedy: &str) -> Problem {
    Problem {
        file: file.to_owned(),
        line: 1,
        column: None,
        object: None,
        field: None,
        message: message.to_owned(),
        remedy: remedy.to_owned(),
    }
}
