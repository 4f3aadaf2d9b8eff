//! A directory as sink: status goes into the state file, events into the log.
//!
//! The state file is written whole and synced, so changes share stores: while one store is under
//! way, all changes that come gather, and the next store carries them together. A call returns only
//! after a store that carries its change.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use api::corten::v1alpha1::{AcceptedConfigSpec, NodeStateStatus};
use plan::name::ServiceKey;

use super::{Report, ServiceWrite, Sink, WriteError};
use crate::nodes;
use crate::state::{self, Holding, State, StateError};

/// The state file of a directory, held by the one process that writes it.
#[derive(Clone, Debug)]
pub struct DirSink(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    wanted: Mutex<Wanted>,
    /// The version of the state that is on disk; locked while a store is under way.
    stored: tokio::sync::Mutex<u64>,
    /// It was told that this node's state cannot be written.
    unseen: AtomicBool,
    #[cfg(test)]
    stores: std::sync::atomic::AtomicU64,
}

/// The state with all changes so far.
#[derive(Debug)]
struct Wanted {
    state: State,
    /// Counts the changes.
    version: u64,
}

impl DirSink {
    /// Loads what is held; a damaged state file is refused.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let state = state::load(dir)?;
        Ok(Self(Arc::new(Inner {
            dir: dir.to_owned(),
            wanted: Mutex::new(Wanted { state, version: 0 }),
            stored: tokio::sync::Mutex::new(0),
            unseen: AtomicBool::new(false),
            #[cfg(test)]
            stores: std::sync::atomic::AtomicU64::new(0),
        })))
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `holding` under `key`, or takes it out, and returns once that is on disk.
    async fn put(&self, key: String, holding: Option<Holding>) -> Result<(), WriteError> {
        self.change(|State { services, .. }| match holding {
            Some(holding) => {
                services.get(&key) != Some(&holding) && {
                    services.insert(key, holding);
                    true
                }
            }
            None => services.remove(&key).is_some(),
        })
        .await
    }

    /// Makes a change, which says whether it changed anything, and returns once that is on disk.
    /// What could not be stored is tried again with the next change, or by the caller's repetition.
    async fn change(
        &self,
        change: impl FnOnce(&mut State) -> bool + Send,
    ) -> Result<(), WriteError> {
        let version = {
            let mut wanted = self.wanted();
            let changed = change(&mut wanted.state);
            wanted.version += u64::from(changed);
            wanted.version
        };
        let mut stored = self.0.stored.lock().await;
        let (newest, newest_version) = {
            let wanted = self.wanted();
            // Another caller's store has carried this change; unless somebody removed the file.
            let there = || wanted.state == State::default() || state::path(&self.0.dir).exists();
            if *stored >= version && there() {
                return Ok(());
            }
            (wanted.state.clone(), wanted.version)
        };
        #[cfg(test)]
        self.0.stores.fetch_add(1, Ordering::Relaxed);
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || state::store(&inner.dir, &newest))
            .await
            .map_err(|error| WriteError::Failed(Box::new(error)))?
            .map_err(|error| WriteError::Failed(Box::new(error)))?;
        *stored = newest_version;
        Ok(())
    }
}

impl Sink for DirSink {
    /// All that wait at one time go into one store.
    const IN_FLIGHT: usize = 4096;

    async fn write_service(&self, write: &ServiceWrite) -> Result<(), WriteError> {
        let holding = Holding {
            addresses: write.ingress.clone(),
            pool: write.pool.as_ref().map(ToString::to_string),
        };
        let holding = (holding != Holding::default()).then_some(holding);
        self.put(write.service.to_string(), holding).await
    }

    async fn forget_service(&self, service: &ServiceKey) -> Result<(), WriteError> {
        self.put(service.to_string(), None).await
    }

    async fn report(&self, _: &Report, _: SystemTime) -> Result<(), WriteError> {
        // The reporter has logged it, and no one else listens.
        Ok(())
    }

    async fn keep(&self, accepted: &AcceptedConfigSpec) -> Result<(), WriteError> {
        self.change(|state| {
            state.accepted != *accepted && {
                state.accepted = accepted.clone();
                true
            }
        })
        .await
    }

    async fn publish(&self, node: &str, state: &NodeStateStatus) -> Result<(), WriteError> {
        // For people alone: other agents hear it from the node's beats.
        let (inner, node, state) = (self.0.clone(), node.to_owned(), state.clone());
        let store = move || {
            if let Err(error) = nodes::store(&inner.dir, &node, &state)
                && !inner.unseen.swap(true, Ordering::Relaxed)
            {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    "`corten bgp --dir` and `corten drain --dir` see nothing"
                );
            }
        };
        let stored = tokio::task::spawn_blocking(store).await;
        stored.map_err(|error| WriteError::Failed(Box::new(error)))
    }
}

#[cfg(test)]
mod tests;
