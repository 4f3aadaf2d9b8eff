//! The planner's word on what this node announces and what it makes of the configuration.

use std::net::IpAddr;

use plan::announce::l2::Announcement;
use plan::name::Name;
use plan::status::{self, Announced, Component, Configuration};
use plan::world::{Dirty, Event, World};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::AgentError;
use crate::sink::board::Board;
use crate::source::QUEUE;
use crate::statuses::{configuration, services};

/// The planner's end.
#[derive(Debug)]
pub(super) struct Statuses {
    component: Component,
    announced: Announced,
    /// `None` where there is no board.
    services: Option<mpsc::Sender<services::Told>>,
    configuration: watch::Sender<Option<Configuration>>,
    /// The node has changed: other objects may concern it now.
    node_changed: bool,
    settled: bool,
}

impl Statuses {
    /// Starts the tasks. The handle ends the one that puts announcements up: an agent that leaves
    /// must not mend what its successors change.
    pub(super) fn start(
        board: Option<Board>,
        node: &Name,
        tasks: &mut JoinSet<Result<(), AgentError>>,
    ) -> (Self, Option<AbortHandle>) {
        let component = Component::Speaker(node.clone());
        let (configuration_in, configuration) = watch::channel(None);
        let (services, handle) = match board {
            None => (None, None),
            Some(board) => {
                let (told_in, told) = mpsc::channel(QUEUE);
                let (speaker, node) = (component.clone(), node.clone());
                let states = board.clone();
                tasks.spawn(async move {
                    configuration::run(states, speaker, configuration, || true).await;
                    Ok(())
                });
                // In a task of its own: its end by the handle is no failure of the agent.
                let task = tokio::spawn(services::run(board, node, told));
                let handle = task.abort_handle();
                tasks.spawn(async move {
                    match task.await {
                        Err(ended) if ended.is_cancelled() => std::future::pending().await,
                        Err(failed) => Err(AgentError::Task(failed.to_string())),
                        Ok(()) => Ok(()),
                    }
                });
                (Some(told_in), Some(handle))
            }
        };
        let statuses = Self {
            component,
            announced: Announced::default(),
            services,
            configuration: configuration_in,
            node_changed: false,
            settled: false,
        };
        (statuses, handle)
    }

    /// Looks at an event before World takes it in.
    pub(super) fn notice(&mut self, event: &Event) {
        if let (Event::Node { name, .. }, Component::Speaker(node)) = (event, &self.component) {
            self.node_changed |= name == node;
        }
    }

    /// Says what the configuration is worth, when that may have changed.
    pub(super) fn judge(&mut self, world: &World, dirty: &Dirty) {
        let known = self.configuration.borrow().is_some();
        if known && dirty.objects.is_empty() && !std::mem::take(&mut self.node_changed) {
            return;
        }
        let says = status::configuration(world, &self.component);
        self.configuration.send_if_modified(|known| {
            let changed = known.as_ref() != Some(&says);
            *known = Some(says);
            changed
        });
    }

    /// `address` is announced so from now on, or no longer: the ports have acknowledged it.
    pub(super) async fn set(&mut self, address: IpAddr, announcement: Option<Announcement>) {
        let Some(services) = &self.services else {
            return;
        };
        for service in self.announced.set(address, announcement) {
            let interfaces = self.announced.interfaces(&service);
            let told = services::Told::Announced(service, interfaces);
            let _ = services.send(told).await;
        }
    }

    /// All that could be announced after the start is: what an earlier process put up and this one
    /// does not want may go.
    pub(super) async fn settle(&mut self) {
        if self.settled {
            return;
        }
        self.settled = true;
        if let Some(services) = &self.services {
            let _ = services.send(services::Told::Settled).await;
        }
    }
}
