//! `/metrics` and what kube-proxy serves beside it: tools read `/proxyMode` to tell who serves Services.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::Value;

use crate::metrics::{CONTENT_TYPE as METRICS_TYPE, Metrics};

pub(super) fn router(configz: Value, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/proxyMode", get(|| async { "portolan" }))
        .route("/configz", get(move || async move { Json(configz) }))
        .route("/metrics", get(|State(metrics): State<Arc<Metrics>>| async move { scrape(&metrics) }))
        .with_state(metrics)
}

fn scrape(metrics: &Metrics) -> Response {
    match metrics.encode() {
        Ok(text) => ([(CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
