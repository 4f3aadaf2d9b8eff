//! The controller: gives Services their addresses.
//!
//! ```text
//!  source ──Update──► planner ──ServiceWrite──► writer ──► sink (status)
//!                        ├──────Report────────► reporter ─► sink (events)
//!                        └──watch: newest─────► statuses ─► sink (pools, ConfigurationState)
//! ```
//! The planner owns World and decides; the writer owns what is in flight; the reporter owns what
//! is to be told. A term ends when the source, or the leadership, does; the next one begins with an
//! empty World and a consistent list.

pub mod candidacy;
pub mod elector;
mod keeper;
mod planner;
mod queue;
mod writer;

use std::time::Instant;

use plan::status::Component;
use plan::world::Settings;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::http::Metrics;
use crate::report::Reporter;
use crate::sink::Sink;
use crate::source::{self, Source};
use crate::status::Health;
use crate::statuses::{self, native::NativeStatuses, pools::Pools};
pub use candidacy::Candidacy;
pub use elector::Deadline;

/// One term of office: runs the tasks until the deadline is withdrawn (leadership lost).
///
/// `leads_until` holds the moment until which writes may be sent; the writer looks at it before
/// each one.
pub async fn term<S: Source, K: Sink>(
    source: S,
    sink: K,
    settings: Settings,
    mut leads_until: watch::Receiver<Deadline>,
    health: Health,
    metrics: Metrics,
) {
    let (updates_in, updates) = mpsc::channel(source::QUEUE);
    let (orders_in, orders) = mpsc::channel(source::QUEUE);
    let (reporter, reports) = Reporter::new(metrics.reports_dropped.clone());
    let (accepted_in, accepted) = watch::channel(None);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        source.run(updates_in).await;
    });
    let (pools, newest_pools) = Pools::new();
    let (natives, newest_natives) = NativeStatuses::new();
    let (configuration_in, configuration) = watch::channel(None);
    if let Some(board) = sink.board() {
        let leads = leads_until.clone();
        tasks.spawn(statuses::configuration::run(
            board.clone(),
            Component::Controller,
            configuration,
            move || leads.borrow().allows(Instant::now()),
        ));
        let leads = leads_until.clone();
        tasks.spawn(statuses::pools::run(board.clone(), newest_pools, leads));
        let leads = leads_until.clone();
        tasks.spawn(statuses::native::run(board, newest_natives, leads));
    }
    let outputs = planner::Outputs {
        orders: orders_in,
        accepted: accepted_in,
        reporter,
        pools,
        natives,
        configuration: configuration_in,
    };
    tasks.spawn(planner::run(settings, updates, outputs, health, metrics));
    tasks.spawn(keeper::run(sink.clone(), accepted, leads_until.clone()));
    tasks.spawn(writer::run(sink.clone(), orders, leads_until.clone()));
    // Not the term's: what has happened is told also when the leadership is lost meanwhile. It ends
    // with the planner, when it has told all.
    tokio::spawn(reports.run(sink));
    tokio::select! {
        ended = tasks.join_next() => {
            if let Some(Err(error)) = ended {
                tracing::error!(%error, "a controller task failed");
            }
        }
        _ = leads_until.wait_for(|deadline| *deadline == Deadline::Withdrawn) => {}
    }
    // Dropping the set ends the other tasks.
}
