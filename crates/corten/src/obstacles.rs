//! An event on the own Pod says what keeps the program from its work, as log and readiness do: a
//! missing kind, a missing right. `kubectl describe pod` shows it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};

use crate::status::Health;

/// What is in the way in two looks is no matter of an installation under way.
const LOOK: Duration = Duration::from_secs(2);

/// For ever: tells of what keeps this Pod from being ready, each time it changes.
pub(crate) async fn tell(client: Client, namespace: String, pod: String, health: Health) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let events: Api<Event> = Api::namespaced(client, &namespace);
    let mut look = tokio::time::interval(LOOK);
    let (mut before, mut told) = (Vec::new(), Vec::new());
    loop {
        look.tick().await;
        let now = match health.unready() {
            Some(_) => health.obstacles(),
            None => Vec::new(),
        };
        if now != before || now == told {
            before = now;
            continue;
        }
        if !now.is_empty() {
            // Without the right to read it the event has no UID, which some tools ask for.
            let found = pods.get_metadata(&pod).await;
            let uid = found.ok().and_then(|found| found.metadata.uid);
            let event = event(&namespace, &pod, uid, now.join("; "));
            if let Err(error) = events.create(&PostParams::default(), &event).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    remedy = "kubectl apply -f deploy/rbac.yaml",
                    "no event could be written about it; trying again"
                );
                continue;
            }
        }
        told = now;
    }
}

fn event(namespace: &str, pod: &str, uid: Option<String>, message: String) -> Event {
    let now = Timestamp::now();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{pod}.{:x}", now.as_nanosecond())),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.to_owned()),
            namespace: Some(namespace.to_owned()),
            uid,
            ..ObjectReference::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some("NotReady".to_owned()),
        message: Some(message),
        source: Some(EventSource {
            component: Some("corten".to_owned()),
            ..EventSource::default()
        }),
        reporting_component: Some("corten".to_owned()),
        reporting_instance: Some(pod.to_owned()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Event::default()
    }
}
