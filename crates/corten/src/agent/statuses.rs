//! The planner's word on what this node announces and what it makes of the configuration.

use std::net::IpAddr;

use api::metallb::{ServiceBGPStatusStatus, ServiceL2StatusStatus};
use plan::announce::l2::Announcement;
use plan::name::{Name, ServiceKey};
use plan::status::{self, Announced, Component, Configuration, Peers};
use plan::world::{Dirty, Event, World};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::AgentError;
use crate::sink::board::Board;
use crate::source::QUEUE;
use crate::statuses::services::Word;
use crate::statuses::{configuration, services};

/// The planner's end.
#[derive(Debug)]
pub(super) struct Statuses {
    component: Component,
    node: Name,
    announced: Announced,
    /// Layer 2 and BGP; `None` where there is no board.
    services: Option<mpsc::Sender<services::Told>>,
    routes: Option<mpsc::Sender<services::Told>>,
    configuration: watch::Sender<Option<Configuration>>,
    /// The node has changed: other objects may concern it now.
    node_changed: bool,
    settled: bool,
    routes_settled: bool,
}

/// The tasks that put announcements up. They end first: an agent that leaves must not mend what
/// its successors change.
#[derive(Debug, Default)]
pub(super) struct Mending(Vec<AbortHandle>);

impl Mending {
    pub(super) fn end(self) {
        for task in self.0 {
            task.abort();
        }
    }

    fn start<S: Word>(
        &mut self,
        board: Board,
        node: Name,
        tasks: &mut JoinSet<Result<(), AgentError>>,
    ) -> mpsc::Sender<services::Told> {
        let (told_in, told) = mpsc::channel(QUEUE);
        // In a task of its own: its end by the handle is no failure of the agent.
        let task = tokio::spawn(services::run::<S>(board, node, told));
        self.0.push(task.abort_handle());
        tasks.spawn(async move {
            match task.await {
                Err(ended) if ended.is_cancelled() => std::future::pending().await,
                Err(failed) => Err(AgentError::Task(failed.to_string())),
                Ok(()) => Ok(()),
            }
        });
        told_in
    }
}

impl Statuses {
    /// Starts the tasks.
    pub(super) fn start(
        board: Option<Board>,
        node: &Name,
        tasks: &mut JoinSet<Result<(), AgentError>>,
    ) -> (Self, Mending) {
        let component = Component::Speaker(node.clone());
        let (configuration_in, configuration) = watch::channel(None);
        let mut mending = Mending::default();
        let (mut services, mut routes) = (None, None);
        if let Some(board) = board {
            let (speaker, states) = (component.clone(), board.clone());
            tasks.spawn(async move {
                configuration::run(states, speaker, configuration, || true).await;
                Ok(())
            });
            services =
                Some(mending.start::<ServiceL2StatusStatus>(board.clone(), node.clone(), tasks));
            routes = Some(mending.start::<ServiceBGPStatusStatus>(board, node.clone(), tasks));
        }
        let statuses = Self {
            component,
            node: node.clone(),
            announced: Announced::default(),
            services,
            routes,
            configuration: configuration_in,
            node_changed: false,
            settled: false,
            routes_settled: false,
        };
        (statuses, mending)
    }

    /// Looks at an event before World takes it in.
    pub(super) fn notice(&mut self, event: &Event) {
        if let Event::Node { name, .. } = event {
            self.node_changed |= *name == self.node;
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
            let told = services::Told::Announced(service, interfaces.map(Into::into));
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

    /// The peers that the routes of `service` have been handed to; `None`: there are none.
    pub(super) async fn advertised(&mut self, service: ServiceKey, peers: Option<Peers>) {
        let Some(routes) = &self.routes else {
            return;
        };
        let _ = routes.send(services::Told::Announced(service, peers)).await;
    }

    /// The same as [`Self::settle`] for routes.
    pub(super) async fn settle_routes(&mut self) {
        if std::mem::replace(&mut self.routes_settled, true) {
            return;
        }
        if let Some(routes) = &self.routes {
            let _ = routes.send(services::Told::Settled).await;
        }
    }
}
