//! List and watch one kind, decoded straight into our own slim types.
//!
//! The list is a streaming one (`sendInitialEvents`, KEP-3157) where the server has it, so that no
//! whole list is ever in memory; else pages of 500. A broken watch goes on from the last
//! resourceVersion; when that is too old, everything is told anew, and names that were known and
//! did not come again are told as deleted. Reconnects back off with jitter.

use std::collections::HashSet;
use std::marker::PhantomData;
use std::pin::pin;
use std::time::Duration;

use api::Kind;
use api::object::Object;
use futures::StreamExt;
use kube::Client;
use kube::core::params::{ListParams, WatchParams};
use kube::core::{ObjectList, Request, WatchEvent};
use plan::world::Event;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::backoff::Backoff;
use crate::source::kinds;

/// Says that a bookmark ends the initial list.
const INITIAL_END: &str = "k8s.io/initial-events-end";
/// Objects per page where the server does not stream lists.
const PAGE: u32 = 500;

/// What one watch tells the source.
#[derive(Debug)]
pub(super) enum Told {
    /// A change.
    Event(Event),
    /// All objects of this kind that existed have been told; sent after each (re)list.
    Listed(&'static str),
}

/// A kind that can be watched: it turns into World's events.
pub(super) trait Watched: Kind + DeserializeOwned + Clone + Send + 'static {
    /// Its metadata.
    fn metadata(&self) -> &api::meta::ObjectMeta;
    /// The object as one of any kind.
    fn into_object(self) -> Object;
    /// An empty object of this name; its namespace is empty for cluster-scoped kinds.
    fn named(namespace: &str, name: &str) -> Object;
}

/// What to watch.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    /// Only this namespace.
    pub(super) namespace: Option<String>,
    /// Only objects that match, in the API's syntax.
    pub(super) labels: Option<String>,
    /// Only objects that match, in the API's syntax.
    pub(super) fields: Option<String>,
}

/// The URL path of a kind's collection.
pub(crate) fn path<T: Kind>(namespace: Option<&str>) -> String {
    let root = if T::GROUP.is_empty() {
        format!("/api/{}", T::VERSION)
    } else {
        format!("/apis/{}/{}", T::GROUP, T::VERSION)
    };
    match namespace {
        Some(namespace) if T::NAMESPACED => format!("{root}/namespaces/{namespace}/{}", T::PLURAL),
        _ => format!("{root}/{}", T::PLURAL),
    }
}

/// Why a watch ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the API server refused")]
    Api(#[source] kube::Error),
    #[error("request could not be built")]
    Request(#[source] kube::core::request::Error),
    #[error("the server reports {reason}: {message}")]
    Status {
        code: u16,
        reason: String,
        message: String,
    },
    #[error("the watch ended before the list was complete")]
    Incomplete,
    #[error("the receiver has stopped")]
    Stopped,
}

impl End {
    /// The resourceVersion is no longer known: list anew.
    fn is_expired(&self) -> bool {
        match self {
            Self::Status { code, .. } => *code == 410,
            Self::Api(kube::Error::Api(status)) => status.code == 410,
            _ => false,
        }
    }

    /// The server does not stream lists (before Kubernetes 1.34, or switched off).
    fn is_not_streaming(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 422 || status.code == 400)
    }
}

/// A watch of one kind.
pub(super) struct Watch<T> {
    client: Client,
    request: Request,
    scope: Scope,
    out: mpsc::Sender<Told>,
    known: HashSet<(String, String)>,
    streaming: bool,
    kind: PhantomData<fn() -> T>,
}

impl<T: Watched> Watch<T> {
    pub(super) fn new(client: Client, scope: Scope, out: mpsc::Sender<Told>) -> Self {
        let request = Request::new(path::<T>(scope.namespace.as_deref()));
        Self {
            client,
            request,
            scope,
            out,
            known: HashSet::new(),
            streaming: true,
            kind: PhantomData,
        }
    }

    /// Runs until the receiver stops.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        let mut version: Option<String> = None;
        loop {
            let result = match version.take() {
                None => self.list().await,
                Some(known) => self.follow(&known).await,
            };
            match result {
                Ok(next) => {
                    version = Some(next);
                    backoff.reset();
                }
                Err((_, End::Stopped)) => return,
                Err((next, end)) => {
                    if end.is_not_streaming() && self.streaming {
                        tracing::debug!(kind = T::KIND, "the API server does not stream lists");
                        self.streaming = false;
                        continue;
                    }
                    version = if end.is_expired() { None } else { next };
                    tracing::warn!(
                        kind = T::KIND,
                        error = &end as &dyn std::error::Error,
                        "watch interrupted; trying again"
                    );
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }

    async fn list(&mut self) -> Result<String, (Option<String>, End)> {
        if self.streaming {
            self.list_streaming().await
        } else {
            self.list_pages().await
        }
    }

    async fn tell(&self, told: Told) -> Result<(), End> {
        self.out.send(told).await.map_err(|_| End::Stopped)
    }

    async fn applied(&self, object: T) -> Result<(), End> {
        match kinds::applied(object.into_object()) {
            Some(event) => self.tell(Told::Event(event)).await,
            None => Ok(()),
        }
    }

    async fn gone(&self, (namespace, name): &(String, String)) -> Result<(), End> {
        match kinds::gone(&T::named(namespace, name)) {
            Some(event) => self.tell(Told::Event(event)).await,
            None => Ok(()),
        }
    }

    fn key(object: &T) -> (String, String) {
        let metadata = object.metadata();
        (metadata.namespace.clone(), metadata.name.clone())
    }

    /// The list has been told: what is known and was not seen is gone.
    async fn listed(&mut self, seen: HashSet<(String, String)>) -> Result<(), End> {
        for key in self.known.difference(&seen) {
            self.gone(key).await?;
        }
        self.known = seen;
        self.tell(Told::Listed(T::KIND)).await
    }

    async fn list_pages(&mut self) -> Result<String, (Option<String>, End)> {
        let mut seen = HashSet::new();
        let mut params = ListParams::default().limit(PAGE);
        params.label_selector = self.scope.labels.clone();
        params.field_selector = self.scope.fields.clone();
        loop {
            let request = self
                .request
                .list(&params)
                .map_err(|error| (None, End::Request(error)))?;
            let page: ObjectList<T> = self
                .client
                .request(request)
                .await
                .map_err(|error| (None, End::Api(error)))?;
            for object in page.items {
                seen.insert(Self::key(&object));
                self.applied(object).await.map_err(|end| (None, end))?;
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => {
                    self.listed(seen).await.map_err(|end| (None, end))?;
                    return Ok(page.metadata.resource_version.unwrap_or_default());
                }
            }
        }
    }

    fn params(&self) -> WatchParams {
        WatchParams {
            label_selector: self.scope.labels.clone(),
            field_selector: self.scope.fields.clone(),
            bookmarks: true,
            ..WatchParams::default()
        }
    }

    async fn list_streaming(&mut self) -> Result<String, (Option<String>, End)> {
        let params = self.params().initial_events();
        let mut seen = Some(HashSet::new());
        self.stream(&params, "", &mut seen).await
    }

    async fn follow(&mut self, version: &str) -> Result<String, (Option<String>, End)> {
        let params = self.params();
        self.stream(&params, version, &mut None).await
    }

    /// One watch request, until the server ends it. `seen` collects names until the initial list is
    /// complete. The version to go on from comes back in either case.
    async fn stream(
        &mut self,
        params: &WatchParams,
        from: &str,
        seen: &mut Option<HashSet<(String, String)>>,
    ) -> Result<String, (Option<String>, End)> {
        let mut version = (!from.is_empty()).then(|| from.to_owned());
        let outcome = self.consume(params, from, seen, &mut version).await;
        match (outcome, version) {
            (Ok(()), Some(version)) if seen.is_none() => Ok(version),
            (Ok(()), _) => Err((None, End::Incomplete)),
            (Err(end), version) => Err((version.filter(|_| seen.is_none()), end)),
        }
    }

    async fn consume(
        &mut self,
        params: &WatchParams,
        from: &str,
        seen: &mut Option<HashSet<(String, String)>>,
        version: &mut Option<String>,
    ) -> Result<(), End> {
        let request = self.request.watch(params, from).map_err(End::Request)?;
        let client = self.client.clone();
        let mut events = pin!(
            client
                .request_events::<T>(request)
                .await
                .map_err(End::Api)?
        );
        while let Some(event) = events.next().await {
            match event.map_err(End::Api)? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    *version = Some(object.metadata().resource_version.clone());
                    let key = Self::key(&object);
                    match seen {
                        Some(seen) => seen.insert(key),
                        None => self.known.insert(key),
                    };
                    self.applied(object).await?;
                }
                WatchEvent::Deleted(object) => {
                    *version = Some(object.metadata().resource_version.clone());
                    let key = Self::key(&object);
                    self.known.remove(&key);
                    self.gone(&key).await?;
                }
                WatchEvent::Bookmark(bookmark) => {
                    *version = Some(bookmark.metadata.resource_version);
                    let end = bookmark.metadata.annotations.get(INITIAL_END);
                    if end.is_some_and(|value| value == "true")
                        && let Some(seen) = seen.take()
                    {
                        self.listed(seen).await?;
                    }
                }
                WatchEvent::Error(status) => {
                    return Err(End::Status {
                        code: status.code,
                        reason: status.reason.clone(),
                        message: status.message.clone(),
                    });
                }
            }
        }
        Ok(())
    }
}
