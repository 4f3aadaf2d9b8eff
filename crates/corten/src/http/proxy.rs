//! What outer load balancers ask a service proxy: whether the node is well (kube-proxy's port
//! 10256, `spec/dataplane.md` §1.10), and whether a Service has endpoints on it (§1.9).

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use k8s_openapi::jiff::Timestamp;
use plan::name::ServiceKey;
use prometheus::IntCounterVec;
use serde_json::json;

use super::listener::bind;
use super::metrics::Metrics;

/// A change that waits for longer than that makes the proxy unwell: twice kube-proxy's period of
/// synchronisation.
const LATE: Duration = Duration::from_secs(60);
/// How many endpoints a Service has here, for balancers that weigh by that.
const WEIGHT: &str = "x-load-balancing-endpoint-weight";

/// How this node's forwarding is; cheap to clone.
#[derive(Clone, Debug)]
pub struct ProxyHealth(Arc<Mutex<Facts>>);

#[derive(Debug)]
struct Facts {
    /// Since when a change waits.
    queued: Option<Instant>,
    updated: Timestamp,
    /// The node is being taken away: new connections should go elsewhere.
    going: bool,
}

impl Default for ProxyHealth {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Facts {
            queued: None,
            updated: Timestamp::now(),
            going: false,
        })))
    }
}

impl ProxyHealth {
    fn with<T>(&self, look: impl FnOnce(&mut Facts) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A change waits, from now on unless one did already.
    pub fn queued(&self, now: Instant) {
        self.with(|facts| _ = facts.queued.get_or_insert(now));
    }

    /// A change has been written; `more` wait.
    pub fn updated(&self, now: Instant, more: bool) {
        self.with(|facts| {
            facts.queued = more.then_some(now);
            facts.updated = Timestamp::now();
        });
    }

    /// Whether the node is being taken away.
    pub fn set_going(&self, going: bool) {
        self.with(|facts| facts.going = going);
    }

    /// Whether changes are written in time.
    fn is_well(&self, now: Instant) -> bool {
        self.with(|facts| facts.queued.is_none_or(|since| now < since + LATE))
    }

    /// The answer to `/healthz`, or to `/livez`, which does not mind whether the node goes.
    fn answer(&self, now: Instant, live: bool) -> (StatusCode, serde_json::Value) {
        let (updated, going) = self.with(|facts| (facts.updated, facts.going));
        let current = Timestamp::now();
        let healthy = self.is_well(now);
        let well = healthy && (live || !going);
        // Both families are written together. As with kube-proxy, who is well is up to date.
        let family = json!({"lastUpdated": updated.to_string(), "healthy": healthy});
        let updated = if well { current } else { updated };
        let mut body = json!({
            "lastUpdated": updated.to_string(),
            "currentTime": current.to_string(),
            "healthy": healthy,
            "status": {"IPv4": family, "IPv6": family},
        });
        if !live {
            body["nodeEligible"] = json!(!going);
        }
        (code(well), body)
    }
}

const fn code(well: bool) -> StatusCode {
    match well {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn respond(code: StatusCode, body: &serde_json::Value) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (code, headers, body.to_string()).into_response()
}

/// Answers to `/healthz` and `/livez`, by code.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `kubeproxy_proxy_healthz_total`.
    pub healthz: IntCounterVec,
    /// `kubeproxy_proxy_livez_total`.
    pub livez: IntCounterVec,
}

/// Serves `/healthz` and `/livez` until the process ends, or says why it cannot.
pub async fn serve(
    address: SocketAddr,
    health: ProxyHealth,
    asked: Asked,
) -> Result<Infallible, io::Error> {
    let handler = |live: bool, counter: IntCounterVec| {
        let health = health.clone();
        async move || {
            let (code, body) = health.answer(Instant::now(), live);
            counter.with_label_values(&[code.as_str()]).inc();
            respond(code, &body)
        }
    };
    let router = Router::new()
        .route("/healthz", get(handler(false, asked.healthz)))
        .route("/livez", get(handler(true, asked.livez)));
    let listener = bind(address).await?;
    axum::serve(listener, router).await?;
    Err(io::Error::other("the server ended"))
}

/// Serves what kube-proxy has on its port 10249, in plain HTTP to everybody who reaches it: its
/// metrics and no others, how it forwards, and its configuration.
pub async fn serve_metrics(
    address: SocketAddr,
    mode: &'static str,
    configuration: Arc<serde_json::Value>,
    metrics: Metrics,
) -> Result<Infallible, io::Error> {
    const PLAIN: [(HeaderName, &str); 2] = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let told = async move || match metrics.encode_proxy() {
        Ok(text) => ([(header::CONTENT_TYPE, super::EXPOSITION)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    };
    let router = Router::new()
        .route(super::METRICS, get(told))
        .route("/proxyMode", get(async move || (PLAIN, mode)))
        .route(
            "/configz",
            get(async move || respond(StatusCode::OK, &configuration)),
        )
        .route("/healthz", get(async || (PLAIN, "ok")));
    let listener = bind(address).await?;
    axum::serve(listener, router).await?;
    Err(io::Error::other("the server ended"))
}

/// What one Service's port answers from.
#[derive(Clone, Debug)]
pub struct Endpoints {
    service: ServiceKey,
    count: Arc<AtomicUsize>,
    proxy: ProxyHealth,
}

impl Endpoints {
    /// A Service with so many ready endpoints on this node.
    pub fn new(service: ServiceKey, count: usize, proxy: ProxyHealth) -> Self {
        Self {
            service,
            count: Arc::new(count.into()),
            proxy,
        }
    }

    /// There are so many now.
    pub fn set(&self, count: usize) {
        self.count.store(count, Ordering::Relaxed);
    }

    fn answer(&self, now: Instant) -> Response {
        let count = self.count.load(Ordering::Relaxed);
        let well = self.proxy.is_well(now);
        let body = json!({
            "service": {
                "namespace": &*self.service.namespace,
                "name": &*self.service.name,
            },
            "localEndpoints": count,
            "serviceProxyHealthy": well,
        });
        let mut response = respond(code(count > 0 && well), &body);
        let headers = response.headers_mut();
        headers.insert(WEIGHT, HeaderValue::from(count));
        // A connection that stayed would be answered when the check is gone.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }

    /// Serves every path there, until it is dropped.
    pub async fn serve(self, at: SocketAddr) -> Result<Infallible, io::Error> {
        let router = Router::new().fallback(answer).with_state(self);
        axum::serve(bind(at).await?, router).await?;
        Err(io::Error::other("the server ended"))
    }
}

async fn answer(State(endpoints): State<Endpoints>) -> Response {
    endpoints.answer(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_change_makes_the_proxy_unwell_and_a_node_that_goes_takes_no_more() {
        let health = ProxyHealth::default();
        let start = Instant::now();
        let codes = |now: Instant| {
            [false, true].map(|live| {
                let (code, body) = health.answer(now, live);
                assert_eq!(body.get("nodeEligible").is_some(), !live, "{body}");
                let is_new = body["lastUpdated"] == body["currentTime"];
                assert_eq!(is_new, code == StatusCode::OK, "{body}");
                for family in ["IPv4", "IPv6"] {
                    assert_eq!(body["status"][family]["healthy"], body["healthy"], "{body}");
                    assert!(body["status"][family]["lastUpdated"].is_string(), "{body}");
                }
                if code == StatusCode::OK {
                    assert_eq!(body["healthy"], true, "{body}");
                }
                code.as_u16()
            })
        };
        assert_eq!(codes(start + 10 * LATE), [200, 200], "nothing waits");
        health.queued(start);
        // A second change does not hide how long the first waits.
        health.queued(start + LATE / 2);
        assert_eq!(codes(start + LATE / 2), [200, 200]);
        assert_eq!(codes(start + LATE), [503, 503]);
        health.updated(start + LATE, true);
        assert_eq!(codes(start + LATE), [200, 200]);
        assert_eq!(codes(start + 2 * LATE), [503, 503], "the rest waits on");
        health.updated(start + 2 * LATE, false);
        health.set_going(true);
        assert_eq!(codes(start + 9 * LATE), [503, 200]);
        health.set_going(false);
        assert_eq!(codes(start + 9 * LATE), [200, 200]);
    }

    #[test]
    fn a_service_is_well_where_it_has_endpoints_and_the_proxy_is() {
        let proxy = ProxyHealth::default();
        let service = ServiceKey::new("default", "s");
        let endpoints = Endpoints::new(service, 0, proxy.clone());
        let now = Instant::now();
        let said = |now: Instant| {
            let answer = endpoints.answer(now);
            let header = |name: &str| answer.headers()[name].to_str().expect("text").to_owned();
            assert_eq!(header("content-type"), "application/json");
            assert_eq!(header("x-content-type-options"), "nosniff");
            (answer.status().as_u16(), header(WEIGHT))
        };
        assert_eq!(said(now), (503, "0".to_owned()));
        endpoints.set(2);
        assert_eq!(said(now), (200, "2".to_owned()));
        proxy.queued(now);
        assert_eq!(said(now + LATE), (503, "2".to_owned()));
    }
}
