//! Conversations with an API server, word for word.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::stream;
use portolan_core::event::Event;
use portolan_core::object::Object;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;

/// How long a notice may take; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the server says when it is asked about Services.
enum Answer {
    /// A page of a list: its objects, and a token if there are more.
    Page(Vec<Value>, &'static str),
    /// Events of a watch, which then stays open.
    Watch(Vec<Value>),
    /// Events of a watch, and then the connection is cut in the middle of a chunk.
    Cut(Vec<Value>),
    /// Events of a watch, which then ends as it should.
    Ended(Vec<Value>),
    /// An error.
    Error(u16, &'static str),
}

/// A server that answers requests about Services from a script and knows no other objects.
struct Server {
    notices: mpsc::Receiver<Notice>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts a server and a source that asks it, and takes the Resets of the kinds that are not in question.
    async fn start(script: Vec<Answer>) -> Self {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let script = Arc::new(Mutex::new(script.into_iter().rev().collect::<Vec<_>>()));
        let log = Arc::clone(&asked);
        let router = Router::new().fallback(move |request: Request| {
            let answer = answer(&request, &script, &log);
            async move { answer }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let file = tempfile::NamedTempFile::new().unwrap();
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{ "name": "c", "context": { "cluster": "k", "user": "u" } }],
            "clusters": [{ "name": "k", "cluster": { "server": url } }],
            "users": [{ "name": "u", "user": {} }],
        });
        std::fs::write(file.path(), kubeconfig.to_string()).unwrap();
        let client = connect(Some(file.path()), None).await.unwrap().client;
        let (sender, notices) = mpsc::channel(64);
        tokio::spawn(run(client, sender));
        Self { notices, asked }
    }

    /// The next notice about Services or health.
    async fn next(&mut self) -> String {
        loop {
            let notice = tokio::time::timeout(PATIENCE, self.notices.recv()).await.expect("a notice in time");
            let notice = notice.expect("the source goes on");
            if !matches!(&notice, Notice::Event(Event::Reset(kind, _)) if *kind != Kind::Service) {
                return show(&notice);
            }
        }
    }

    async fn expect(&mut self, notices: &[&str]) {
        for expected in notices {
            assert_eq!(self.next().await, *expected);
        }
    }

    /// The parameters of the requests so far.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(request: &Request, script: &Mutex<Vec<Answer>>, log: &Mutex<Vec<String>>) -> Response {
    let path = request.uri().path();
    let query = request.uri().query().unwrap_or_default().to_owned();
    if path != "/api/v1/services" {
        return other(path, &query);
    }
    log.lock().unwrap().push(query);
    let answer = script.lock().unwrap().pop();
    match answer {
        Some(Answer::Page(items, token)) => {
            let metadata = json!({ "resourceVersion": "5", "continue": token });
            json!({ "kind": "ServiceList", "apiVersion": "v1", "metadata": metadata, "items": items })
                .to_string()
                .into_response()
        }
        Some(Answer::Watch(events)) => watch(events, Then::Silence),
        Some(Answer::Cut(events)) => watch(events, Then::Cut),
        Some(Answer::Ended(events)) => watch(events, Then::End),
        Some(Answer::Error(code, message)) => error(code, message),
        None => watch(vec![], Then::Silence),
    }
}

/// Nodes and slices are there, but none; ServiceCIDRs are not known.
fn other(path: &str, query: &str) -> Response {
    if path.ends_with("/servicecidrs") {
        return (StatusCode::NOT_FOUND, "404 page not found\n").into_response();
    }
    let kind =
        if path.ends_with("/nodes") { ("v1", "Node") } else { ("discovery.k8s.io/v1", "EndpointSlice") };
    let events = if query.contains("sendInitialEvents") { vec![bookmark(kind)] } else { vec![] };
    watch(events, Then::Silence)
}

enum Then {
    Silence,
    Cut,
    End,
}

fn watch(events: Vec<Value>, then: Then) -> Response {
    let lines = events.into_iter().map(|event| Ok(Bytes::from(format!("{event}\n"))));
    let lines = stream::iter(lines.collect::<Vec<Result<Bytes, std::io::Error>>>());
    use futures::StreamExt;
    match then {
        Then::End => Body::from_stream(lines).into_response(),
        Then::Silence => Body::from_stream(lines.chain(stream::pending())).into_response(),
        Then::Cut => {
            // What came before is sent when there is nothing more for a moment.
            let cut = stream::once(async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("cut"))
            });
            Body::from_stream(lines.chain(cut)).into_response()
        }
    }
}

fn error(code: u16, message: &str) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message, "reason": "Test",
    });
    (StatusCode::from_u16(code).unwrap(), status.to_string()).into_response()
}

fn bookmark((api_version, kind): (&str, &str)) -> Value {
    let annotations = json!({ "k8s.io/initial-events-end": "true" });
    let metadata = json!({ "resourceVersion": "9", "annotations": annotations });
    json!({ "type": "BOOKMARK", "object": { "apiVersion": api_version, "kind": kind, "metadata": metadata } })
}

fn done() -> Value {
    bookmark(("v1", "Service"))
}

fn service(name: &str, port: i64) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "shop", "resourceVersion": "7" },
        "spec": { "clusterIP": "10.96.0.1", "ports": [{ "port": port }] },
    })
}

fn event(kind: &str, object: Value) -> Value {
    json!({ "type": kind, "object": object })
}

fn added(name: &str) -> Value {
    event("ADDED", service(name, 80))
}

fn gone() -> Value {
    event("ERROR", json!({ "kind": "Status", "code": 410, "message": "too old", "reason": "Expired" }))
}

fn show(notice: &Notice) -> String {
    match notice {
        Notice::Event(Event::Apply(object)) => format!("apply {}", object.key().name.name),
        Notice::Event(Event::Delete(key)) => format!("delete {}", key.name.name),
        Notice::Event(Event::Reset(_, objects)) => {
            let names: Vec<String> =
                objects.iter().map(|object: &Object| object.key().name.name.to_string()).collect();
            format!("reset {}", names.join(" "))
        }
        Notice::Rejected { what, .. } => format!("rejected {what}"),
        Notice::Accepted { what } => format!("accepted {what}"),
        Notice::Started => "started".into(),
        Notice::Health(Some(_)) => "failing".into(),
        Notice::Health(None) => "working".into(),
    }
}

#[tokio::test]
async fn a_streaming_list_and_its_changes() {
    let events = vec![
        added("a"),
        added("b"),
        done(),
        event("MODIFIED", service("a", 81)),
        event("MODIFIED", service("a", 81)),
        event("DELETED", service("b", 80)),
        event("DELETED", service("never", 80)),
    ];
    let mut server = Server::start(vec![Answer::Watch(events)]).await;
    server.expect(&["reset a b", "apply a", "apply a", "delete b", "delete never"]).await;
    let asked = server.asked();
    assert_eq!(asked.len(), 1);
    for parameter in [
        "sendInitialEvents=true",
        "timeoutSeconds=240",
        "labelSelector=%21service.kubernetes.io%2Fservice-proxy-name",
        "fieldSelector=spec.clusterIP%21%3DNone",
    ] {
        assert!(asked[0].contains(parameter), "{parameter} in {}", asked[0]);
    }
}

#[tokio::test]
async fn every_kind_is_reset_even_one_that_the_server_does_not_have() {
    let mut server = Server::start(vec![Answer::Watch(vec![done()])]).await;
    let mut kinds = std::collections::BTreeSet::new();
    while kinds.len() < 4 {
        let notice = tokio::time::timeout(PATIENCE, server.notices.recv()).await.expect("in time").unwrap();
        let Notice::Event(Event::Reset(kind, objects)) = notice else { panic!("{notice:?}") };
        assert!(objects.is_empty());
        kinds.insert(kind);
    }
}

#[tokio::test]
async fn a_server_without_streaming_lists_is_asked_for_pages() {
    let script = vec![
        Answer::Error(422, "sendInitialEvents is forbidden"),
        Answer::Page(vec![service("a", 80)], "more"),
        Answer::Page(vec![service("b", 80)], ""),
        Answer::Watch(vec![added("c")]),
    ];
    let mut server = Server::start(script).await;
    server.expect(&["reset a b", "apply c"]).await;
    let asked = server.asked();
    assert!(asked[1].contains("limit=500") && !asked[1].contains("watch"), "{asked:?}");
    assert!(asked[2].contains("continue=more"), "{asked:?}");
    assert!(asked[3].contains("resourceVersion=5"), "{asked:?}");
}

#[tokio::test]
async fn a_server_that_takes_no_notice_of_streaming_is_asked_for_pages() {
    let script = vec![Answer::Watch(vec![added("a")]), Answer::Page(vec![service("b", 80)], "")];
    let mut server = Server::start(script).await;
    server.expect(&["reset b"]).await;
}

#[tokio::test]
async fn an_expired_watch_lists_again_without_an_empty_moment() {
    let script =
        vec![Answer::Watch(vec![added("a"), done(), gone()]), Answer::Watch(vec![added("b"), done()])];
    let mut server = Server::start(script).await;
    server.expect(&["reset a", "reset b"]).await;
}

#[tokio::test]
async fn a_watch_that_cannot_be_resumed_lists_again() {
    let script = vec![
        Answer::Ended(vec![added("a"), done()]),
        Answer::Error(410, "too old"),
        Answer::Watch(vec![added("b"), done()]),
    ];
    let mut server = Server::start(script).await;
    server.expect(&["reset a", "reset b"]).await;
    assert!(server.asked()[1].contains("resourceVersion=9"), "{:?}", server.asked());
}

#[tokio::test]
async fn a_cut_connection_is_resumed() {
    let script = vec![Answer::Cut(vec![added("a"), done(), added("b")]), Answer::Watch(vec![added("c")])];
    let mut server = Server::start(script).await;
    server.expect(&["reset a", "apply b"]).await;
    // How the cut shows depends on where it fell; the watch goes on in any case.
    let mut next = server.next().await;
    if next == "failing" {
        assert_eq!(server.next().await, "working");
        next = server.next().await;
    }
    assert_eq!(next, "apply c");
    assert!(server.asked()[1].contains("resourceVersion=7"), "{:?}", server.asked());
}

#[tokio::test]
async fn a_list_that_is_cut_is_not_delivered() {
    let script = vec![Answer::Cut(vec![added("a")]), Answer::Watch(vec![added("b"), done()])];
    let mut server = Server::start(script).await;
    let mut next = server.next().await;
    while ["failing", "working"].contains(&next.as_str()) {
        next = server.next().await;
    }
    assert_eq!(next, "reset b");
}

#[tokio::test]
async fn a_server_that_fails_is_asked_until_it_works() {
    let script = vec![
        Answer::Error(403, "services is forbidden"),
        Answer::Error(404, "something that is no API server"),
        Answer::Watch(vec![added("a"), done()]),
    ];
    let mut server = Server::start(script).await;
    server.expect(&["failing", "failing", "working", "reset a"]).await;
}

#[tokio::test]
async fn health_returns_without_any_event() {
    let script = vec![Answer::Ended(vec![done()]), Answer::Error(500, "x"), Answer::Watch(vec![])];
    let mut server = Server::start(script).await;
    server.expect(&["reset ", "failing", "working"]).await;
}

#[tokio::test]
async fn a_bad_object_is_refused_alone() {
    let malformed =
        json!({ "metadata": { "name": "bad", "namespace": "shop", "resourceVersion": "7" }, "spec": 5 });
    let events = vec![
        added("a"),
        event("ADDED", malformed.clone()),
        event("ADDED", service("zero", 0)),
        done(),
        event("MODIFIED", service("bad", 80)),
        event("MODIFIED", malformed.clone()),
        event("MODIFIED", malformed),
        event("MODIFIED", service("bad", 81)),
        event("DELETED", service("zero", 0)),
    ];
    let mut server = Server::start(vec![Answer::Watch(events)]).await;
    server.expect(&["reset a", "rejected Service shop/bad", "rejected Service shop/zero"]).await;
    server.expect(&["apply bad", "accepted Service shop/bad", "rejected Service shop/bad"]).await;
    server.expect(&["apply bad", "accepted Service shop/bad"]).await;
    server.expect(&["delete zero", "accepted Service shop/zero"]).await;
}

/// Go writes a time that was never set as null, which the types of k8s-openapi do not have in conditions.
#[tokio::test]
async fn a_condition_without_a_time_is_no_reason_to_refuse() {
    let mut changed = service("a", 81);
    let condition = json!({ "type": "Ready", "status": "True", "reason": "R", "message": "", "lastTransitionTime": null });
    changed["status"] = json!({ "loadBalancer": {}, "conditions": [condition] });
    let events = vec![added("a"), done(), event("MODIFIED", changed)];
    let mut server = Server::start(vec![Answer::Watch(events)]).await;
    server.expect(&["reset a", "apply a"]).await;
}

#[tokio::test]
async fn what_is_not_ours_any_more_is_deleted() {
    let mut external = service("a", 80);
    external["spec"]["type"] = json!("ExternalName");
    let events =
        vec![added("a"), event("ADDED", external.clone()), done(), added("a"), event("MODIFIED", external)];
    let mut server = Server::start(vec![Answer::Watch(events)]).await;
    server.expect(&["reset a", "apply a", "delete a"]).await;
}
