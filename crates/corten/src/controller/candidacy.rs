//! Whether this replica may stand for election: not while a controller of MetalLB runs beside, which
//! would give addresses of its own (docs/adr/0009). Before its Pods are known, nobody stands.

use api::core::Pod;
use api::object::Object;
use kube::Client;
use plan::world::{PodKey, Rival, Rivals};
use tokio::sync::watch;

use crate::http::Metrics;
use crate::source::kube::{NOT_OURS, Observed, Scope, Seen};
use crate::status::Health;

/// What is known of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidacy {
    /// The Pods have not been read yet.
    Unknown,
    /// MetalLB's controller runs.
    StandsBy,
    /// Nothing is in the way.
    Stands,
}

/// Looks at the Pods of `namespace` until nobody listens.
pub async fn follow(
    client: Client,
    namespace: String,
    health: Health,
    metrics: Metrics,
    tell: watch::Sender<Candidacy>,
) {
    let scope = Scope {
        namespace: Some(namespace),
        labels: Some(NOT_OURS.to_owned()),
        health: Some(health.clone()),
        ..Scope::default()
    };
    let mut pods = Observed::start::<Pod>(client, scope);
    let mut rivals = Rivals::default();
    let mut listed = false;
    let mut told = None;
    loop {
        let seen = tokio::select! {
            seen = pods.next() => seen,
            () = tell.closed() => return,
        };
        let Some(seen) = seen else { return };
        match seen {
            Seen::Applied(Object::Pod(pod)) => rivals.set(key(&pod), Rival::of(&pod)),
            Seen::Gone(Object::Pod(pod)) => rivals.set(key(&pod), None),
            Seen::Applied(_) | Seen::Gone(_) => {}
            Seen::Listed => listed = true,
        }
        if !listed {
            continue;
        }
        let why = rivals.over_controller();
        if why != told {
            match &why {
                Some(why) => tracing::warn!("{why}"),
                None => tracing::info!("no controller of MetalLB runs any more"),
            }
            metrics.standing_by.set(i64::from(why.is_some()));
            health.set_standing_by(why.clone());
        }
        let now = match why {
            Some(_) => Candidacy::StandsBy,
            None => Candidacy::Stands,
        };
        told = why;
        tell.send_if_modified(|known| std::mem::replace(known, now) != now);
    }
}

fn key(pod: &Pod) -> PodKey {
    PodKey::new(&pod.metadata.namespace, &pod.metadata.name)
}
