//! The ports that answer outer load balancers' health checks: one for each Service with
//! `healthCheckNodePort`, and the proxy's own.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use plan::forward::HealthCheck;
use plan::name::{Name, ServiceKey};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::backoff::Backoff;
use crate::http::Metrics;
use crate::http::proxy::{self, Endpoints, ProxyHealth};
use crate::report::Reporter;
use crate::sink::{Component, Report, Subject};

/// Commands that may wait.
const QUEUE: usize = 64;
/// Bounds of the time until a port that is taken is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A Service's check as it is to be, or none.
pub(super) type Change = (ServiceKey, Option<HealthCheck>);

/// What the task works with.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) node: Name,
    pub(super) proxy: ProxyHealth,
    pub(super) reporter: Reporter,
}

/// A port that answers, or tries to.
struct Server {
    port: u16,
    listen: Option<Vec<IpAddr>>,
    endpoints: Endpoints,
    /// One for each address; they end when this is dropped.
    tasks: JoinSet<()>,
}

impl Server {
    /// Returns when the port is free.
    async fn close(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Where changes are handed in, and the task to run: it owns the servers.
pub(super) fn start(context: Context) -> (mpsc::Sender<Change>, impl Future<Output = ()> + Send) {
    let (changes_in, mut changes) = mpsc::channel::<Change>(QUEUE);
    let task = async move {
        let mut servers: BTreeMap<ServiceKey, Server> = BTreeMap::new();
        while let Some((service, check)) = changes.recv().await {
            match (servers.remove(&service), check) {
                (Some(server), Some(check))
                    if server.port == check.port && server.listen == check.listen =>
                {
                    server.endpoints.set(check.endpoints);
                    servers.insert(service, server);
                }
                (old, check) => {
                    // The port may be another Service's next.
                    if let Some(old) = old {
                        old.close().await;
                    }
                    if let Some(check) = check {
                        let server = open(&context, service.clone(), check);
                        servers.insert(service, server);
                    }
                }
            }
        }
    };
    (changes_in, task)
}

fn open(context: &Context, service: ServiceKey, check: HealthCheck) -> Server {
    let HealthCheck {
        port,
        endpoints,
        listen,
        uid,
    } = check;
    let endpoints = Endpoints::new(service.clone(), endpoints, context.proxy.clone());
    let any = || vec![IpAddr::from([0_u16; 8])];
    let addresses = listen.clone().unwrap_or_else(any);
    let mut tasks = JoinSet::new();
    for address in addresses {
        let at = SocketAddr::new(address, port);
        tasks.spawn(answer(
            context,
            service.clone(),
            uid.clone(),
            endpoints.clone(),
            at,
        ));
    }
    Server {
        port,
        listen,
        endpoints,
        tasks,
    }
}

/// Answers there; where that cannot be, it is told and tried again.
fn answer(
    context: &Context,
    service: ServiceKey,
    uid: Name,
    serving: Endpoints,
    at: SocketAddr,
) -> impl Future<Output = ()> + Send + use<> {
    let (reporter, node) = (context.reporter.clone(), context.node.clone());
    async move {
        let port = at.port();
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut told = None;
        loop {
            let Err(error) = serving.clone().serve(at).await;
            let words = error.to_string();
            if told.as_ref() != Some(&words) {
                reporter.report(Report {
                    component: Component::Speaker,
                    about: Subject::Service {
                        key: service.clone(),
                        uid: uid.clone(),
                    },
                    warning: true,
                    reason: "FailedToStartServiceHealthcheck",
                    message: format!(
                        "node {node} failed to start healthcheck \"{service}\" on port {port}: \
                         {words}"
                    ),
                });
                told = Some(words);
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }
}

/// Serves the proxy's own health until the agent ends; a port that is taken (kube-proxy has not gone
/// yet) is tried again.
pub(super) async fn serve_proxy(address: SocketAddr, health: ProxyHealth, metrics: Metrics) {
    let asked = &metrics.proxy_asked;
    let serve = || proxy::serve(address, health.clone(), asked.clone());
    again_and_again(address, "health is", "--healthz-bind-address", serve).await;
}

/// The same for its metrics.
pub(super) async fn serve_proxy_metrics(
    address: SocketAddr,
    mode: &'static str,
    configuration: serde_json::Value,
    metrics: Metrics,
) {
    let configuration = Arc::new(configuration);
    let serve = || proxy::serve_metrics(address, mode, configuration.clone(), metrics.clone());
    again_and_again(address, "metrics are", "--metrics-bind-address", serve).await;
}

/// Serves; where that cannot be, it is told once and tried again.
async fn again_and_again<F>(address: SocketAddr, what: &str, flag: &str, serve: impl Fn() -> F)
where
    F: Future<Output = Result<Infallible, io::Error>>,
{
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    let mut told = None;
    loop {
        let Err(error) = serve().await;
        let words = error.to_string();
        if told.as_ref() != Some(&words) {
            tracing::warn!(
                "the proxy's {what} not served on {address}: {words}; remedy: end who listens \
                 there, or choose another with {flag}"
            );
            told = Some(words);
        }
        tokio::time::sleep(backoff.next()).await;
    }
}
