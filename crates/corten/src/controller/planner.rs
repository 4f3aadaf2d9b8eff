//! Owns the controller's World: takes events in, decides, and hands decisions on.

use std::collections::BTreeSet;
use std::time::Duration;

use api::corten::v1alpha1::AcceptedConfigSpec;
use plan::ipam::{self, Kind};
use plan::name::ServiceKey;
use plan::status::{self, Component as Says, Configuration};
use plan::world::{Dirty, Event, Settings, World};
use tokio::sync::{mpsc, watch};

use super::queue::{Order, Write};
use crate::http::Metrics;
use crate::report::Reporter;
use crate::sink::{Component, Report, ServiceWrite, Subject};
use crate::source::Updates;
use crate::status::Health;
use crate::statuses::native::NativeStatuses;
use crate::statuses::pools::Pools;

/// Events taken in before anything is decided.
const BATCH: usize = 4096;

/// How often the pools' metrics are set: counting goes through the allocations.
const COUNT: Duration = Duration::from_secs(1);

/// Runs until the source or the writer ends.
pub(super) async fn run(
    settings: Settings,
    mut updates: Updates,
    outputs: Outputs,
    health: Health,
    metrics: Metrics,
) {
    let mut planner = Planner {
        world: World::new(settings),
        outputs,
        metrics: metrics.clone(),
    };
    let mut dirty = Dirty::default();
    let mut synced = false;
    let mut batch = Vec::new();
    let mut arrived = Vec::new();
    let mut counted = true;
    let mut count = tokio::time::interval(COUNT);
    count.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            received = updates.recv_many(&mut batch, BATCH) => {
                if received == 0 {
                    return;
                }
            }
            _ = count.tick(), if !counted => {
                planner.count();
                counted = true;
                continue;
            }
        }
        for event in batch.drain(..) {
            metrics.updates.inc();
            let gone = match &event {
                Event::Service { key, form: None } => Some(key.clone()),
                Event::Service { key, .. } => {
                    arrived.push(key.clone());
                    None
                }
                _ => None,
            };
            if matches!(event, Event::Synced) {
                synced = true;
                health.set_synced();
                tracing::info!(services = planner.world.services().count(), "in sync");
            }
            let namespace = &planner.world.settings().namespace;
            planner.outputs.pools.observe(&event, namespace);
            planner.outputs.natives.observe(&event, namespace);
            dirty.extend(planner.world.apply(event));
            if let Some(key) = gone
                && planner
                    .outputs
                    .orders
                    .send(Order::Write(Write::Forget(key)))
                    .await
                    .is_err()
            {
                return;
            }
        }
        if synced {
            let arrived = std::mem::take(&mut arrived);
            if !planner.decide(std::mem::take(&mut dirty), arrived).await {
                return;
            }
            counted = false;
        }
    }
}

/// Where decisions go.
pub(super) struct Outputs {
    pub(super) orders: mpsc::Sender<Order>,
    /// The last good forms to keep.
    pub(super) accepted: watch::Sender<Option<AcceptedConfigSpec>>,
    pub(super) reporter: Reporter,
    pub(super) pools: Pools,
    pub(super) natives: NativeStatuses,
    pub(super) configuration: watch::Sender<Option<Configuration>>,
}

/// Those that arrived, in their order, then the others.
fn turns(
    arrived: &mut Vec<ServiceKey>,
    mut dirty: BTreeSet<ServiceKey>,
) -> impl Iterator<Item = ServiceKey> {
    let mut first = std::mem::take(arrived);
    first.retain(|key| dirty.remove(key));
    first.into_iter().chain(dirty)
}

struct Planner {
    world: World,
    outputs: Outputs,
    metrics: Metrics,
}

impl Planner {
    /// Decides for every dirty Service until nothing is dirty, for those that arrived in their
    /// order: who came first has the choice. False when the writer is gone.
    async fn decide(&mut self, mut dirty: Dirty, mut arrived: Vec<ServiceKey>) -> bool {
        self.tell_verdicts(&dirty);
        if !dirty.objects.is_empty() {
            self.keep();
        }
        self.tell_configuration(&dirty);
        while !dirty.services.is_empty() {
            for key in turns(&mut arrived, std::mem::take(&mut dirty.services)) {
                let Some((more, order)) = self.decide_one(&key) else {
                    continue;
                };
                dirty.extend(more);
                if self.outputs.orders.send(order).await.is_err() {
                    return false;
                }
            }
        }
        self.outputs.pools.want(&self.world);
        self.outputs.natives.want(&self.world);
        true
    }

    /// Decides for one Service and takes the decision into World before its write is sent.
    fn decide_one(&mut self, key: &ServiceKey) -> Option<(Dirty, Order)> {
        let service = self.world.service(key)?;
        let decision = ipam::decide(
            self.world.allocator(),
            service,
            self.world.namespace_labels(&key.namespace),
            &self.world.ipam_options(),
        );
        for note in &decision.notes {
            if note.reason.kind() == Kind::Warning {
                self.metrics.update_errors.inc();
            }
            self.outputs.reporter.report(Report {
                component: Component::Controller,
                about: Subject::Service {
                    key: key.clone(),
                    uid: service.uid.clone(),
                },
                warning: note.reason.kind() == Kind::Warning,
                reason: note.reason.as_str(),
                message: note.message.clone(),
            });
        }
        let order = if decision.needs_write(service) {
            let gives_up = service
                .assigned()
                .filter(|ip| !decision.ingress.contains(ip));
            let write = ServiceWrite {
                service: key.clone(),
                resource_version: service.resource_version.clone(),
                ingress: decision.ingress.clone(),
                pool: decision.pool_annotation.clone(),
            };
            Order::Write(Write::Service(write, gives_up.collect()))
        } else {
            Order::Settled(key.clone(), service.resource_version.clone())
        };
        let dirty = self.world.apply(Event::Decided {
            service: key.clone(),
            decision: Box::new(decision),
        });
        Some((dirty, order))
    }

    /// The metrics of configuration and pools, as they are now.
    fn count(&self) {
        self.metrics.set_config(self.world.verdicts().values());
        let allocator = self.world.allocator();
        self.metrics.set_pools(allocator.pools().map(|pool| {
            let counters = allocator.counters(&pool.name).unwrap_or_default();
            let services: BTreeSet<_> = allocator.users_of_pool(&pool.name).collect();
            (&*pool.name, counters, services.len())
        }));
    }

    /// Hands on which last good forms must outlive this process, when they have changed.
    fn keep(&self) {
        let kept = self.world.kept();
        self.outputs.accepted.send_if_modified(|known| {
            let changed = known.as_ref() != Some(&kept);
            *known = Some(kept);
            changed
        });
    }

    fn tell_configuration(&self, dirty: &Dirty) {
        let configuration = &self.outputs.configuration;
        if dirty.objects.is_empty() && configuration.borrow().is_some() {
            return;
        }
        let says = status::configuration(&self.world, &Says::Controller);
        configuration.send_if_modified(|known| {
            let changed = known.as_ref() != Some(&says);
            *known = Some(says);
            changed
        });
    }

    fn tell_verdicts(&self, dirty: &Dirty) {
        for object in &dirty.objects {
            if let Some(verdict) = self.world.verdicts().get(object) {
                crate::report::log_verdict(object, verdict);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_first_has_the_choice() {
        let key = |name: &&str| ServiceKey::new("default", name);
        let order = |arrived: &[&str], dirty: &[&str]| -> Vec<String> {
            let mut arrived = arrived.iter().map(key).collect();
            let turns = turns(&mut arrived, dirty.iter().map(key).collect());
            turns.map(|key| key.name.to_string()).collect()
        };
        let both = order(&["z", "gone", "b", "z"], &["a", "b", "c", "z"]);
        assert_eq!(both, ["z", "b", "a", "c"]);
        assert_eq!(order(&[], &["b", "a"]), ["a", "b"]);
    }
}
