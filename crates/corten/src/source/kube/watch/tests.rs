//! Watches against a scripted API server: each request takes the next answer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::core::Namespace;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures::stream;
use tokio::sync::mpsc;

use super::*;

/// What the server does with one request.
enum Answer {
    /// These lines, then the connection's end.
    Lines(&'static [&'static str]),
    /// A status and a body.
    Body(u16, &'static str),
    /// Nothing more: the request stays open.
    Open,
}

#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

async fn serve(State(script): State<Script>, uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default().to_owned();
    script.asked.lock().unwrap().push(query);
    let answer = script.answers.lock().unwrap().pop_front();
    match answer.unwrap_or(Answer::Open) {
        Answer::Lines(lines) => (StatusCode::OK, lines.join("\n") + "\n").into_response(),
        Answer::Body(code, body) => {
            let code = StatusCode::from_u16(code).unwrap();
            (code, body).into_response()
        }
        Answer::Open => {
            Body::from_stream(stream::pending::<Result<String, std::io::Error>>()).into_response()
        }
    }
}

/// Runs a watch of Namespaces on the script until `count` things were told; gives them and what
/// was asked.
async fn told(
    answers: impl IntoIterator<Item = Answer>,
    count: usize,
) -> (Vec<String>, Vec<String>) {
    let script = Script::default();
    script.answers.lock().unwrap().extend(answers);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(serve).with_state(script.clone());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let client = Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
    let (out, mut steps) = mpsc::channel(64);
    let watch = tokio::spawn(Watch::<Namespace>::new(client, Scope::default(), out).run());
    let told = Mutex::new(Vec::new());
    let enough = || told.lock().unwrap().len() >= count;
    let all = async {
        while !enough() {
            let step = match steps.recv().await.expect("the watch runs") {
                Told::Applied(object) => format!("+{}", name(&object)),
                Told::Gone(object) => format!("-{}", name(&object)),
                Told::Listed(kind) => format!("listed {kind}"),
            };
            told.lock().unwrap().push(step);
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(10), all).await;
    let told = told.into_inner().unwrap();
    assert!(in_time.is_ok(), "only {told:?}");
    watch.abort();
    server.abort();
    let asked = script.asked.lock().unwrap().clone();
    (told, asked)
}

fn name(object: &Object) -> &str {
    object.metadata().map_or("", |metadata| &metadata.name)
}

const A: &str = r#"{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"3"}}}"#;
const B: &str = r#"{"type":"ADDED","object":{"metadata":{"name":"b","resourceVersion":"4"}}}"#;
const C: &str = r#"{"type":"ADDED","object":{"metadata":{"name":"c","resourceVersion":"9"}}}"#;
const NOT_A: &str =
    r#"{"type":"DELETED","object":{"metadata":{"name":"a","resourceVersion":"5"}}}"#;
const END: &str = r#"{"type":"BOOKMARK","object":{"kind":"Namespace","apiVersion":"v1","metadata":{"resourceVersion":"7","annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
const LATER: &str = r#"{"type":"BOOKMARK","object":{"kind":"Namespace","apiVersion":"v1","metadata":{"resourceVersion":"8"}}}"#;
const EXPIRED: &str = r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version: 7 (99)","reason":"Expired","code":410}}"#;
const UNREADABLE: &str = r#"{"type":"ADDED","object":{"metadata":{"name":"x","labels":5}}}"#;
const REFUSED: &str = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled","reason":"Invalid","code":422}"#;
const FIRST_PAGE: &str = r#"{"kind":"NamespaceList","apiVersion":"v1","metadata":{"resourceVersion":"7","continue":"more"},"items":[{"metadata":{"name":"a"}}]}"#;
const LAST_PAGE: &str = r#"{"kind":"NamespaceList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"b"}}]}"#;

#[tokio::test]
async fn a_list_is_streamed_and_followed_from_its_last_version() {
    let (told, asked) = told([Answer::Lines(&[A, B, END, LATER]), Answer::Lines(&[C])], 4).await;
    assert_eq!(told, ["+a", "+b", "listed Namespace", "+c"]);
    for word in [
        "watch=true",
        "sendInitialEvents=true",
        "allowWatchBookmarks=true",
    ] {
        assert!(asked[0].contains(word), "{word}: {}", asked[0]);
    }
    assert!(asked[1].contains("resourceVersion=8"), "{}", asked[1]);
    assert!(!asked[1].contains("sendInitialEvents"), "{}", asked[1]);
}

#[tokio::test]
async fn a_server_that_does_not_stream_lists_is_asked_for_pages() {
    let answers = [
        Answer::Body(422, REFUSED),
        Answer::Body(200, FIRST_PAGE),
        Answer::Body(200, LAST_PAGE),
        Answer::Lines(&[C]),
    ];
    let (told, asked) = told(answers, 4).await;
    assert_eq!(told, ["+a", "+b", "listed Namespace", "+c"]);
    assert!(asked[1].contains("limit=500"), "{}", asked[1]);
    assert!(asked[2].contains("continue=more"), "{}", asked[2]);
    assert!(asked[3].contains("resourceVersion=7"), "{}", asked[3]);
}

#[tokio::test]
async fn a_version_too_old_lists_anew_and_what_is_gone_is_told() {
    let answers = [
        Answer::Lines(&[A, B, END]),
        Answer::Lines(&[EXPIRED]),
        Answer::Lines(&[B, END]),
    ];
    let (told, asked) = told(answers, 6).await;
    let expected = [
        "+a",
        "+b",
        "listed Namespace",
        "+b",
        "-a",
        "listed Namespace",
    ];
    assert_eq!(told, expected);
    assert!(asked[2].contains("sendInitialEvents=true"), "{}", asked[2]);
}

#[tokio::test]
async fn a_list_that_broke_off_is_remembered() {
    // `a` was told by the first list, which did not end, and is gone at the second.
    let answers = [Answer::Lines(&[A, B]), Answer::Lines(&[B, END])];
    let (told, _) = told(answers, 5).await;
    assert_eq!(told, ["+a", "+b", "+b", "-a", "listed Namespace"]);
}

#[tokio::test]
async fn what_is_deleted_while_the_list_streams_is_gone_once() {
    let answers = [
        Answer::Lines(&[A, B, NOT_A, END]),
        Answer::Lines(&[EXPIRED]),
        Answer::Lines(&[B, END]),
    ];
    let (told, _) = told(answers, 6).await;
    let expected = [
        "+a",
        "+b",
        "-a",
        "listed Namespace",
        "+b",
        "listed Namespace",
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn an_object_that_cannot_be_read_does_not_keep_the_others_away() {
    let (told, _) = told([Answer::Lines(&[A, UNREADABLE, B, END])], 3).await;
    assert_eq!(told, ["+a", "+b", "listed Namespace"]);
}
