//! The Kubernetes API server as a source: one watch per kind, merged into one stream of events.

mod kinds;
mod observe;
mod watch;

use std::collections::HashSet;

use kube::Client;
use plan::world::Event;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{QUEUE, Source, Stopped, kinds as events, tell};
pub(crate) use observe::{Observed, Seen};
pub(crate) use watch::Watched;
pub(crate) use watch::{Scope, path};
use watch::{Told, Watch};

use crate::status::Health;

/// Selects Pods that are not Corten's.
pub(crate) const NOT_OURS: &str = "!corten.dev/component";

/// Whose facts are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Configuration, Services, Nodes, Namespaces, the cluster's ranges.
    Controller,
    /// Configuration, Services, Nodes, endpoints, what the agents say, MetalLB's Pods.
    Agent,
}

/// The API server as a source.
pub struct KubeSource {
    client: Client,
    namespace: String,
    role: Role,
    /// An agent asks for the ranges of cluster IPs too.
    proxy: bool,
    health: Option<Health>,
}

impl std::fmt::Debug for KubeSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeSource")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl KubeSource {
    /// A source for `role`; configuration objects are read from `namespace` alone.
    pub fn new(client: Client, namespace: &str, role: Role) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            role,
            proxy: false,
            health: None,
        }
    }

    /// The same for an agent that works in a service proxy's place, or not.
    #[must_use]
    pub fn of_proxy(self, proxy: bool) -> Self {
        Self { proxy, ..self }
    }

    /// The same, which tells what keeps kinds from being read.
    #[must_use]
    pub fn telling(self, health: &Health) -> Self {
        Self {
            health: Some(health.clone()),
            ..self
        }
    }
}

/// The watches of one source.
struct Watches {
    client: Client,
    tasks: JoinSet<()>,
    out: mpsc::Sender<Told>,
    /// Kinds whose first list has not been told yet.
    awaited: HashSet<&'static str>,
}

impl Watches {
    fn add<T: Watched>(&mut self, scope: Scope) {
        self.awaited.insert(T::KIND);
        self.tasks
            .spawn(Watch::<T>::new(self.client.clone(), scope, self.out.clone()).run());
    }
}

impl Source for KubeSource {
    async fn run(self, out: mpsc::Sender<Event>) -> Stopped {
        use api::core::{EndpointSlice, Namespace, Node, Pod, Secret, Service, ServiceCIDR};
        use api::corten::v1alpha1::{AcceptedConfig, AddressPool, Advertisement, NodeState, Peer};
        use api::metallb::{v1beta1, v1beta2};

        let (told, mut steps) = mpsc::channel(QUEUE);
        let mut watches = Watches {
            client: self.client,
            tasks: JoinSet::new(),
            out: told,
            awaited: HashSet::new(),
        };
        let all = || Scope {
            health: self.health.clone(),
            ..Scope::default()
        };
        let own = Scope {
            namespace: Some(self.namespace),
            ..all()
        };
        // Controller and agents judge the same objects, so that they come to the same verdicts.
        watches.add::<v1beta1::IPAddressPool>(own.clone());
        watches.add::<v1beta1::Community>(own.clone());
        watches.add::<v1beta1::L2Advertisement>(own.clone());
        watches.add::<v1beta1::BGPAdvertisement>(own.clone());
        watches.add::<v1beta1::BFDProfile>(own.clone());
        watches.add::<v1beta2::BGPPeer>(own.clone());
        watches.add::<AddressPool>(own.clone());
        watches.add::<Advertisement>(own.clone());
        watches.add::<Peer>(own.clone());
        watches.add::<AcceptedConfig>(own.clone());
        // Peers name Secrets. Without the right to list them none is known, and those peers alone
        // are not in force.
        watches.add::<Secret>(Scope {
            optional: true,
            ..own.clone()
        });
        watches.add::<Service>(all());
        watches.add::<Node>(all());
        if self.role == Role::Controller || self.proxy {
            let without = "connections to addresses of theirs that no Service has are not dropped; \
                           remedy: give the agents' role that right, as the chart does with \
                           forward=all";
            // Since Kubernetes 1.33.
            watches.add::<ServiceCIDR>(Scope {
                optional: true,
                without: self.proxy.then_some(without),
                ..all()
            });
        }
        match self.role {
            Role::Controller => {
                watches.add::<Namespace>(all());
            }
            Role::Agent => {
                watches.add::<EndpointSlice>(all());
                watches.add::<NodeState>(all());
                watches.add::<Pod>(Scope {
                    labels: Some(NOT_OURS.to_owned()),
                    ..own
                });
            }
        }
        let mut awaited = std::mem::take(&mut watches.awaited);
        while let Some(told) = steps.recv().await {
            let mut event = match told {
                Told::Applied(object) => match events::applied(*object) {
                    Some(event) => event,
                    None => continue,
                },
                Told::Gone(object) => match events::gone(&object) {
                    Some(event) => event,
                    None => continue,
                },
                Told::Listed(kind) => {
                    if !awaited.remove(kind) || !awaited.is_empty() {
                        continue;
                    }
                    Event::Synced
                }
            };
            // Only who writes to Services asks for it; to an agent a write that changes nothing else
            // is none.
            if let (
                Role::Agent,
                Event::Service {
                    form: Some(form), ..
                },
            ) = (self.role, &mut event)
            {
                form.resource_version = plan::name::Name::default();
            }
            if let Err(stopped) = tell(&out, event).await {
                return stopped;
            }
        }
        Stopped
    }
}
