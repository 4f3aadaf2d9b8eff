//! Sends status writes: a bounded number at a time, the newest form of each Service only, and none
//! after the deadline of the leadership.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use plan::name::ServiceKey;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::elector::Deadline;
use crate::backoff::Backoff;
use crate::sink::{ServiceWrite, Sink, WriteError};

/// What the planner asks for.
#[derive(Debug)]
pub(super) enum Write {
    /// A status.
    Service(ServiceWrite),
    /// The Service is gone.
    Forget(ServiceKey),
}

impl Write {
    const fn service(&self) -> &ServiceKey {
        match self {
            Self::Service(write) => &write.service,
            Self::Forget(service) => service,
        }
    }
}

/// Runs until the planner ends.
pub(super) async fn run<K: Sink>(
    sink: K,
    mut writes: mpsc::Receiver<Write>,
    leads_until: watch::Receiver<Deadline>,
) {
    // What waits, in the order in which it came; and what is on its way. A Service is written by
    // one write at a time.
    let mut waiting: BTreeMap<u64, Write> = BTreeMap::new();
    let mut place: HashMap<ServiceKey, u64> = HashMap::new();
    let mut busy: HashSet<ServiceKey> = HashSet::new();
    let mut flying: JoinSet<ServiceKey> = JoinSet::new();
    let mut next = 0u64;
    loop {
        while flying.len() < K::IN_FLIGHT {
            let ready = waiting
                .iter()
                .find(|(_, write)| !busy.contains(write.service()))
                .map(|(number, _)| *number);
            let Some(write) = ready.and_then(|number| waiting.remove(&number)) else {
                break;
            };
            place.remove(write.service());
            busy.insert(write.service().clone());
            flying.spawn(send(sink.clone(), write, leads_until.clone()));
        }
        tokio::select! {
            write = writes.recv() => {
                let Some(write) = write else { return };
                // A newer form takes the older one's place in the queue.
                let number = *place.entry(write.service().clone()).or_insert_with(|| {
                    next += 1;
                    next
                });
                waiting.insert(number, write);
            }
            Some(done) = flying.join_next() => {
                match done {
                    Ok(service) => { busy.remove(&service); }
                    Err(error) => {
                        tracing::error!(%error, "a write task failed");
                        return;
                    }
                }
            }
        }
    }
}

/// Sends one write; tries again until it succeeds, is outdated, or the term ends.
async fn send<K: Sink>(
    sink: K,
    write: Write,
    leads_until: watch::Receiver<Deadline>,
) -> ServiceKey {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    loop {
        if !leads_until.borrow().allows(Instant::now()) {
            return write.service().clone();
        }
        let result = match &write {
            Write::Service(write) => sink.write_service(write).await,
            Write::Forget(service) => sink.forget_service(service).await,
        };
        match result {
            Ok(()) => return write.service().clone(),
            Err(WriteError::Outdated) => {
                // The newer form is on its way through the source and is decided on anew.
                tracing::debug!(service = %write.service(), "status write was outdated");
                return write.service().clone();
            }
            Err(error) => {
                tracing::warn!(
                    service = %write.service(),
                    error = &error as &dyn std::error::Error,
                    "status write failed; trying again"
                );
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
}
