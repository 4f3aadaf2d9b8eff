//! Health and metrics over HTTP: `/healthz`, `/readyz`, `/metrics`.

pub mod metrics;

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::status::Health;
pub use metrics::Metrics;

/// Why the HTTP server does not serve.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for health and metrics; choose another with --http-address")]
pub struct HttpError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

#[derive(Clone)]
struct Shared {
    health: Health,
    metrics: Metrics,
}

/// Serves until the process ends.
pub async fn serve(
    address: SocketAddr,
    health: Health,
    metrics: Metrics,
) -> Result<std::convert::Infallible, HttpError> {
    let failed = |source| HttpError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(serve_metrics))
        .with_state(Shared { health, metrics });
    axum::serve(listener, router).await.map_err(failed)?;
    Err(failed(io::Error::other("the server ended")))
}

async fn readyz(State(shared): State<Shared>) -> impl IntoResponse {
    match shared.health.unready() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {why}\n"),
        ),
    }
}

async fn serve_metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let content = "text/plain; version=0.0.4; charset=utf-8";
    match shared.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, content)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
