//! The World as an agent last knew it, kept in memory-backed files, so that a restart while the API
//! server is away goes on announcing (design.md §3).
//!
//! [`Keeping`] stands between a source and the planner. It writes down what it passes on: `world`
//! and, apart, `secrets`, in `/run/corten`, mode 0600. Where the source has not told everything
//! after [`PATIENCE`], it tells what was kept, and says so; when the source is complete, it tells
//! what has gone meanwhile. Damaged files, and those of another version, are refused and told.

mod journal;
mod record;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use plan::world::Event;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::journal::Journal;
use self::record::Record;
use crate::source::{self, Source, Stopped};
use crate::status::Health;

/// How long the source may take to tell all there is, before what was kept is told.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two writes.
const PACE: Duration = Duration::from_secs(1);
/// So much is written before its time: a first list is long.
const PLENTY: usize = 256 << 10;

/// Why there is no kept World.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeptError {
    /// It is there and cannot be read.
    #[error("{file} cannot be read")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what was written, or by another version.
    #[error("{file} is refused: {what}")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// It cannot be written.
    #[error("{file} cannot be written")]
    Unwritable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn world(folder: &Path) -> PathBuf {
    folder.join("world")
}

fn secrets(folder: &Path) -> PathBuf {
    folder.join("secrets")
}

/// Forgets what was kept: Corten is removed.
pub(crate) fn forget(folder: &Path) {
    for file in [world(folder), secrets(folder)] {
        if let Err(error) = fs::remove_file(&file)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file = %file.display(), %error, "not removed");
        }
    }
}

/// What was kept.
#[derive(Debug, Default)]
struct Past {
    /// What is to be told.
    records: Vec<Record>,
    at: Option<SystemTime>,
}

impl Past {
    /// Of this folder; what is of no use is told.
    fn load(folder: &Path) -> Option<Self> {
        let read = |file: &Path| match journal::read(file) {
            Ok(records) => records,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "what was kept is ignored"
                );
                None
            }
        };
        let file = world(folder);
        let mut records = read(&file)?;
        records.extend(read(&secrets(folder)).unwrap_or_default());
        let at = fs::metadata(&file).and_then(|it| it.modified()).ok();
        Some(Self { records, at })
    }

    /// How old it is, for people.
    fn age(&self) -> String {
        let age = self.at.and_then(|at| at.elapsed().ok());
        age.map_or_else(
            || "of an unknown time".to_owned(),
            |age| format!("of {} s ago", age.as_secs()),
        )
    }
}

/// Both journals.
#[derive(Debug)]
struct Journals {
    world: Journal,
    secrets: Journal,
    /// When what waits is written.
    due: Option<Instant>,
}

impl Journals {
    fn begin(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self {
            world: Journal::begin(&world(folder))?,
            secrets: Journal::begin(&secrets(folder))?,
            due: None,
        })
    }

    fn push(&mut self, record: &Record) -> io::Result<()> {
        let Ok(line) = record.line() else {
            return Ok(());
        };
        let journal = if record.is_secret() {
            &mut self.secrets
        } else {
            &mut self.world
        };
        journal.push(&line);
        self.due.get_or_insert_with(|| Instant::now() + PACE);
        if journal.waiting() >= PLENTY {
            journal.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.due = None;
        for journal in [&mut self.world, &mut self.secrets] {
            if journal.waits() {
                journal.flush()?;
            }
        }
        Ok(())
    }

    fn complete(&mut self) -> io::Result<()> {
        self.due = None;
        // Secrets first: a World without them is worth less than none with old ones.
        self.secrets.complete()?;
        self.world.complete()
    }

    fn is_large(&self) -> bool {
        self.world.is_large() || self.secrets.is_large()
    }

    fn compact(mut self) -> Result<Self, KeptError> {
        if self.world.is_large() {
            self.world = self.world.compact()?;
        }
        if self.secrets.is_large() {
            self.secrets = self.secrets.compact()?;
        }
        Ok(self)
    }
}

/// A source whose facts are kept.
#[derive(Debug)]
pub(crate) struct Keeping<S> {
    source: S,
    folder: PathBuf,
    health: Health,
    patience: Duration,
}

impl<S> Keeping<S> {
    /// Keeps what `source` tells in `folder`.
    pub(crate) fn new(source: S, folder: &Path, health: &Health) -> Self {
        Self {
            source,
            folder: folder.to_owned(),
            health: health.clone(),
            patience: PATIENCE,
        }
    }
}

/// How far the source has come.
#[derive(Debug)]
enum Stage {
    /// It tells what there is; nothing was kept, or it is complete.
    Plain,
    /// It tells what there is, and these were told; there is a past to fall back on.
    Listing(Past, HashSet<String>),
    /// The past was told: what of it was not told since is gone, once the source is complete.
    Past(HashMap<String, Event>),
}

impl<S: Source> Source for Keeping<S> {
    async fn run(self, out: mpsc::Sender<Event>) -> Stopped {
        let folder = self.folder;
        let stage = match Past::load(&folder) {
            Some(past) => Stage::Listing(past, HashSet::new()),
            None => Stage::Plain,
        };
        let journals = match Journals::begin(&folder) {
            Ok(journals) => Some(journals),
            Err(error) => {
                tracing::warn!(
                    folder = %folder.display(),
                    %error,
                    "what is known is not kept: a restart while the API server is away announces \
                     nothing"
                );
                None
            }
        };
        let (told_in, told) = mpsc::channel(source::QUEUE);
        let mut task = JoinSet::new();
        task.spawn(self.source.run(told_in));
        let keeper = Keeper {
            stage,
            journals,
            health: self.health,
            out,
        };
        keeper.run(told, self.patience).await
    }
}

struct Keeper {
    stage: Stage,
    /// None where they cannot be written.
    journals: Option<Journals>,
    health: Health,
    out: mpsc::Sender<Event>,
}

impl Keeper {
    async fn run(mut self, mut told: mpsc::Receiver<Event>, patience: Duration) -> Stopped {
        let mut patience = std::pin::pin!(tokio::time::sleep(patience));
        loop {
            let due = self.journals.as_ref().and_then(|it| it.due);
            let waits = matches!(self.stage, Stage::Listing(..));
            let result = tokio::select! {
                event = told.recv() => match event {
                    Some(event) => self.take(event).await,
                    None => return Stopped,
                },
                () = &mut patience, if waits => self.fall_back().await,
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.write().await;
                    Ok(())
                }
            };
            if let Err(stopped) = result {
                return stopped;
            }
        }
    }

    /// Passes on what the source tells, and keeps it.
    async fn take(&mut self, event: Event) -> Result<(), Stopped> {
        if event == Event::Synced {
            return self.synced().await;
        }
        if let Some(record) = Record::of(&event) {
            match &mut self.stage {
                Stage::Plain => {}
                Stage::Listing(_, told) => {
                    told.insert(record.key());
                }
                Stage::Past(missing) => {
                    missing.remove(&record.key());
                }
            }
            self.keep(|journals| journals.push(&record));
        }
        source::tell(&self.out, event).await
    }

    /// The source does not tell all there is in time: what was kept holds.
    async fn fall_back(&mut self) -> Result<(), Stopped> {
        let Stage::Listing(past, told) = std::mem::replace(&mut self.stage, Stage::Plain) else {
            return Ok(());
        };
        let age = past.age();
        let note = format!("going on from the World kept {age}: the API server has not told all");
        tracing::warn!(facts = past.records.len(), "{note}");
        self.health.set_kept(Some(note));
        let mut missing = HashMap::new();
        for record in past.records {
            let key = record.key();
            if told.contains(&key) {
                continue;
            }
            missing.extend(record.gone().map(|gone| (key, gone)));
            match record.event() {
                Ok(event) => source::tell(&self.out, event).await?,
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a kept fact is left out"
                ),
            }
        }
        self.stage = Stage::Past(missing);
        source::tell(&self.out, Event::Synced).await
    }

    /// The source has told all there is.
    async fn synced(&mut self) -> Result<(), Stopped> {
        self.keep(Journals::complete);
        match std::mem::replace(&mut self.stage, Stage::Plain) {
            Stage::Plain | Stage::Listing(..) => source::tell(&self.out, Event::Synced).await,
            Stage::Past(missing) => {
                tracing::info!(
                    gone = missing.len(),
                    "the API server has told all: what was kept is over"
                );
                self.health.set_kept(None);
                for gone in missing.into_values() {
                    source::tell(&self.out, gone).await?;
                }
                Ok(())
            }
        }
    }

    /// Writes what waits; where most of a journal is outdated, anew.
    async fn write(&mut self) {
        self.keep(Journals::flush);
        let Some(journals) = self.journals.take_if(|it| it.is_large()) else {
            return;
        };
        match tokio::task::spawn_blocking(|| journals.compact()).await {
            Ok(Ok(journals)) => self.journals = Some(journals),
            Ok(Err(error)) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what is known is not kept any more"
            ),
            Err(error) => tracing::error!(%error, "a journal's task failed"),
        }
    }

    /// Does something with the journals; those that cannot be written are given up, once.
    fn keep(&mut self, work: impl FnOnce(&mut Journals) -> io::Result<()>) {
        let Some(journals) = &mut self.journals else {
            return;
        };
        if let Err(error) = work(journals) {
            tracing::warn!(%error, "what is known is not kept any more");
            self.journals = None;
        }
    }
}
