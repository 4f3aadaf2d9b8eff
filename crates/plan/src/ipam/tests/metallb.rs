//! What MetalLB's controller decided on random sequences of objects, replayed: after each step
//! every Service has the same addresses from the same pool.
//!
//! The files are written by the lab (`cargo run -p lab --example differential -- --record FILE`),
//! where both controllers ran side by side (MetalLB 0.16.1). A line is a step: objects that changed or
//! went, what Services show where that changed, and `chance`: Services for whom MetalLB's answer
//! hung on the order of a Go map.

use std::collections::BTreeMap;

use api::object::Object;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::ipam::decide;
use crate::world::{Dirty, Event, ServiceType, Settings, World};

const SEQUENCES: [(&str, &str); 2] = [
    ("1", include_str!("metallb/1.jsonl")),
    ("2", include_str!("metallb/2.jsonl")),
];

#[derive(Deserialize)]
struct Step {
    /// The controllers were started again.
    restart: bool,
    changed: Vec<Value>,
    gone: Vec<Value>,
    shown: BTreeMap<String, Shown>,
    chance: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct Shown {
    ips: Vec<IpAddr>,
    pool: Option<String>,
}

#[test]
fn recorded_sequences_end_the_same_at_every_step() {
    for (name, lines) in SEQUENCES {
        let mut replay = Replay::default();
        let mut shown = BTreeMap::new();
        let mut compared = 0;
        for (n, line) in lines.lines().enumerate() {
            let step: Step = serde_json::from_str(line).expect("a step");
            replay.play(&step);
            shown.extend(step.shown);
            shown.retain(|key, _| replay.services().contains_key(key));
            for (key, ours) in replay.services() {
                if step.chance.contains(&key) {
                    continue;
                }
                let theirs = shown.get(&key).cloned().unwrap_or_default();
                assert_eq!(
                    sorted(ours),
                    sorted(theirs),
                    "sequence {name}, step {n}: {key}"
                );
                compared += 1;
            }
        }
        assert!(compared > 100, "sequence {name} compares {compared} times");
    }
}

/// MetalLB puts two addresses that were asked for in the order of their texts.
fn sorted(mut shown: Shown) -> Shown {
    shown.ips.sort_unstable();
    shown
}

/// World as the controller's planner keeps it, and the objects that it was told.
struct Replay {
    world: World,
    objects: BTreeMap<String, Value>,
}

impl Default for Replay {
    fn default() -> Self {
        let mut world = World::new(Settings {
            namespace: "metallb-system".into(),
            ..Settings::default()
        });
        world.apply(Event::Synced);
        Self {
            world,
            objects: BTreeMap::new(),
        }
    }
}

impl Replay {
    fn play(&mut self, step: &Step) {
        for object in &step.gone {
            self.objects.remove(&name_of(object));
            let event = match event_of(object.clone()) {
                Event::Service { key, .. } => Event::Service { key, form: None },
                Event::Config { object, .. } => Event::Config { object, form: None },
                other => other,
            };
            self.tell(event);
        }
        for object in &step.changed {
            self.objects.insert(name_of(object), object.clone());
            self.tell(event_of(object.clone()));
        }
        if step.restart {
            self.restart();
        }
    }

    /// Another World, which reads what there is.
    fn restart(&mut self) {
        let fresh = World::new(self.world.settings().clone());
        let old = std::mem::replace(&mut self.world, fresh);
        for object in self.objects.values() {
            let mut event = event_of(object.clone());
            carry(&old, &mut event);
            self.world.apply(event);
        }
        let dirty = self.world.apply(Event::Synced);
        self.settle(dirty);
    }

    fn tell(&mut self, mut event: Event) {
        carry(&self.world, &mut event);
        let dirty = self.world.apply(event);
        self.settle(dirty);
    }

    /// Decides and writes until nothing is left to decide.
    fn settle(&mut self, mut dirty: Dirty) {
        while let Some(key) = dirty.services.pop_first() {
            let Some(service) = self.world.service(&key) else {
                continue;
            };
            let decision = decide(
                self.world.allocator(),
                service,
                self.world.namespace_labels(&key.namespace),
                &self.world.ipam_options(),
            );
            let written = decision.needs_write(service).then(|| {
                let mut written = service.clone();
                show(
                    &mut written,
                    &decision.ingress,
                    decision.pool_annotation.clone(),
                );
                written
            });
            dirty.extend(self.world.apply(Event::Decided {
                service: key.clone(),
                decision: Box::new(decision),
            }));
            if let Some(written) = written {
                let form = Some(Box::new(written));
                dirty.extend(self.world.apply(Event::Service { key, form }));
            }
        }
    }

    fn services(&self) -> BTreeMap<String, Shown> {
        let shown = |service: &Service| Shown {
            ips: service.assigned().collect(),
            pool: service.annotations.get(POOL).cloned(),
        };
        self.world
            .services()
            .map(|service| (service.key.to_string(), shown(service)))
            .collect()
    }
}

const POOL: &str = api::annotations::IP_ALLOCATED_FROM_POOL;

fn show(service: &mut Service, ips: &[IpAddr], pool: Option<Name>) {
    service.ingress = ips
        .iter()
        .map(|ip| Ingress {
            ip: Some(*ip),
            proxy: false,
        })
        .collect();
    match pool {
        Some(pool) => service
            .annotations
            .insert(POOL.to_owned(), pool.to_string()),
        None => service.annotations.remove(POOL),
    };
}

/// A recorded Service has no status: it is what was written last. The API server takes it from a
/// Service that is no balancer any more.
fn carry(world: &World, event: &mut Event) {
    if let Event::Service {
        key,
        form: Some(form),
    } = event
        && let Some(before) = world.service(key)
    {
        let ips: Vec<IpAddr> = match form.kind {
            ServiceType::LoadBalancer => before.assigned().collect(),
            _ => Vec::new(),
        };
        let pool = before
            .annotations
            .get(POOL)
            .map(|pool| pool.as_str().into());
        show(form, &ips, pool);
    }
}

fn name_of(object: &Value) -> String {
    let metadata = &object["metadata"];
    json!([object["kind"], metadata["namespace"], metadata["name"]]).to_string()
}

fn event_of(manifest: Value) -> Event {
    let object = Object::decode(manifest).expect("an object").object;
    match object {
        Object::Namespace(namespace) => Event::Namespace {
            name: namespace.metadata.name.into(),
            labels: Some(namespace.metadata.labels),
        },
        Object::Service(service) => {
            let form = Box::new(Service::from(service));
            Event::Service {
                key: form.key.clone(),
                form: Some(form),
            }
        }
        other => {
            let object = crate::config::Object::try_from(other).expect("a pool");
            world::tests::configured(object)
        }
    }
}
