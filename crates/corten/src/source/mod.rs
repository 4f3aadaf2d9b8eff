//! Where facts come from: a Kubernetes API server or a directory of manifests.
//!
//! A source turns what it sees into World's events. It keeps no objects, only the names it has seen
//! (so that a deletion missed while disconnected is still told).

pub mod dir;
mod kinds;
pub mod kube;

use plan::world::Event;
use tokio::sync::mpsc;

/// How many events may wait for the planner before the source does.
pub const QUEUE: usize = 1024;

/// The receiving end of a source.
pub type Updates = mpsc::Receiver<Event>;

/// The planner is gone: the program is stopping.
#[derive(Debug, thiserror::Error)]
#[error("the planner has stopped")]
pub struct Stopped;

/// Sends one event; waits while the planner is busy.
pub(crate) async fn tell(out: &mpsc::Sender<Event>, event: Event) -> Result<(), Stopped> {
    out.send(event).await.map_err(|_| Stopped)
}

/// A source of facts. It runs until the planner stops; what goes wrong on the way it logs, counts
/// and tries again.
pub trait Source: Send + 'static {
    /// Tells everything there is, then [`Event::Synced`] once, then every change.
    fn run(self, out: mpsc::Sender<Event>) -> impl Future<Output = Stopped> + Send;
}
