//! Events on the own Pod say what keeps the program from its work, as log and readiness do: a
//! missing kind, a missing right, MetalLB beside. `kubectl describe pod` shows them.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};

use crate::status::Health;

/// What is in the way in two looks is no matter of an installation under way.
const LOOK: Duration = Duration::from_secs(2);

/// Something that is told each time it changes.
struct Topic {
    /// The event's reason.
    reason: &'static str,
    /// Reason and text once it is over; nothing is said of most.
    over: Option<(&'static str, &'static str)>,
    before: Option<String>,
    told: Option<String>,
}

impl Topic {
    const fn new(reason: &'static str, over: Option<(&'static str, &'static str)>) -> Self {
        Self {
            reason,
            over,
            before: None,
            told: None,
        }
    }

    /// What is due to be told, seeing `now`: type, reason and text of an event, or only that
    /// nothing is to be said of the change.
    fn look(&mut self, now: &Option<String>) -> Option<(&'static str, &'static str, String)> {
        if *now != self.before || *now == self.told {
            self.before.clone_from(now);
            return None;
        }
        match (now, self.over) {
            (Some(text), _) => Some(("Warning", self.reason, text.clone())),
            (None, Some((reason, text))) => Some(("Normal", reason, text.to_owned())),
            (None, None) => {
                self.told = None;
                None
            }
        }
    }
}

/// For ever: tells of what keeps this Pod from being ready, and from doing all that it could, each
/// time it changes.
pub(crate) async fn tell(client: Client, namespace: String, pod: String, health: Health) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let events: Api<Event> = Api::namespaced(client, &namespace);
    let mut look = tokio::time::interval(LOOK);
    let mut not_ready = Topic::new("NotReady", None);
    let mut hindered = Topic::new("Hindered", None);
    let over = ("TakingOver", "MetalLB is gone: no longer standing by");
    let mut standing_by = Topic::new("StandingBy", Some(over));
    loop {
        look.tick().await;
        let obstacles = health.obstacles();
        let obstacles = (!obstacles.is_empty()).then(|| obstacles.join("; "));
        let (obstacles, hinders) = match health.unready() {
            Some(_) => (obstacles, None),
            None => (None, obstacles),
        };
        for (topic, now) in [
            (&mut not_ready, obstacles),
            (&mut hindered, hinders),
            (&mut standing_by, health.standing_by()),
        ] {
            let Some((kind, reason, text)) = topic.look(&now) else {
                continue;
            };
            // Without the right to read it the event has no UID, which some tools ask for.
            let found = pods.get_metadata(&pod).await;
            let uid = found.ok().and_then(|found| found.metadata.uid);
            let event = event(&namespace, &pod, uid, (kind, reason, text));
            if let Err(error) = events.create(&PostParams::default(), &event).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    remedy = "kubectl apply -f deploy/rbac.yaml",
                    "no event could be written about it; trying again"
                );
                continue;
            }
            topic.told = now;
        }
    }
}

fn event(
    namespace: &str,
    pod: &str,
    uid: Option<String>,
    (kind, reason, message): (&str, &str, String),
) -> Event {
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
        type_: Some(kind.to_owned()),
        reason: Some(reason.to_owned()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_told_once_and_so_is_its_end() {
        let mut topic = Topic::new("StandingBy", Some(("TakingOver", "gone")));
        let mut told = Vec::new();
        for now in ["", "a", "", "a", "a", "a", "b", "b", "", ""] {
            let now = (!now.is_empty()).then(|| now.to_owned());
            if let Some((_, reason, text)) = topic.look(&now) {
                told.push(format!("{reason} {text}"));
                topic.told = now;
            }
        }
        assert_eq!(told, ["StandingBy a", "StandingBy b", "TakingOver gone"]);
        let mut quiet = Topic::new("NotReady", None);
        let a = Some("a".to_owned());
        assert!(quiet.look(&a).is_none() && quiet.look(&a).is_some());
        quiet.told = a;
        assert!(quiet.look(&None).is_none() && quiet.look(&None).is_none());
        assert_eq!(quiet.told, None, "should it come again it is told again");
    }
}
