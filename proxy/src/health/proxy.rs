//! `/healthz`, which load balancers of the policy Cluster ask, and `/livez`, which kubelet asks: a node that is being
//! drained is no longer to be used, but its daemon is not to be restarted (KEP-3836).

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use jiff::Timestamp;
use tokio::sync::watch;

use super::listen::{answer, code};
use super::{Health, Snapshot};
use crate::metrics::Metrics;

type Shared = (watch::Receiver<Snapshot>, Arc<Metrics>);

pub(super) fn router(snapshots: watch::Receiver<Snapshot>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/healthz", get(|State(shared): State<Shared>| async move { healthz(&shared) }))
        .route("/livez", get(|State(shared): State<Shared>| async move { livez(&shared) }))
        .with_state((snapshots, metrics))
}

fn healthz((snapshots, metrics): &Shared) -> Response {
    let health = health(snapshots, true);
    metrics.healthz(code(health.is_ok()).as_u16());
    respond(&health)
}

fn livez((snapshots, metrics): &Shared) -> Response {
    let health = health(snapshots, false);
    metrics.livez(code(health.is_ok()).as_u16());
    respond(&health)
}

fn health(snapshots: &watch::Receiver<Snapshot>, with_node: bool) -> Health {
    let snapshot = snapshots.borrow();
    snapshot.state.health(with_node.then_some(snapshot.node_eligible), Timestamp::now())
}

fn respond(health: &Health) -> Response {
    match serde_json::to_string(health) {
        Ok(body) => answer(health.is_ok(), body),
        Err(error) => answer(false, error.to_string()),
    }
}
