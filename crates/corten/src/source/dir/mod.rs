//! A directory of manifests as a source.
//!
//! Every `*.yaml`, `*.yml` and `*.json` in the directory itself is read; Services get their status
//! from the state file, as an API server would have it. The directory is watched: an edit takes
//! effect at once. What is broken is reported with file, line and field, and what it replaced stays
//! in force, over a restart too: `corten run` keeps a copy of what is in force of each file.

mod copies;
mod directory;
mod files;

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use plan::world::Event;
use tokio::sync::mpsc;

use super::{Source, Stopped, tell};
use crate::state;
use directory::Directory;
pub use lock::DirLock;

mod lock;

/// After a change is noticed, how long nothing more must happen: an editor writes more than once.
const SETTLE: Duration = Duration::from_millis(30);
/// How long further changes are waited for at most.
const PATIENCE: Duration = Duration::from_millis(300);
/// How often the directory is read although no change was noticed: network file systems do not
/// tell of changes made elsewhere.
const FALLBACK: Duration = Duration::from_secs(5);

/// A directory of manifests.
#[derive(Debug)]
pub struct DirSource {
    dir: PathBuf,
    namespace: String,
    duties: Duties,
}

/// What a source does besides reading.
#[derive(Clone, Copy, Debug)]
struct Duties {
    /// Logs problems.
    tells: bool,
    /// Keeps copies of what is in force; the process has the directory's lock, and decides by what is
    /// read who holds which address.
    keeps: bool,
}

impl DirSource {
    /// A source that reads `dir`; configuration objects count in `namespace`.
    pub fn new(dir: &Path, namespace: &str) -> Self {
        Self {
            dir: dir.to_owned(),
            namespace: namespace.to_owned(),
            duties: Duties {
                tells: true,
                keeps: false,
            },
        }
    }

    /// Logs no problems, since another source of the same directory does.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.duties.tells = false;
        self
    }

    /// Keeps copies of what is in force for the next start, and does not say that all is known while
    /// what a broken file said is not.
    #[must_use]
    pub fn keeping(mut self, _lock: &DirLock) -> Self {
        self.duties.keeps = true;
        self
    }
}

/// Whether a file of this name is read: what `kubectl apply -f` would read.
pub fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        ["yaml", "yml", "json"]
            .iter()
            .any(|known| extension == *known)
    })
}

/// Watches the directory and, once it is there, the folder of the state file.
struct Watch {
    dir: PathBuf,
    watcher: Option<RecommendedWatcher>,
    state: bool,
}

impl Watch {
    fn new(dir: &Path, changed: mpsc::Sender<()>) -> Self {
        let told = move |event: notify::Result<notify::Event>| {
            // Our own reading is no change.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                // A full channel already says that something changed.
                let _ = changed.try_send(());
            }
        };
        let watcher = notify::recommended_watcher(told).and_then(|mut watcher| {
            watcher.watch(dir, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        if let Err(error) = &watcher {
            tracing::warn!(
                dir = %dir.display(),
                %error,
                "changes are not noticed at once; reading every {FALLBACK:?}"
            );
        }
        Self {
            dir: dir.to_owned(),
            watcher: watcher.ok(),
            state: false,
        }
    }

    fn watch_state(&mut self) {
        let folder = self.dir.join(state::FOLDER);
        if let Some(watcher) = &mut self.watcher
            && !self.state
            && folder.is_dir()
        {
            self.state = watcher.watch(&folder, RecursiveMode::NonRecursive).is_ok();
        }
    }
}

/// Waits until changes come no more.
async fn settled(changed: &mut mpsc::Receiver<()>) {
    let quiet =
        async { while let Ok(Some(())) = tokio::time::timeout(SETTLE, changed.recv()).await {} };
    // However busy somebody is in the directory, what is there takes effect.
    let _ = tokio::time::timeout(PATIENCE, quiet).await;
}

impl Source for DirSource {
    async fn run(self, out: mpsc::Sender<Event>) -> Stopped {
        let (changed_in, mut changed) = mpsc::channel(1);
        let mut watch = Watch::new(&self.dir, changed_in);
        let mut directory = Directory::new(&self.dir, &self.namespace, self.duties);
        let mut synced = false;
        loop {
            watch.watch_state();
            let read = tokio::task::spawn_blocking(move || {
                let events = directory.read();
                (directory, events)
            });
            let Ok((read, events)) = read.await else {
                return Stopped;
            };
            directory = read;
            let complete = !synced && directory.is_complete();
            synced |= complete;
            let synced = complete.then_some(Event::Synced);
            for event in events.into_iter().chain(synced) {
                if let Err(stopped) = tell(&out, event).await {
                    return stopped;
                }
            }
            tokio::select! {
                () = out.closed() => return Stopped,
                _ = changed.recv() => settled(&mut changed).await,
                () = tokio::time::sleep(FALLBACK) => {}
            }
        }
    }
}
