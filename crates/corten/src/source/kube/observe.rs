//! Objects that this program writes itself, watched: what was edited or deleted is mended.

use api::object::Object;
use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::watch::{Scope, Told, Watch, Watched};
use crate::source::QUEUE;

/// What is seen of them.
#[derive(Debug)]
pub(crate) enum Seen {
    /// One is there, or has changed.
    Applied(Object),
    /// One is gone: only its namespace and name are in it.
    Gone(Object),
    /// All that exist have been told.
    Listed,
}

/// A watch of one kind; it ends with this value.
#[derive(Debug)]
pub(crate) struct Observed {
    told: mpsc::Receiver<Told>,
    _task: JoinSet<()>,
}

impl Observed {
    /// Begins to watch.
    pub(crate) fn start<T: Watched>(client: Client, scope: Scope) -> Self {
        let (out, told) = mpsc::channel(QUEUE);
        let mut task = JoinSet::new();
        task.spawn(Watch::<T>::new(client, scope, out).run());
        Self { told, _task: task }
    }

    /// The next thing seen; it may be dropped while it waits.
    pub(crate) async fn next(&mut self) -> Option<Seen> {
        Some(match self.told.recv().await? {
            Told::Applied(object) => Seen::Applied(*object),
            Told::Gone(object) => Seen::Gone(*object),
            Told::Listed(_) => Seen::Listed,
        })
    }
}
