//! The readiness port.

use std::sync::Arc;

use axum::{Router, extract::State, http::StatusCode, routing::get};

use crate::health::Readiness;

/// Serves `/healthz/ready`: 200 once ready, else 503 with what is missing, one line each.
pub fn router(readiness: Arc<Readiness>) -> Router {
    Router::new().route("/healthz/ready", get(ready)).with_state(readiness)
}

async fn ready(State(readiness): State<Arc<Readiness>>) -> (StatusCode, String) {
    match readiness.check() {
        Ok(()) => (StatusCode::OK, "OK\n".into()),
        Err(missing) => (StatusCode::SERVICE_UNAVAILABLE, missing + "\n"),
    }
}
