//! The webhook's paths.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use kube::Client;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::review::{PROBE, Request, Rules, SUBJECTS, Subject, review, without_others};
use super::{convert, objects};

/// A review has two forms of an object, each of at most 1.5 MiB in etcd.
const LARGEST: usize = 8 << 20;
/// Requests that list objects at the same time.
const AT_ONCE: usize = 16;

#[derive(Debug, Deserialize)]
struct AdmissionReview {
    request: Request,
}

struct Shared {
    client: Client,
    rules: Rules,
    turns: Semaphore,
}

/// Every path of `spec/metallb.md` §1.12.
pub(super) fn router(client: Client, rules: Rules) -> Router {
    let shared = Arc::new(Shared {
        client,
        rules,
        turns: Semaphore::new(AT_ONCE),
    });
    let mut router = Router::new().route("/convert", post(conversion));
    for subject in SUBJECTS {
        let judge = async move |State(shared): State<Arc<Shared>>, body: Bytes| {
            admission(subject, &shared, &body).await
        };
        router = router.route(&subject.path(), post(judge));
    }
    router
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(shared)
}

async fn admission(subject: Subject, shared: &Shared, body: &[u8]) -> Response {
    let request = match serde_json::from_slice::<AdmissionReview>(body) {
        Ok(review) => review.request,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error),
    };
    let answer = match without_others(subject, &request) {
        Some(answer) => answer,
        None => {
            // Closed never: the semaphore is ours.
            let _turn = shared.turns.acquire().await;
            let namespace = &shared.rules.namespace;
            let known = match objects::known(&shared.client, namespace, subject).await {
                Ok(known) => known,
                // No answer: the failure policy decides.
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "an object could not be judged"
                    );
                    return refuse(StatusCode::INTERNAL_SERVER_ERROR, &error);
                }
            };
            review(subject, &request, known, &shared.rules)
        }
    };
    if let Some(why) = &answer.denied
        && request.name != PROBE
    {
        tracing::info!(
            kind = ?subject.kind,
            namespace = request.namespace,
            name = request.name,
            operation = ?request.operation,
            why,
            "refused"
        );
    }
    json(&answer.into_review(&request.uid))
}

async fn conversion(body: Bytes) -> Response {
    let review: Value = match serde_json::from_slice(&body) {
        Ok(review) => review,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error),
    };
    match convert::convert(&review) {
        Ok(answer) => json(&answer),
        Err(error) => refuse(StatusCode::BAD_REQUEST, &error),
    }
}

fn json(value: &Value) -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        value.to_string(),
    )
        .into_response()
}

fn refuse(status: StatusCode, error: &(dyn std::error::Error + 'static)) -> Response {
    (status, crate::cli::chain(error)).into_response()
}
