//! A directory as sink: status goes into the state file, events into the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::corten::v1alpha1::NodeStateStatus;
use plan::name::ServiceKey;
use tokio::sync::Mutex;

use super::{Report, ServiceWrite, Sink, WriteError};
use crate::state::{self, Holding, Holdings, StateError};

/// The state file of a directory, held by the one process that writes it.
#[derive(Clone, Debug)]
pub struct DirSink {
    dir: PathBuf,
    holdings: Arc<Mutex<Holdings>>,
}

impl DirSink {
    /// Loads what is held; a damaged state file is refused.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let holdings = state::load(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            holdings: Arc::new(Mutex::new(holdings)),
        })
    }

    /// Changes the holdings and stores them; what cannot be stored is not changed either.
    async fn change(&self, change: impl FnOnce(&mut Holdings) + Send) -> Result<(), WriteError> {
        let mut held = self.holdings.lock().await;
        let mut new = held.clone();
        change(&mut new);
        if new == *held {
            return Ok(());
        }
        let dir = self.dir.clone();
        let stored = tokio::task::spawn_blocking(move || state::store(&dir, &new).map(|()| new));
        *held = stored
            .await
            .map_err(|error| WriteError::Failed(Box::new(error)))?
            .map_err(|error| WriteError::Failed(Box::new(error)))?;
        Ok(())
    }
}

impl Sink for DirSink {
    async fn write_service(&self, write: &ServiceWrite) -> Result<(), WriteError> {
        let key = write.service.to_string();
        let holding = Holding {
            addresses: write.ingress.clone(),
            pool: write.pool.as_ref().map(ToString::to_string),
        };
        self.change(|holdings| {
            if holding == Holding::default() {
                holdings.remove(&key);
            } else {
                holdings.insert(key, holding);
            }
        })
        .await
    }

    async fn forget_service(&self, service: &ServiceKey) -> Result<(), WriteError> {
        let key = service.to_string();
        self.change(|holdings| {
            holdings.remove(&key);
        })
        .await
    }

    async fn report(&self, _: &Report) -> Result<(), WriteError> {
        // The reporter has logged it, and no one else listens.
        Ok(())
    }

    async fn publish(&self, _: &str, _: &NodeStateStatus) -> Result<(), WriteError> {
        // The node's beats carry it.
        Ok(())
    }
}
