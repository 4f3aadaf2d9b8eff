//! List and watch one kind, decoded straight into the fields that Corten reads.
//!
//! The list is a streaming one (`sendInitialEvents`, KEP-3157) where the server has it, so that no
//! whole list is ever in memory; else pages of 500. A broken watch goes on from the last
//! resourceVersion; when that is too old, everything is told anew, and names that were known and
//! did not come again are told as deleted. Reconnects back off with jitter; the watches of one source
//! wake each other when the first of them is answered again.

use std::collections::HashSet;
use std::marker::PhantomData;
use std::pin::pin;
use std::time::{Duration, Instant};

use api::Kind;
use api::object::Object;
use futures::StreamExt;
use kube::Client;
use kube::core::params::{ListParams, WatchParams};
use kube::core::{ObjectList, Request, WatchEvent};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::backoff::{Backoff, Reached};
use crate::status::Health;

/// Says that a bookmark ends the initial list.
const INITIAL_END: &str = "k8s.io/initial-events-end";
/// Objects per page where the server does not stream lists.
const PAGE: u32 = 500;

/// Longest silence of a watch: a server sends a bookmark about once a minute, and a connection
/// whose other end is gone says nothing.
const SILENCE: Duration = Duration::from_secs(100);
/// How long the answer to a request may take to begin.
const ANSWER: Duration = Duration::from_secs(30);
/// A watch that ends earlier than that and told nothing is not asked for again at once.
const BRIEF: Duration = Duration::from_secs(1);
/// Bounds of the time between two tries.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(8));

/// What one watch tells the source.
#[derive(Debug)]
pub(super) enum Told {
    /// An object that is there, or has changed.
    Applied(Box<Object>),
    /// An object that is gone: only its name is known.
    Gone(Box<Object>),
    /// All objects of this kind that existed have been told; sent after each (re)list.
    Listed(&'static str),
}

/// A kind that can be watched.
pub(crate) trait Watched: Kind + DeserializeOwned + Clone + Send + 'static {
    /// Its metadata.
    fn metadata(&self) -> &api::meta::ObjectMeta;
    /// The object as one of any kind.
    fn into_object(self) -> Object;
    /// An empty object of this name; its namespace is empty for cluster-scoped kinds.
    fn named(namespace: &str, name: &str) -> Object;
}

/// What to watch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// Only this namespace.
    pub(crate) namespace: Option<String>,
    /// Only objects that match, in the API's syntax.
    pub(crate) labels: Option<String>,
    /// Only objects that match, in the API's syntax.
    pub(crate) fields: Option<String>,
    /// A cluster may lack the kind, or keep it from us: then there are none of it.
    pub(crate) optional: bool,
    /// What that means for whoever runs it, to be told once if the kind is kept from us.
    pub(crate) without: Option<&'static str>,
    /// Who is told what keeps the kind from being read.
    pub(crate) health: Option<Health>,
    /// Shared by watches of one server.
    pub(crate) reached: Reached,
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
    #[error("the watch ended at once")]
    Brief,
    #[error("the API server has been silent for {0:?}")]
    Silent(Duration),
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

    /// The kind does not exist there.
    fn is_unknown(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 404)
    }

    /// We may not read the kind.
    fn is_forbidden(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 403)
    }

    /// The server does not stream lists (before Kubernetes 1.34, or switched off).
    fn is_not_streaming(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 422 || status.code == 400)
    }
}

/// Whether a line of a watch is no event of this kind. To kube's client such a line is a Status,
/// all of whose fields may be absent.
fn is_unreadable(error: &kube::Error) -> bool {
    match error {
        kube::Error::SerdeError(_) => true,
        kube::Error::Api(status) => status.code == 0 && status.message.is_empty(),
        _ => false,
    }
}

/// The outcome of something that must not take longer.
async fn in_time<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, End> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer.map_err(End::Api),
        Err(_) => Err(End::Silent(limit)),
    }
}

/// Objects as `namespace/name`; of those of the cluster the namespace is empty.
type Names = HashSet<Box<str>>;

/// A watch of one kind.
pub(super) struct Watch<T> {
    client: Client,
    request: Request,
    scope: Scope,
    out: mpsc::Sender<Told>,
    /// What has been told as existing.
    known: Names,
    streaming: bool,
    /// What this request has told: steps that arrived.
    told: u64,
    /// The last request was not answered as it should be.
    failing: bool,
    /// It was told what it means to do without the kind.
    warned: bool,
    /// When the request under way was sent.
    asked: Instant,
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
            told: 0,
            failing: false,
            warned: false,
            asked: Instant::now(),
            kind: PhantomData,
        }
    }

    /// Runs until the receiver stops.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut version: Option<String> = None;
        loop {
            self.told = 0;
            self.asked = Instant::now();
            let result = match version.take() {
                None => self.list().await,
                Some(known) => self.follow(&known).await,
            };
            if self.told > 0 {
                backoff.reset();
            }
            match result {
                Ok(next) => version = Some(next),
                Err((_, End::Stopped)) => return,
                Err((next, end)) => {
                    if end.is_not_streaming() && self.streaming {
                        tracing::debug!(kind = T::KIND, "the API server does not stream lists");
                        self.streaming = false;
                        continue;
                    }
                    version = if end.is_expired() { None } else { next };
                    let withheld = end.is_forbidden();
                    if (end.is_unknown() || withheld) && self.scope.optional {
                        if self.tell(Told::Listed(T::KIND)).await.is_err() {
                            return;
                        }
                        let without = self.scope.without.filter(|_| withheld);
                        if let Some(without) = without
                            && !std::mem::replace(&mut self.warned, true)
                        {
                            tracing::warn!(
                                kind = T::KIND,
                                "no right to list and watch {}: {without}",
                                T::PLURAL
                            );
                        }
                        tracing::debug!(
                            kind = T::KIND,
                            withheld,
                            "the cluster does not know this kind, or keeps it from us"
                        );
                    } else if end.is_unknown() {
                        let remedy = "corten crds | kubectl apply -f -";
                        tracing::warn!(
                            kind = T::KIND,
                            remedy,
                            "the cluster does not know this kind; trying again"
                        );
                        let kind = T::KIND;
                        self.obstacle(Some(format!(
                            "the cluster does not know the kind {kind}; remedy: {remedy}"
                        )));
                    } else if withheld {
                        let remedy = "kubectl apply -f deploy/rbac.yaml";
                        tracing::warn!(
                            kind = T::KIND,
                            error = &end as &dyn std::error::Error,
                            remedy,
                            "no right to list and watch this kind; trying again"
                        );
                        let plural = T::PLURAL;
                        self.obstacle(Some(format!(
                            "no right to list and watch {plural}; remedy: {remedy}"
                        )));
                    } else {
                        tracing::warn!(
                            kind = T::KIND,
                            error = &end as &dyn std::error::Error,
                            "watch interrupted; trying again"
                        );
                    }
                    self.failing = true;
                    self.scope.reached.wait(backoff.next()).await;
                }
            }
        }
    }

    /// A request is answered: nothing is in the way any more.
    fn answered(&mut self) {
        self.warned = false;
        if std::mem::take(&mut self.failing) {
            self.obstacle(None);
            self.scope.reached.tell();
        }
    }

    fn obstacle(&self, obstacle: Option<String>) {
        if let Some(health) = &self.scope.health {
            health.set_obstacle(T::KIND, obstacle);
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
        self.tell(Told::Applied(Box::new(object.into_object())))
            .await
    }

    async fn gone(&self, key: &str) -> Result<(), End> {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let named = T::named(namespace, name);
        self.tell(Told::Gone(Box::new(named))).await
    }

    fn key(object: &T) -> Box<str> {
        let metadata = object.metadata();
        format!("{}/{}", metadata.namespace, metadata.name).into()
    }

    /// The list has been told: what is known and was not seen is gone.
    async fn listed(&mut self, seen: Names) -> Result<(), End> {
        for key in self.known.difference(&seen) {
            self.gone(key).await?;
        }
        self.known = seen;
        tracing::debug!(
            kind = T::KIND,
            objects = self.known.len(),
            streamed = self.streaming,
            milliseconds = self.asked.elapsed().as_millis(),
            "listed"
        );
        self.tell(Told::Listed(T::KIND)).await
    }

    /// A list broke off: what it told is known beside what was, so that the next one can tell what
    /// has gone meanwhile.
    fn broken_off(&mut self, seen: Names) {
        self.known.extend(seen);
    }

    async fn list_pages(&mut self) -> Result<String, (Option<String>, End)> {
        let mut seen = Names::new();
        match self.pages(&mut seen).await {
            Ok(version) => {
                self.listed(seen).await.map_err(|end| (None, end))?;
                Ok(version)
            }
            Err(end) => {
                self.broken_off(seen);
                Err((None, end))
            }
        }
    }

    /// Tells every page; gives the list's resourceVersion.
    async fn pages(&mut self, seen: &mut Names) -> Result<String, End> {
        let mut params = ListParams::default().limit(PAGE);
        params.label_selector = self.scope.labels.clone();
        params.field_selector = self.scope.fields.clone();
        loop {
            let request = self.request.list(&params).map_err(End::Request)?;
            let page: ObjectList<T> = in_time(ANSWER, self.client.request(request)).await?;
            self.answered();
            for object in page.items {
                self.told += 1;
                seen.insert(Self::key(&object));
                self.applied(object).await?;
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(page.metadata.resource_version.unwrap_or_default()),
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
        let mut seen = Some(Names::new());
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
        seen: &mut Option<Names>,
    ) -> Result<String, (Option<String>, End)> {
        let mut version = (!from.is_empty()).then(|| from.to_owned());
        let outcome = self.consume(params, from, seen, &mut version).await;
        if let Some(seen) = seen.take() {
            self.broken_off(seen);
            return Err((None, outcome.err().unwrap_or(End::Incomplete)));
        }
        match (outcome, version) {
            (Ok(()), version) if self.told == 0 && self.asked.elapsed() < BRIEF => {
                Err((version, End::Brief))
            }
            (Ok(()), Some(version)) => Ok(version),
            (Ok(()), None) => Err((None, End::Incomplete)),
            (Err(end), version) => Err((version, end)),
        }
    }

    async fn consume(
        &mut self,
        params: &WatchParams,
        from: &str,
        seen: &mut Option<Names>,
        version: &mut Option<String>,
    ) -> Result<(), End> {
        let request = self.request.watch(params, from).map_err(End::Request)?;
        let client = self.client.clone();
        let answer = client.request_events::<T>(request);
        let mut events = pin!(in_time(ANSWER, answer).await?);
        self.answered();
        while let Some(event) = in_time(SILENCE, async { Ok(events.next().await) }).await? {
            let event = match event {
                Ok(event) => event,
                // One object that cannot be read must not keep the others away. What was known of
                // it stays in force.
                Err(error) if is_unreadable(&error) => {
                    tracing::error!(
                        kind = T::KIND,
                        error = &error as &dyn std::error::Error,
                        "an object cannot be read: left out"
                    );
                    continue;
                }
                Err(error) => return Err(End::Api(error)),
            };
            self.told += 1;
            match event {
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
                    if let Some(seen) = seen {
                        seen.remove(&key);
                    }
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

#[cfg(test)]
mod tests;
