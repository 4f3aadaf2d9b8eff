//! Health and metrics over HTTP.
//!
//! In a cluster there are two servers: probes in plain HTTP (`/healthz`, `/readyz`), and
//! `/metrics` over HTTPS for whom the API server's reviews allow it. On a bare host there is one,
//! in plain HTTP on loopback.

pub mod access;
pub mod announced;
pub mod bfd;
pub mod bgp;
pub mod certificate;
pub mod kubeproxy;
pub mod listener;
pub mod member;
pub mod metrics;
pub mod proxy;
pub mod tls;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use self::access::{Access, Guard, bearer};
use self::listener::{TlsListener, bind};
use self::tls::{CurrentCertificate, TlsSettings};
use crate::status::Health;
pub use metrics::Metrics;

/// The path that RBAC guards.
pub const METRICS: &str = "/metrics";
/// Prometheus' text format.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Why an HTTP server does not serve.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is taken, or not ours.
    #[error("cannot listen on {address} for {what}; choose another with {flag}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What was to be served.
        what: &'static str,
        /// The flag that says where.
        flag: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The TLS settings do not fit together.
    #[error("TLS settings cannot be used for metrics")]
    Tls(#[from] rustls::Error),
}

#[derive(Clone)]
struct Shared {
    health: Health,
    metrics: Metrics,
    /// None: whoever reaches the port may read.
    guard: Option<Arc<Guard>>,
}

fn probes() -> Router<Shared> {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
}

/// Serves everything in plain HTTP on one address, until the process ends.
pub async fn serve(
    address: SocketAddr,
    health: Health,
    metrics: Metrics,
) -> Result<Infallible, HttpError> {
    let router = probes().route(METRICS, get(serve_metrics));
    let shared = Shared {
        health,
        metrics,
        guard: None,
    };
    plain(
        address,
        router.with_state(shared),
        "health and metrics",
        "--http-address",
    )
    .await
}

/// Serves `/healthz` and `/readyz` in plain HTTP.
pub async fn serve_probes(address: SocketAddr, health: Health) -> Result<Infallible, HttpError> {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async move || answer(&health)));
    plain(address, router, "probes", "--health-probe-port").await
}

/// Serves `/metrics` in plain HTTP to everybody.
pub async fn serve_plain_metrics(
    address: SocketAddr,
    health: Health,
    metrics: Metrics,
) -> Result<Infallible, HttpError> {
    let shared = Shared {
        health,
        metrics,
        guard: None,
    };
    let router = Router::new().route(METRICS, get(serve_metrics));
    plain(address, router.with_state(shared), "metrics", "--port").await
}

/// Serves `/metrics` over HTTPS to those whom `guard` lets pass.
pub async fn serve_metrics_securely(
    address: SocketAddr,
    metrics: Metrics,
    guard: Guard,
    tls: &TlsSettings,
    certificate: CurrentCertificate,
) -> Result<Infallible, HttpError> {
    let failed = listening(address, "metrics", "--port");
    let shared = Shared {
        health: Health::default(),
        metrics,
        guard: Some(Arc::new(guard)),
    };
    let router = Router::new()
        .route(METRICS, get(serve_metrics))
        .with_state(shared);
    let tcp = bind(address).await.map_err(&failed)?;
    let listener = TlsListener::new(tcp, tls.server_config(certificate)?).map_err(&failed)?;
    axum::serve(listener, router).await.map_err(&failed)?;
    Err(failed(io::Error::other("the server ended")))
}

fn listening(
    address: SocketAddr,
    what: &'static str,
    flag: &'static str,
) -> impl Fn(io::Error) -> HttpError {
    move |source| HttpError::Listen {
        address,
        what,
        flag,
        source,
    }
}

async fn plain(
    address: SocketAddr,
    router: Router,
    what: &'static str,
    flag: &'static str,
) -> Result<Infallible, HttpError> {
    let failed = listening(address, what, flag);
    let listener = bind(address).await.map_err(&failed)?;
    axum::serve(listener, router).await.map_err(&failed)?;
    Err(failed(io::Error::other("the server ended")))
}

async fn readyz(State(shared): State<Shared>) -> Response {
    answer(&shared.health)
}

fn answer(health: &Health) -> Response {
    match health.unready() {
        None => {
            let notes: Vec<String> = [health.kept(), health.standing_by()]
                .into_iter()
                .flatten()
                .collect();
            match &*notes {
                [] => "ok\n".into_response(),
                notes => format!("ok, {}\n", notes.join("; ")).into_response(),
            }
        }
        Some(why) => {
            let text = format!("not ready: {why}\n");
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

async fn serve_metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    if let Some(guard) = &shared.guard {
        let header = headers.get(header::AUTHORIZATION);
        let token = header.and_then(|value| bearer(value.to_str().ok()?));
        let access = match token {
            None => Ok(Access::Unauthenticated),
            Some(token) => guard.check(token).await,
        };
        match access {
            Ok(Access::Granted) => {}
            Ok(Access::Unauthenticated) => {
                let text = "a bearer token that the API server knows is needed\n";
                return (StatusCode::UNAUTHORIZED, text).into_response();
            }
            Ok(Access::Forbidden) => {
                let text = "the token may not get the nonResourceURL /metrics\n";
                return (StatusCode::FORBIDDEN, text).into_response();
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "metrics were not served"
                );
                let text = "the token could not be reviewed\n";
                return (StatusCode::INTERNAL_SERVER_ERROR, text).into_response();
            }
        }
    }
    match shared.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, EXPOSITION)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
