//! Whether Corten is being removed from the cluster: `kubectl delete -f` and `helm uninstall` take
//! away pools and rights while processes still run, and that must not renumber Services.
//!
//! - The agent watches its DaemonSet and its namespace ([`Removal`]): when it is told to stop, its
//!   rights may be gone already, but an open watch goes on. Only a removal ends what it keeps in
//!   the kernel (design.md §4.8).
//! - The controller asks before a pool's end reaches its planner ([`Settled`]): whoever removes
//!   Corten marks namespace or Deployment first, so that a read after the pool's end sees it.
//! - After a reinstall Services have addresses, and no pool is there yet: the controller decides
//!   nothing until pools have come.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams, PartialObjectMeta};
use kube::{Client, Error};
use plan::config::ObjectKind;
use plan::world::Event;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::one;
use crate::source::{self, Source, Stopped};
use crate::status::Health;

/// Bounds of the time between two tries.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Between two looks while a removal goes on.
const AGAIN: Duration = Duration::from_secs(1);
/// Pools of one `kubectl apply` come faster after one another.
const TOGETHER: Duration = Duration::from_secs(1);

/// What an agent knows of its own removal. Its watches end with it.
#[derive(Debug)]
pub struct Removal {
    going: [watch::Receiver<bool>; 2],
    _watches: JoinSet<()>,
}

impl Removal {
    /// Watches the DaemonSet of this name and its namespace.
    #[must_use]
    pub fn watch(client: &Client, namespace: &str, daemon_set: &str) -> Self {
        let (of_set, set) = watch::channel(false);
        let (of_namespace, own) = watch::channel(false);
        let sets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let mut watches = JoinSet::new();
        watches.spawn(follow(sets, daemon_set.to_owned(), of_set));
        watches.spawn(follow(namespaces, namespace.to_owned(), of_namespace));
        Self {
            going: [set, own],
            _watches: watches,
        }
    }

    /// Whether one of them is going or gone.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.going.iter().any(|going| *going.borrow())
    }
}

/// For ever: tells whether the object is going or gone.
async fn follow<K>(objects: Api<K>, name: String, tell: watch::Sender<bool>)
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let seen = |object: Option<&PartialObjectMeta<K>>| {
        let going = object.is_none_or(|object| object.metadata.deletion_timestamp.is_some());
        tell.send_replace(going);
    };
    let failed = |error: &Error| {
        tracing::warn!(
            %name,
            error = error as &dyn std::error::Error,
            remedy = "kubectl apply -f deploy/rbac.yaml",
            "it cannot be watched: should Corten be removed now, its nftables table stays on \
             this node; trying again"
        );
    };
    one::follow(objects, &name, seen, failed).await;
}

/// A controller's source that lets no pool go while Corten is being removed.
#[derive(Debug)]
pub struct Settled<S> {
    source: S,
    guard: Guard,
    health: Health,
}

struct Guard {
    namespaces: Api<Namespace>,
    namespace: String,
    deployments: Api<Deployment>,
    /// Empty where there is none.
    deployment: String,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

impl<S> Settled<S> {
    /// Guards `source`; an empty `deployment` is none.
    pub fn new(
        source: S,
        client: &Client,
        namespace: &str,
        deployment: &str,
        health: &Health,
    ) -> Self {
        let guard = Guard {
            namespaces: Api::all(client.clone()),
            namespace: namespace.to_owned(),
            deployments: Api::namespaced(client.clone(), namespace),
            deployment: deployment.to_owned(),
        };
        Self {
            source,
            guard,
            health: health.clone(),
        }
    }
}

impl Guard {
    /// Whether Corten is being removed.
    async fn is_under_way(&self) -> Result<bool, Error> {
        // A list: that right is there already.
        let only = format!("metadata.name={}", self.namespace);
        let list = ListParams::default().fields(&only);
        let namespaces = self.namespaces.list_metadata(&list).await?;
        let mut found = namespaces.items.iter();
        if found.any(|namespace| namespace.metadata.deletion_timestamp.is_some()) {
            return Ok(true);
        }
        if self.deployment.is_empty() {
            return Ok(false);
        }
        let found = self.deployments.get_metadata_opt(&self.deployment).await?;
        Ok(found.is_none_or(|found| found.metadata.deletion_timestamp.is_some()))
    }

    /// Waits while a removal is under way, or nobody says that none is.
    async fn settle(&self) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut told = false;
        loop {
            match self.is_under_way().await {
                Ok(false) => return,
                Ok(true) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::info!("Corten is being removed: Services keep their addresses");
                    }
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        remedy = "kubectl apply -f deploy/rbac.yaml",
                        "cannot read the own namespace and Deployment; until then no pool counts \
                         as deleted"
                    );
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }
}

/// Whether a pool is there, by this.
fn is_pool(event: &Event) -> bool {
    matches!(
        event,
        Event::Config { object, form: Some(_) } if is_pool_kind(object.kind)
    )
}

fn is_pool_kind(kind: ObjectKind) -> bool {
    matches!(kind, ObjectKind::IPAddressPool | ObjectKind::AddressPool)
}

/// Services have addresses, but there is no pool yet: passes on what comes until pools have come,
/// all that are applied together.
async fn pools_first(
    events: &mut mpsc::Receiver<Event>,
    out: &mpsc::Sender<Event>,
    health: &Health,
    together: Duration,
) -> Result<(), Stopped> {
    tracing::info!(
        "Services have addresses, and there is no pool yet: they keep them until one is"
    );
    // It can be relied on: the webhook in front of the first pool is this process's.
    health.set_synced();
    // Since the last pool: other things, as nodes' heartbeats, come all the time.
    let mut until = None;
    loop {
        let event = match until {
            None => events.recv().await,
            Some(until) if Instant::now() >= until => return Ok(()),
            Some(until) => match tokio::time::timeout_at(until, events.recv()).await {
                Ok(event) => event,
                Err(_) => return Ok(()),
            },
        };
        let event = event.ok_or(Stopped)?;
        if is_pool(&event) {
            until = Some(Instant::now() + together);
        }
        source::tell(out, event).await?;
    }
}

/// Whether Services may lose addresses by it.
fn takes_away(event: &Event) -> bool {
    match event {
        Event::Config { object, form: None } => is_pool_kind(object.kind),
        // A pool that is not there any more.
        Event::Synced => true,
        _ => false,
    }
}

impl<S: Source> Source for Settled<S> {
    async fn run(self, out: mpsc::Sender<Event>) -> Stopped {
        let (told, mut events) = mpsc::channel(source::QUEUE);
        let guard = self.guard;
        let mut task = JoinSet::new();
        task.spawn(self.source.run(told));
        let (mut pools, mut holders) = (false, false);
        while let Some(event) = events.recv().await {
            if takes_away(&event) {
                guard.settle().await;
            }
            match &event {
                Event::Service {
                    form: Some(form), ..
                } => {
                    holders |= form.assigned().next().is_some();
                }
                Event::Synced if holders && !pools => {
                    if let Err(stopped) =
                        pools_first(&mut events, &out, &self.health, TOGETHER).await
                    {
                        return stopped;
                    }
                }
                event => pools |= is_pool(event),
            }
            if let Err(stopped) = source::tell(&out, event).await {
                return stopped;
            }
        }
        Stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_pools_that_come_together_come_before_the_end() {
        let pool = |name: &str| {
            let mut pool = api::metallb::v1beta1::IPAddressPool::default();
            pool.metadata.name = name.to_owned();
            let object = plan::config::Object::IPAddressPool(pool);
            Event::Config {
                object: object.reference(),
                form: Some(std::sync::Arc::new(object)),
            }
        };
        let (told, mut events) = mpsc::channel(8);
        let (out, mut passed) = mpsc::channel(8);
        told.send(pool("a")).await.expect("room");
        let alone = pools_first(&mut events, &out, &Health::default(), Duration::ZERO).await;
        assert!(alone.is_ok() && passed.recv().await == Some(pool("a")));
        // Who has something to say all the time does not keep the pools waiting.
        let beat = || Event::Node {
            name: "n".into(),
            form: None,
        };
        for event in [beat(), pool("a"), beat(), beat()] {
            told.send(event).await.expect("room");
        }
        let beside = pools_first(&mut events, &out, &Health::default(), Duration::ZERO).await;
        assert!(beside.is_ok() && events.len() == 2, "{}", events.len());
        assert_eq!(passed.recv().await, Some(beat()));
        assert_eq!(passed.recv().await, Some(pool("a")));
        while events.try_recv().is_ok() {}
        let health = Health::default();
        let waiting = tokio::spawn({
            let health = health.clone();
            async move {
                let hour = Duration::from_secs(3600);
                pools_first(&mut events, &out, &health, hour).await.is_ok()
            }
        });
        for event in [beat(), pool("a"), pool("b")] {
            assert!(!waiting.is_finished());
            told.send(event.clone()).await.expect("room");
            assert_eq!(passed.recv().await, Some(event));
        }
        assert_eq!(health.unready(), None);
        drop(told);
        assert!(!waiting.await.expect("no panic"), "the source has ended");
    }

    #[test]
    fn only_what_takes_addresses_away_is_asked_about() {
        let gone = |kind| Event::Config {
            object: plan::config::ObjectRef {
                kind,
                namespace: "metallb-system".into(),
                name: "a".into(),
            },
            form: None,
        };
        assert!(takes_away(&gone(ObjectKind::IPAddressPool)));
        assert!(takes_away(&gone(ObjectKind::AddressPool)));
        assert!(takes_away(&Event::Synced));
        assert!(!takes_away(&gone(ObjectKind::L2Advertisement)));
    }
}
