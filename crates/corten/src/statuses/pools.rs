//! The counters in pool statuses: written when they differ, at most once a second for each pool.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use api::metallb::IPAddressPoolStatus;
use plan::config::Object;
use plan::name::Name;
use plan::world::{Event, World};
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::controller::Deadline;
use crate::sink::WriteError;
use crate::sink::board::Board;

/// Shortest time between two writes to one pool.
const PERIOD: Duration = Duration::from_secs(1);

/// A pool's status as the API last showed it, and as it should be; `None` where it has no pool, or
/// is not in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pool {
    observed: Option<IPAddressPoolStatus>,
    wanted: Option<IPAddressPoolStatus>,
}

/// The planner's end: the newest of every pool.
#[derive(Debug)]
pub(crate) struct Pools(watch::Sender<BTreeMap<Name, Pool>>);

impl Pools {
    /// The two ends.
    pub(crate) fn new() -> (Self, watch::Receiver<BTreeMap<Name, Pool>>) {
        let (pools, newest) = watch::channel(BTreeMap::new());
        (Self(pools), newest)
    }

    /// Takes the status out of an event that shows a pool of `namespace`.
    pub(crate) fn observe(&self, event: &Event, namespace: &str) {
        let Event::Config { object, form } = event else {
            return;
        };
        if *object.namespace != *namespace {
            return;
        }
        let observed = match form.as_deref() {
            Some(Object::IPAddressPool(pool)) => Some(pool.status.clone()),
            // Gone, or of another kind: only a pool's name is known here.
            None if object.kind == plan::config::ObjectKind::IPAddressPool => None,
            _ => return,
        };
        self.change(&object.name, |pool| {
            std::mem::replace(&mut pool.observed, observed.clone()) != observed
        });
    }

    /// Takes in what the statuses should be.
    pub(crate) fn want(&self, world: &World) {
        let wanted = plan::status::pools(world);
        self.0.send_if_modified(|pools| {
            let mut changed = false;
            for (name, pool) in pools.iter_mut() {
                let wanted = wanted.get(name);
                if pool.wanted.as_ref() != wanted {
                    pool.wanted = wanted.cloned();
                    changed = true;
                }
            }
            changed
        });
    }

    fn change(&self, name: &Name, change: impl FnOnce(&mut Pool) -> bool) {
        self.0.send_if_modified(|pools| {
            let pool = pools.entry(name.clone()).or_default();
            let changed = change(pool);
            if pool.observed.is_none() {
                pools.remove(name);
            }
            changed
        });
    }
}

/// When a pool may be written again, and how long to wait after a failure.
#[derive(Debug)]
struct Pace {
    next: Instant,
    backoff: Backoff,
}

/// Writes until the planner ends. Nothing is sent after the deadline of the leadership.
pub(crate) async fn run(
    board: Board,
    mut pools: watch::Receiver<BTreeMap<Name, Pool>>,
    leads_until: watch::Receiver<Deadline>,
) {
    let mut paces: HashMap<Name, Pace> = HashMap::new();
    loop {
        let now = Instant::now();
        let (due, wake) = look(&pools.borrow_and_update(), &mut paces, now);
        for (name, status) in due {
            if !leads_until.borrow().allows(Instant::now()) {
                break;
            }
            let pace = paces.entry(name.clone()).or_insert_with(|| Pace {
                next: now,
                backoff: Backoff::new(PERIOD, Duration::from_secs(30)),
            });
            let written = board.write_pool(&name, &status).await;
            pace.next = Instant::now() + PERIOD;
            match written {
                // What came between is on its way through the watch.
                Ok(()) | Err(WriteError::Outdated) => pace.backoff.reset(),
                Err(error) => {
                    tracing::warn!(
                        pool = %name,
                        error = &error as &dyn std::error::Error,
                        "the pool's status was not written; trying again"
                    );
                    pace.next = Instant::now() + pace.backoff.next().max(PERIOD);
                }
            }
        }
        let wake = wake.unwrap_or_else(|| now + PERIOD);
        let waits = pools.borrow().values().any(Pool::is_due);
        tokio::select! {
            changed = pools.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep_until(wake.into()), if waits => {}
        }
    }
}

impl Pool {
    fn is_due(&self) -> bool {
        self.observed.is_some() && self.wanted.is_some() && self.observed != self.wanted
    }
}

/// The pools to write now, and when to look again for those that must wait.
fn look(
    pools: &BTreeMap<Name, Pool>,
    paces: &mut HashMap<Name, Pace>,
    now: Instant,
) -> (Vec<(Name, IPAddressPoolStatus)>, Option<Instant>) {
    paces.retain(|name, _| pools.contains_key(name));
    let (mut due, mut wake) = (Vec::new(), None::<Instant>);
    for (name, pool) in pools.iter().filter(|(_, pool)| pool.is_due()) {
        match paces.get(name) {
            Some(pace) if pace.next > now => {
                wake = Some(wake.map_or(pace.next, |wake| wake.min(pace.next)));
            }
            _ => due.extend(pool.wanted.clone().map(|wanted| (name.clone(), wanted))),
        }
    }
    (due, wake)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(assigned: i64) -> Option<IPAddressPoolStatus> {
        Some(IPAddressPoolStatus {
            assigned_ipv4: assigned,
            ..IPAddressPoolStatus::default()
        })
    }

    #[test]
    fn what_differs_is_due_once_a_second() {
        let now = Instant::now();
        let mut paces = HashMap::new();
        let mut pools = BTreeMap::new();
        let put = |pools: &mut BTreeMap<Name, Pool>, observed, wanted| {
            pools.insert(Name::from("pool"), Pool { observed, wanted });
        };
        for (observed, wanted, due) in [
            (status(1), status(1), 0),
            (status(1), None, 0),
            (None, status(1), 0),
            (status(1), status(2), 1),
        ] {
            put(&mut pools, observed, wanted);
            let (found, wake) = look(&pools, &mut paces, now);
            assert_eq!((found.len(), wake), (due, None), "{pools:?}");
        }
        let next = now + PERIOD;
        let backoff = Backoff::new(PERIOD, PERIOD);
        paces.insert("pool".into(), Pace { next, backoff });
        let (found, wake) = look(&pools, &mut paces, now);
        assert_eq!((found.len(), wake), (0, Some(next)));
        let (found, wake) = look(&pools, &mut paces, next);
        assert_eq!((found.len(), wake), (1, None));
        pools.clear();
        look(&pools, &mut paces, next);
        assert!(paces.is_empty(), "a pool that is gone leaves nothing");
    }
}
