//! The objects that say how things are, in the Kubernetes API: pool statuses,
//! `ConfigurationState`, `ServiceL2Status` and `ServiceBGPStatus`. A directory has no such board; there the log and the
//! metrics say the same.

use std::sync::Arc;

use api::annotations::{LABEL_NODE, LABEL_SERVICE_NAME, LABEL_SERVICE_NAMESPACE};
use api::corten::v1alpha1::{AddressPool, Advertisement, Peer};
use api::meta::{ObjectMeta, OwnerReference};
use api::metallb::{
    ConfigurationState, ConfigurationStateStatus, IPAddressPool, IPAddressPoolStatus,
};
use kube::Client;
use kube::api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::request::Error as BuildError;
use kube::core::{ObjectList, Request};
use plan::config::{ObjectKind, ObjectRef};
use plan::name::ServiceKey;
use plan::status::Component;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::WriteError;
use super::kube::{MANAGER, answer, failed, judge};
use crate::source::kube::{Observed, Scope, path};
use crate::statuses::services::Word;

/// The board of one component.
#[derive(Clone)]
pub struct Board {
    client: Client,
    namespace: Arc<str>,
    pod: Option<Arc<str>>,
    /// The Pod, once it was found.
    owner: Arc<OnceCell<OwnerReference>>,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board")
            .field("namespace", &self.namespace)
            .field("pod", &self.pod)
            .finish_non_exhaustive()
    }
}

/// Any object's metadata.
#[derive(Clone, Debug, Deserialize)]
struct Named {
    metadata: ObjectMeta,
}

impl Board {
    /// A board in `namespace`; what is put up belongs to `pod`, where that is known and exists.
    pub fn new(client: Client, namespace: &str, pod: Option<&str>) -> Self {
        Self {
            client,
            namespace: namespace.into(),
            pod: pod.filter(|pod| !pod.is_empty()).map(Into::into),
            owner: Arc::default(),
        }
    }

    fn collection<T: api::Kind>(&self) -> Request {
        Request::new(path::<T>(Some(&self.namespace)))
    }

    async fn send(
        &self,
        request: Result<http::Request<Vec<u8>>, BuildError>,
    ) -> Result<(), WriteError> {
        let request = request.map_err(failed)?;
        let answered = answer(self.client.request_text(request)).await;
        answered.map(drop).map_err(judge)
    }

    /// The Pod that this process runs in; none when it is not known or does not exist, as in a
    /// process on a host.
    async fn owner(&self) -> Result<Vec<OwnerReference>, WriteError> {
        let Some(pod) = &self.pod else {
            return Ok(Vec::new());
        };
        let found = self.owner.get_or_try_init(async || {
            let pods = Request::new(format!("/api/v1/namespaces/{}/pods", self.namespace));
            let request = pods.get(pod, &GetParams::default()).map_err(failed)?;
            let found: Named = answer(self.client.request(request)).await.map_err(judge)?;
            Ok(OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: found.metadata.name,
                uid: found.metadata.uid,
                ..OwnerReference::default()
            })
        });
        match found.await {
            Ok(owner) => Ok(vec![owner.clone()]),
            Err(WriteError::Outdated) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Writes a pool's counters.
    pub(crate) async fn write_pool(
        &self,
        pool: &str,
        status: &IPAddressPoolStatus,
    ) -> Result<(), WriteError> {
        let patch = Patch::Merge(json!({ "status": status }));
        let pools = self.collection::<IPAddressPool>();
        self.send(pools.patch_subresource("status", pool, &manager(), &patch))
            .await
    }

    /// Writes the status of an object of a native kind.
    pub(crate) async fn write_native(
        &self,
        object: &ObjectRef,
        status: &Value,
    ) -> Result<(), WriteError> {
        let collection = match object.kind {
            ObjectKind::AddressPool => self.collection::<AddressPool>(),
            ObjectKind::Advertisement => self.collection::<Advertisement>(),
            ObjectKind::Peer => self.collection::<Peer>(),
            // The other kinds have a status of their own making.
            _ => return Ok(()),
        };
        let patch = Patch::Merge(json!({ "status": status }));
        self.send(collection.patch_subresource("status", &object.name, &manager(), &patch))
            .await
    }

    /// Makes a component's `ConfigurationState` so; it is created when it is not there.
    pub(crate) async fn apply_configuration(
        &self,
        component: &Component,
        status: &ConfigurationStateStatus,
    ) -> Result<(), WriteError> {
        let states = self.collection::<ConfigurationState>();
        let name = component.object();
        let mut object = json!({
            "apiVersion": <ConfigurationState as api::Kind>::api_version(),
            "kind": <ConfigurationState as api::Kind>::KIND,
            "metadata": {
                "name": name,
                "labels": component.labels(),
                "ownerReferences": self.owner().await?,
            },
        });
        let params = PatchParams::apply(MANAGER).force();
        self.send(states.patch(&name, &params, &Patch::Apply(&object)))
            .await?;
        // Only the status, with the field manager that MetalLB's tools look for.
        object["metadata"] = json!({ "name": name });
        object["status"] = serde_json::to_value(status).map_err(failed)?;
        let params = PatchParams::apply(component.manager()).force();
        self.send(states.patch_subresource("status", &name, &params, &Patch::Apply(&object)))
            .await
    }

    /// What becomes of a component's `ConfigurationState`.
    pub(crate) fn watch_configuration(&self, component: &Component) -> Observed {
        Observed::start::<ConfigurationState>(
            self.client.clone(),
            Scope {
                namespace: Some(self.namespace.to_string()),
                fields: Some(format!("metadata.name={}", component.object())),
                ..Scope::default()
            },
        )
    }

    /// Puts an object of `node` for `service` up, still without status; gives its name.
    pub(crate) async fn create_word<S: Word>(
        &self,
        node: &str,
        service: &ServiceKey,
    ) -> Result<String, WriteError> {
        let object = json!({
            "apiVersion": <S::Object as api::Kind>::api_version(),
            "kind": <S::Object as api::Kind>::KIND,
            "metadata": {
                "generateName": S::PREFIX,
                "labels": {
                    LABEL_NODE: node,
                    LABEL_SERVICE_NAME: &*service.name,
                    LABEL_SERVICE_NAMESPACE: &*service.namespace,
                },
                "ownerReferences": self.owner().await?,
            },
        });
        let params = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        let body = serde_json::to_vec(&object).map_err(failed)?;
        let statuses = self.collection::<S::Object>();
        let request = statuses.create(&params, body).map_err(failed)?;
        let created: Named = answer(self.client.request(request)).await.map_err(judge)?;
        Ok(created.metadata.name)
    }

    /// Writes the status of one.
    pub(crate) async fn write_word<S: Word>(
        &self,
        name: &str,
        status: &S,
    ) -> Result<(), WriteError> {
        let mut status = serde_json::to_value(status).map_err(failed)?;
        if status.get(S::LIST).is_none() {
            status[S::LIST] = Value::Null;
        }
        let patch = Patch::Merge(json!({ "status": status }));
        let statuses = self.collection::<S::Object>();
        self.send(statuses.patch_subresource("status", name, &manager(), &patch))
            .await
    }

    /// Takes one down; one that is not there is down.
    pub(crate) async fn delete_word<S: Word>(&self, name: &str) -> Result<(), WriteError> {
        let statuses = self.collection::<S::Object>();
        match self
            .send(statuses.delete(name, &DeleteParams::default()))
            .await
        {
            Err(WriteError::Outdated) => Ok(()),
            result => result,
        }
    }

    /// The names of all that nodes other than `node` have put up for `service`.
    pub(crate) async fn other_words<S: Word>(
        &self,
        node: &str,
        service: &ServiceKey,
    ) -> Result<Vec<String>, WriteError> {
        let params = ListParams::default().labels(&format!(
            "{LABEL_SERVICE_NAME}={},{LABEL_SERVICE_NAMESPACE}={},{LABEL_NODE}!={node}",
            service.name, service.namespace
        ));
        let statuses = self.collection::<S::Object>();
        let request = statuses.list(&params).map_err(failed)?;
        let list: ObjectList<Named> = answer(self.client.request(request)).await.map_err(judge)?;
        let names = list.items.into_iter().map(|found| found.metadata.name);
        Ok(names.collect())
    }

    /// What becomes of those that `node` has put up.
    pub(crate) fn watch_words<S: Word>(&self, node: &str) -> Observed {
        Observed::start::<S::Object>(
            self.client.clone(),
            Scope {
                namespace: Some(self.namespace.to_string()),
                labels: Some(format!("{LABEL_NODE}={node}")),
                ..Scope::default()
            },
        )
    }
}

fn manager() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    }
}
