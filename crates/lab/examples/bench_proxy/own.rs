//! Corten without an API server: World, its plan and the kernel in this process, from the events
//! that the source would give. Nothing is decoded.

use std::collections::BTreeMap;
use std::time::Instant;

use dataplane::nft::Nft;
use plan::desired::{Agent, Desired};
use plan::forward::{Mode, NodePorts, PortKey, ServicePort, Sources};
use plan::net::Family;
use plan::world::{Dirty, Event, Settings, World};

use crate::Fault;
use crate::gate::Gate;
use crate::objects::{events, gone};

/// The agent's inside on a gate.
pub(crate) struct Own {
    world: World,
    desired: Desired,
    agent: Agent,
    nft: Nft,
    families: Vec<Family>,
}

type Ports = Vec<(PortKey, Option<ServicePort>)>;

impl Own {
    /// Loads so many Services into an empty kernel; seconds from the first event to the last
    /// element.
    pub(crate) fn load(
        gate: &Gate,
        services: u32,
        endpoints: u32,
        families: &[Family],
    ) -> Result<(Self, f64), Fault> {
        let told: Vec<Event> = (0..services)
            .flat_map(|n| events(n, endpoints, families))
            .collect();
        let nft = gate.node.run(Nft::open)??;
        let mut own = Self {
            world: World::new(Settings {
                namespace: "metallb-system".into(),
                ..Settings::default()
            }),
            desired: Desired::default(),
            agent: Agent {
                node: gate.node.name().into(),
                mode: Mode::All,
                sources: Sources::default(),
                node_ports: NodePorts::default(),
            },
            nft,
            families: families.to_vec(),
        };
        let start = Instant::now();
        let table: BTreeMap<PortKey, ServicePort> = own
            .plan(told.into_iter().chain([Event::Synced]))
            .into_iter()
            .filter_map(|(key, port)| Some((key, port?)))
            .collect();
        let report = own.nft.adopt(&table)?;
        let seconds = start.elapsed().as_secs_f64();
        let expected = services as usize * families.len();
        if table.len() != expected || !report.refused.is_empty() {
            return Err(format!("{} of {expected} ports: {report:?}", table.len()).into());
        }
        Ok((own, seconds))
    }

    fn plan(&mut self, events: impl IntoIterator<Item = Event>) -> Ports {
        let mut dirty = Dirty::default();
        for event in events {
            dirty.extend(self.world.apply(event));
        }
        let changes = self.desired.replan(&self.world, &self.agent, &dirty);
        changes.forward.into_iter().collect()
    }

    /// A Service comes, and goes again; milliseconds for its coming, from event to kernel.
    pub(crate) fn one(&mut self, n: u32, endpoints: u32) -> Result<f64, Fault> {
        let families = self.families.clone();
        let told = events(n, endpoints, &families);
        let start = Instant::now();
        let ports = self.plan(told);
        let report = self.nft.apply(&ports)?;
        let ms = start.elapsed().as_secs_f64() * 1e3;
        if report.added == 0 || report.batches != 1 {
            return Err(format!("one Service more: {report:?}").into());
        }
        let ports = self.plan(gone(n, &families));
        self.nft.apply(&ports)?;
        Ok(ms)
    }

    /// Takes everything out of the kernel.
    pub(crate) fn remove(mut self) -> Result<(), Fault> {
        Ok(self.nft.remove()?)
    }
}
