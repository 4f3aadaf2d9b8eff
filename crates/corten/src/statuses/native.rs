//! The statuses of the native kinds: condition `Accepted`, and a pool's counters; written when they
//! differ, at most once a second for each object.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use api::corten::v1alpha1::AddressPoolStatus;
use api::meta::Condition;
use k8s_openapi::jiff::Timestamp;
use plan::config::{Object, ObjectRef, Verdict};
use plan::world::{Event, World};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::controller::Deadline;
use crate::sink::WriteError;
use crate::sink::board::Board;

/// Shortest time between two writes to one object; also the wait after a failure.
const PERIOD: Duration = Duration::from_secs(1);

/// Counters of a pool: assigned IPv4 and IPv6, available IPv4 and IPv6.
type Counters = [i64; 4];

/// An object's status as the API last showed it, and what it should say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Native {
    generation: i64,
    condition: Option<Condition>,
    counters: Option<Counters>,
    verdict: Option<Verdict>,
    wanted_counters: Option<Counters>,
}

type Natives = BTreeMap<ObjectRef, Native>;

/// The planner's end: the newest of every native object.
#[derive(Debug)]
pub(crate) struct NativeStatuses(watch::Sender<Natives>);

fn counters(status: &AddressPoolStatus) -> Counters {
    [
        status.assigned_ipv4,
        status.assigned_ipv6,
        status.available_ipv4,
        status.available_ipv6,
    ]
}

impl NativeStatuses {
    /// The two ends.
    pub(crate) fn new() -> (Self, watch::Receiver<Natives>) {
        let (natives, newest) = watch::channel(Natives::new());
        (Self(natives), newest)
    }

    /// Takes the status out of an event that shows an object of a native kind.
    pub(crate) fn observe(&self, event: &Event, namespace: &str) {
        let Event::Config { object, form } = event else {
            return;
        };
        if *object.namespace != *namespace {
            return;
        }
        let (conditions, counted) = match form.as_deref() {
            Some(Object::AddressPool(pool)) => {
                (&pool.status.conditions, Some(counters(&pool.status)))
            }
            Some(Object::Advertisement(advertisement)) => (&advertisement.status.conditions, None),
            Some(Object::Peer(peer)) => (&peer.status.conditions, None),
            Some(_) => return,
            None => {
                self.0
                    .send_if_modified(|natives| natives.remove(object).is_some());
                return;
            }
        };
        let condition = conditions
            .iter()
            .find(|found| found.type_ == "Accepted")
            .cloned();
        let generation = form.as_deref().map_or(0, |form| form.metadata().generation);
        self.0.send_if_modified(|natives| {
            let native = natives.entry(object.clone()).or_default();
            let before = native.clone();
            native.generation = generation;
            native.condition = condition;
            native.counters = counted;
            *native != before
        });
    }

    /// Takes in what the statuses should say.
    pub(crate) fn want(&self, world: &World) {
        self.0.send_if_modified(|natives| {
            let mut changed = false;
            for (object, native) in natives.iter_mut() {
                let verdict = world.verdicts().get(object).cloned();
                let wanted = native.counters.and_then(|_| {
                    let counted = plan::status::counters(world.allocator().counters(&object.name)?);
                    Some([
                        counted.assigned_ipv4,
                        counted.assigned_ipv6,
                        counted.available_ipv4,
                        counted.available_ipv6,
                    ])
                });
                if native.verdict != verdict || native.wanted_counters != wanted {
                    native.verdict = verdict;
                    native.wanted_counters = wanted;
                    changed = true;
                }
            }
            changed
        });
    }
}

impl Native {
    /// The status to write; `None` when what is there says it already.
    fn status(&self, now: &str) -> Option<Value> {
        let verdict = self.verdict.as_ref()?;
        let condition = verdict.condition(self.generation, self.condition.as_ref(), now);
        let wanted = self.wanted_counters.or(self.counters);
        if self.condition.as_ref() == Some(&condition) && wanted == self.counters {
            return None;
        }
        let mut status = json!({ "conditions": [condition] });
        if let Some([assigned_v4, assigned_v6, available_v4, available_v6]) = wanted {
            status["assignedIPv4"] = assigned_v4.into();
            status["assignedIPv6"] = assigned_v6.into();
            status["availableIPv4"] = available_v4.into();
            status["availableIPv6"] = available_v6.into();
        }
        Some(status)
    }
}

/// Writes until the planner ends. Nothing is sent after the deadline of the leadership.
pub(crate) async fn run(
    board: Board,
    mut natives: watch::Receiver<Natives>,
    leads_until: watch::Receiver<Deadline>,
) {
    let mut next: HashMap<ObjectRef, Instant> = HashMap::new();
    loop {
        let newest = natives.borrow_and_update().clone();
        next.retain(|object, _| newest.contains_key(object));
        let mut wake: Option<Instant> = None;
        for (object, native) in &newest {
            let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
            let Some(status) = native.status(&now.to_string()) else {
                continue;
            };
            if let Some(at) = next.get(object).filter(|at| **at > Instant::now()) {
                wake = Some(wake.map_or(*at, |wake| wake.min(*at)));
                continue;
            }
            if !leads_until.borrow().allows(Instant::now()) {
                // The lease may be renewed still.
                wake = Some(Instant::now() + PERIOD);
                break;
            }
            let written = board.write_native(object, &status).await;
            let at = Instant::now() + PERIOD;
            next.insert(object.clone(), at);
            if let Err(error) = written
                && !matches!(error, WriteError::Outdated)
            {
                wake = Some(wake.map_or(at, |wake| wake.min(at)));
                tracing::warn!(
                    %object,
                    error = &error as &dyn std::error::Error,
                    "the object's status was not written; trying again"
                );
            }
        }
        tokio::select! {
            changed = natives.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now).into()),
                if wake.is_some() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_already_is_not_written() {
        let mut native = Native {
            generation: 3,
            verdict: Some(Verdict::Good),
            ..Native::default()
        };
        let status = native
            .status("2026-01-01T00:00:00Z")
            .expect("nothing was said yet");
        assert_eq!(status["conditions"][0]["status"], "True");
        assert!(status.get("assignedIPv4").is_none(), "{status}");
        let said = status["conditions"][0].clone();
        native.condition = serde_json::from_value(said).expect("a condition");
        assert_eq!(native.status("2026-01-02T00:00:00Z"), None);
        native.generation = 4;
        let status = native
            .status("2026-01-02T00:00:00Z")
            .expect("another generation");
        assert_eq!(status["conditions"][0]["observedGeneration"], 4);
        let since = &status["conditions"][0]["lastTransitionTime"];
        assert_eq!(
            since, "2026-01-01T00:00:00Z",
            "the status itself has not changed"
        );
    }

    #[test]
    fn a_pools_counters_go_along() {
        let native = Native {
            verdict: Some(Verdict::Good),
            counters: Some([0; 4]),
            wanted_counters: Some([1, 2, 3, 4]),
            ..Native::default()
        };
        let status = native.status("2026-01-01T00:00:00Z").expect("to write");
        assert_eq!(status["availableIPv6"], 4);
    }
}
