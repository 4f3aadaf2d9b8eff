//! The files of a directory, as last read.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use api::object::Object;
use sha2::{Digest, Sha256};

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
    pub(super) manifests: BTreeMap<Id, Manifest>,
}

/// The files of a directory, as last read.
pub(super) struct Files {
    dir: PathBuf,
    /// Whether problems are logged.
    tells: bool,
    files: BTreeMap<PathBuf, FileState>,
}

impl Files {
    pub(super) fn new(dir: &Path, tells: bool) -> Self {
        Self {
            dir: dir.to_owned(),
            tells,
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

    pub(super) fn tell(&self, problem: &Problem) {
        if self.tells {
            tracing::error!("{problem}");
        }
    }

    /// Reads what has changed; says whether anything had.
    pub(super) fn read(&mut self) -> io::Result<bool> {
        let found = self.list()?;
        let before = self.files.len();
        self.files.retain(|path, _| found.contains_key(path));
        let mut changed = self.files.len() != before;
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
        let (digest, parsed) = match fs::read(path) {
            Ok(bytes) => {
                let digest: [u8; 32] = Sha256::digest(&bytes).into();
                if let Some(known) = known.as_ref().filter(|known| known.digest == digest) {
                    let manifests = known.manifests.clone();
                    let broken = known.broken;
                    let state = FileState {
                        stamp,
                        settled,
                        digest,
                        broken,
                        manifests,
                    };
                    return Some((state, false));
                }
                let mut parsed = manifest::parse(&name, &bytes);
                let emptied = bytes.is_empty()
                    && known
                        .as_ref()
                        .is_some_and(|known| !known.manifests.is_empty());
                if emptied {
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
        let mut manifests: BTreeMap<Id, Manifest> = parsed
            .manifests
            .into_iter()
            .map(|manifest| (id(&manifest.object), manifest))
            .collect();
        if broken {
            // What a broken document meant to replace stays in force.
            for (id, manifest) in known.map(|known| known.manifests).unwrap_or_default() {
                manifests.entry(id).or_insert(manifest);
            }
        }
        let state = FileState {
            stamp,
            settled,
            digest,
            broken,
            manifests,
        };
        Some((state, true))
    }
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
