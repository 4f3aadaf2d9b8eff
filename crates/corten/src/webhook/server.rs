//! The webhook's paths.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use kube::Client;
use prometheus::IntCounterVec;
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
    requests: IntCounterVec,
}

impl Shared {
    fn count(&self, path: &str, answer: &str) {
        self.requests.with_label_values(&[path, answer]).inc();
    }
}

const CONVERT: &str = "convert";

/// Every path of `spec/metallb.md` §1.12.
pub(super) fn router(client: Client, rules: Rules, requests: IntCounterVec) -> Router {
    let shared = Arc::new(Shared {
        client,
        rules,
        turns: Semaphore::new(AT_ONCE),
        requests,
    });
    let mut router = Router::new().route("/convert", post(conversion));
    for subject in SUBJECTS {
        let judge = async move |State(shared): State<Arc<Shared>>, body: Bytes| match admission(
            subject, &shared, &body,
        )
        .await
        {
            Ok((answer, review)) => {
                shared.count(subject.singular, answer);
                json(&review)
            }
            Err(failed) => {
                shared.count(subject.singular, "failed");
                failed
            }
        };
        router = router.route(&subject.path(), post(judge));
    }
    router
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(shared)
}

/// The answer in a word and as a review; or why there is none: then the failure policy decides.
async fn admission(
    subject: Subject,
    shared: &Shared,
    body: &[u8],
) -> Result<(&'static str, Value), Response> {
    let request = match serde_json::from_slice::<AdmissionReview>(body) {
        Ok(review) => review.request,
        Err(error) => return Err(refuse(StatusCode::BAD_REQUEST, &error)),
    };
    let answer = match without_others(subject, &request) {
        Some(answer) => answer,
        None => {
            // Closed never: the semaphore is ours.
            let _turn = shared.turns.acquire().await;
            let namespace = &shared.rules.namespace;
            let known = match objects::known(&shared.client, namespace, subject).await {
                Ok(known) => known,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "an object could not be judged"
                    );
                    return Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, &error));
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
    let word = match answer.denied {
        None => "allowed",
        Some(_) => "denied",
    };
    Ok((word, answer.into_review(&request.uid)))
}

async fn conversion(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let converted = match serde_json::from_slice::<Value>(&body) {
        Ok(review) => {
            convert::convert(&review).map_err(|error| refuse(StatusCode::BAD_REQUEST, &error))
        }
        Err(error) => Err(refuse(StatusCode::BAD_REQUEST, &error)),
    };
    match converted {
        Ok(answer) => {
            let success = answer["response"]["result"]["status"] == "Success";
            shared.count(CONVERT, if success { "converted" } else { "denied" });
            json(&answer)
        }
        Err(failed) => {
            shared.count(CONVERT, "failed");
            failed
        }
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
