//! A server for each Service with a healthCheckNodePort: load balancers of the policy Local ask whether this node has
//! an endpoint (pkg/proxy/healthcheck/service_health.go).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use axum::Router;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::response::Response;
use jiff::Timestamp;
use portolan_core::object::ObjectName;
use portolan_core::state::Problem;
use serde::Serialize;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::Snapshot;
use super::listen::{Problems, answer, open};

type Shared = (ObjectName, watch::Receiver<Snapshot>);

const WEIGHT: &str = "X-Load-Balancing-Endpoint-Weight";

/// The body, with kube-proxy's names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    service: BodyName<'a>,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

#[derive(Serialize)]
struct BodyName<'a> {
    namespace: &'a str,
    name: &'a str,
}

/// A server that listens; it stops, and closes what is idle, when this is dropped.
struct Running {
    port: u16,
    _stop: oneshot::Sender<()>,
}

/// Keeps one server for each Service of the snapshot.
pub(super) async fn serve(ip: IpAddr, mut snapshots: watch::Receiver<Snapshot>, problems: Problems) {
    let mut running: BTreeMap<ObjectName, Running> = BTreeMap::new();
    let mut refused: BTreeMap<ObjectName, u16> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let wanted: BTreeMap<ObjectName, u16> =
            snapshots.borrow_and_update().services.iter().map(|(name, s)| (name.clone(), s.port)).collect();
        running.retain(|name, server| wanted.get(name) == Some(&server.port));
        for name in refused.keys().filter(|name| !wanted.contains_key(*name)) {
            problems.clear(&subject(name));
        }
        refused.clear();
        for (name, port) in wanted {
            if running.contains_key(&name) {
                continue;
            }
            match start(SocketAddr::new(ip, port), &name, &snapshots, &mut tasks) {
                Ok(server) => {
                    problems.clear(&subject(&name));
                    running.insert(name, server);
                }
                Err(error) => {
                    problems.put(problem(&name, port, &error));
                    refused.insert(name, port);
                }
            }
        }
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(problems.retry), if !refused.is_empty() => {}
            Some(_) = tasks.join_next() => {}
        }
    }
}

fn start(
    address: SocketAddr,
    name: &ObjectName,
    snapshots: &watch::Receiver<Snapshot>,
    tasks: &mut JoinSet<()>,
) -> std::io::Result<Running> {
    let listener = open(address)?;
    let router = Router::new()
        .fallback(|State((name, snapshots)): State<Shared>| async move { respond(&name, &snapshots) })
        .with_state((name.clone(), snapshots.clone()));
    let (stop, stopped) = oneshot::channel::<()>();
    tasks.spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        let _ = axum::serve(listener, router).with_graceful_shutdown(stopped).await;
    });
    Ok(Running { port: address.port(), _stop: stop })
}

fn respond(name: &ObjectName, snapshots: &watch::Receiver<Snapshot>) -> Response {
    let snapshot = snapshots.borrow();
    let local_endpoints = snapshot.services.get(name).map_or(0, |service| service.local_endpoints);
    let service_proxy_healthy = snapshot.state.is_healthy(Timestamp::now());
    let service = BodyName { namespace: &name.namespace, name: &name.name };
    let body = tabbed(&Body { service, local_endpoints, service_proxy_healthy });
    let mut response = answer(local_endpoints > 0 && service_proxy_healthy, body);
    response.headers_mut().insert(WEIGHT, HeaderValue::from(local_endpoints));
    response
}

/// JSON indented with tabs, as kube-proxy's.
fn tabbed(body: &Body<'_>) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    match body.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter)) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => error.to_string(),
    }
}

fn subject(name: &ObjectName) -> String {
    format!("Service {name}")
}

fn problem(name: &ObjectName, port: u16, error: &std::io::Error) -> Problem {
    Problem {
        subject: subject(name),
        reason: "FailedToStartServiceHealthcheck",
        message: format!(
            "cannot listen on the healthCheckNodePort {port}: {error}; load balancers take this node for unhealthy \
             until what uses the port ends or the Service gets another one"
        ),
    }
}
