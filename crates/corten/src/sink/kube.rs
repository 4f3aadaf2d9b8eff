//! Writes to the Kubernetes API: status by merge patch fenced by resourceVersion, events with
//! counts instead of copies, `NodeState` by server-side apply.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::Kind;
use api::annotations::IP_ALLOCATED_FROM_POOL;
use api::core::Service;
use api::corten::v1alpha1::{AcceptedConfig, AcceptedConfigSpec, NodeState, NodeStateStatus};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::Request;
use kube::{Client, Error};
use plan::name::ServiceKey;
use serde_json::json;
use tokio::sync::Mutex;

use super::board::Board;
use super::{Report, ServiceWrite, Sink, Subject, WriteError};
use crate::source::kube::path;

/// Field manager of everything we write.
pub(super) const MANAGER: &str = "corten";
/// The namespace of events about objects that have none.
const NOWHERE: &str = "default";
/// How many different events are remembered, to count repetitions instead of copying them.
const REMEMBERED: usize = 4096;

/// The Kubernetes API as a sink.
#[derive(Clone)]
pub struct KubeSink {
    client: Client,
    /// Host name in events.
    host: Arc<str>,
    /// Where our own objects live.
    namespace: Arc<str>,
    /// By the report's fingerprint.
    reported: Arc<Mutex<HashMap<u64, Told>>>,
    board: Option<Board>,
}

impl std::fmt::Debug for KubeSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeSink")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// An event that the API server has.
#[derive(Clone, Debug)]
struct Told {
    name: String,
    count: i32,
}

/// How long the API server may take for one request: a connection whose other end is gone says
/// nothing.
const ANSWER: Duration = Duration::from_secs(10);

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error(transparent)]
    Kube(#[from] Error),
    #[error("the API server did not answer in {ANSWER:?}")]
    Silent,
}

/// The answer to a request, if it comes in time.
pub(super) async fn answer<T>(
    request: impl Future<Output = Result<T, Error>>,
) -> Result<T, RequestError> {
    match tokio::time::timeout(ANSWER, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(RequestError::Silent),
    }
}

/// What a request's failure means for its write.
pub(super) fn judge(error: RequestError) -> WriteError {
    match &error {
        RequestError::Kube(Error::Api(status)) => match status.code {
            404 | 409 => WriteError::Outdated,
            // Not yet, or no longer, allowed to: rights can be given.
            401 | 403 | 408 | 429 | 500.. => failed(error),
            _ => WriteError::Refused(Box::new(error)),
        },
        _ => failed(error),
    }
}

pub(super) fn failed(error: impl std::error::Error + Send + Sync + 'static) -> WriteError {
    WriteError::Failed(Box::new(error))
}

impl KubeSink {
    /// A sink that reports as `host`; our own objects are in `namespace`.
    pub fn new(client: Client, host: &str, namespace: &str) -> Self {
        Self {
            client,
            host: host.into(),
            namespace: namespace.into(),
            reported: Arc::default(),
            board: None,
        }
    }

    /// The same, which also puts up how things are.
    #[must_use]
    pub fn on(self, board: Board) -> Self {
        Self {
            board: Some(board),
            ..self
        }
    }

    fn event(&self, report: &Report, now: Time, name: &str) -> Event {
        let subject = ObjectReference {
            api_version: Some("v1".to_owned()),
            ..ObjectReference::default()
        };
        let involved_object = match &report.about {
            Subject::Service { key, uid } => ObjectReference {
                kind: Some("Service".to_owned()),
                name: Some(key.name.to_string()),
                namespace: Some(key.namespace.to_string()),
                uid: Some(uid.to_string()),
                ..subject
            },
            // As the kubelet's: `kubectl describe node` asks for the name as UID too.
            Subject::Node(node) => ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(node.to_string()),
                uid: Some(node.to_string()),
                ..subject
            },
        };
        Event {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(place(&report.about).0.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object,
            type_: Some(if report.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(report.reason.to_owned()),
            message: Some(report.message.clone()),
            source: Some(EventSource {
                component: Some(report.component.as_str().to_owned()),
                host: (!self.host.is_empty()).then(|| self.host.to_string()),
            }),
            reporting_component: Some(report.component.as_str().to_owned()),
            reporting_instance: Some(self.host.to_string()),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            count: Some(1),
            ..Event::default()
        }
    }

    /// The event was told before: counts it. False when the API server no longer has it.
    async fn count_up(
        &self,
        events: &Api<Event>,
        told: &Told,
        now: &Time,
    ) -> Result<bool, WriteError> {
        let patch = json!({ "count": told.count, "lastTimestamp": now });
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        match answer(events.patch(&told.name, &params, &patch)).await {
            Ok(_) => Ok(true),
            Err(error) => match judge(error) {
                WriteError::Outdated => Ok(false),
                error => Err(error),
            },
        }
    }
}

/// Where events about it are, and what their names begin with. Those about what has no namespace are
/// in `default`.
fn place(about: &Subject) -> (&str, &str) {
    match about {
        Subject::Service { key, .. } => (&key.namespace, &key.name),
        Subject::Node(node) => (NOWHERE, node),
    }
}

impl Sink for KubeSink {
    fn board(&self) -> Option<Board> {
        self.board.clone()
    }

    async fn write_service(&self, write: &ServiceWrite) -> Result<(), WriteError> {
        // What the API server would fill in: written, so that what is decided is all there is.
        let entries = write.ingress.iter();
        let ingress: Vec<_> = entries
            .map(|ip| json!({ "ip": ip, "ipMode": "VIP" }))
            .collect();
        let patch = json!({
            "metadata": {
                "resourceVersion": &*write.resource_version,
                "annotations": { IP_ALLOCATED_FROM_POOL: write.pool.as_deref() },
            },
            "status": { "loadBalancer": { "ingress": ingress } },
        });
        let request = Request::new(path::<Service>(Some(&write.service.namespace)))
            .patch_subresource(
                "status",
                &write.service.name,
                &PatchParams {
                    field_manager: Some(MANAGER.to_owned()),
                    ..PatchParams::default()
                },
                &Patch::Merge(patch),
            )
            .map_err(failed)?;
        answer(self.client.request_text(request))
            .await
            .map(drop)
            .map_err(judge)
    }

    async fn forget_service(&self, _: &ServiceKey) -> Result<(), WriteError> {
        // The status went with the object.
        Ok(())
    }

    async fn report(&self, report: &Report, at: SystemTime) -> Result<(), WriteError> {
        let (namespace, about) = place(&report.about);
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let at = Timestamp::try_from(at).unwrap_or_else(|_| Timestamp::now());
        let time = Time(at);
        let print = {
            let mut hasher = DefaultHasher::new();
            report.hash(&mut hasher);
            hasher.finish()
        };
        let known = self.reported.lock().await.get(&print).cloned();
        if let Some(mut told) = known {
            told.count += 1;
            if self.count_up(&events, &told, &time).await? {
                self.reported.lock().await.insert(print, told);
                return Ok(());
            }
        }
        let (hash, at) = (print >> 32, at.as_nanosecond());
        let name = format!("{about}.{hash:x}{at:x}");
        let event = self.event(report, time, &name);
        match answer(events.create(&PostParams::default(), &event)).await {
            Ok(_) => {}
            // The answer to an earlier try was lost.
            Err(RequestError::Kube(Error::Api(status))) if status.code == 409 => {}
            // The namespace is going away, or has gone.
            Err(RequestError::Kube(Error::Api(status)))
                if status.code == 404 || status.message.contains("being terminated") =>
            {
                return Err(WriteError::Outdated);
            }
            Err(error) => return Err(judge(error)),
        }
        let mut reported = self.reported.lock().await;
        if reported.len() >= REMEMBERED {
            // A new event instead of a count: harmless, and memory stays bounded.
            reported.clear();
        }
        reported.insert(print, Told { name, count: 1 });
        Ok(())
    }

    async fn keep(&self, accepted: &AcceptedConfigSpec) -> Result<(), WriteError> {
        let object = json!({
            "apiVersion": AcceptedConfig::api_version(),
            "kind": AcceptedConfig::KIND,
            "metadata": { "name": AcceptedConfig::NAME, "namespace": &*self.namespace },
            // Written out where it is empty: an apply that leaves it out makes spec null, which is
            // refused.
            "spec": { "objects": accepted.objects },
        });
        let params = PatchParams::apply(MANAGER).force();
        let request = Request::new(path::<AcceptedConfig>(Some(&self.namespace)))
            .patch(AcceptedConfig::NAME, &params, &Patch::Apply(&object))
            .map_err(failed)?;
        answer(self.client.request_text(request))
            .await
            .map(drop)
            .map_err(judge)
    }

    async fn publish(&self, node: &str, state: &NodeStateStatus) -> Result<(), WriteError> {
        let params = PatchParams::apply(MANAGER).force();
        let collection = Request::new(path::<NodeState>(None));
        let object = json!({
            "apiVersion": "corten.dev/v1alpha1",
            "kind": "NodeState",
            "metadata": { "name": node },
        });
        let request = collection
            .patch(node, &params, &Patch::Apply(&object))
            .map_err(failed)?;
        answer(self.client.request_text(request))
            .await
            .map_err(judge)?;
        let mut object = object;
        object["status"] = serde_json::to_value(state).map_err(failed)?;
        let request = collection
            .patch_subresource("status", node, &params, &Patch::Apply(&object))
            .map_err(failed)?;
        answer(self.client.request_text(request))
            .await
            .map(drop)
            .map_err(judge)
    }
}
