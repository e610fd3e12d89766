//! Where connections go, as JSON.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;

use super::super::stream::streamed;
use crate::sync::{EXPLAIN, Explainer, SERVICES};

#[derive(Debug, Deserialize)]
struct Connection {
    #[serde(default)]
    src: String,
    #[serde(default)]
    dst: String,
}

pub(super) fn router(explainer: Explainer) -> Router {
    Router::new().route(EXPLAIN, get(explain)).route(SERVICES, get(services)).with_state(explainer)
}

async fn explain(State(explainer): State<Explainer>, Query(of): Query<Connection>) -> Response {
    match (of.src.parse::<IpAddr>(), of.dst.parse::<SocketAddr>()) {
        (Ok(source), Ok(dialled)) => Json(explainer.explain(source, dialled)).into_response(),
        _ => (StatusCode::BAD_REQUEST, "src is an address, dst an address and port\n").into_response(),
    }
}

async fn services(State(explainer): State<Explainer>) -> Response {
    let body = streamed(move |out| serde_json::to_writer(out, &explainer.services()).map_err(io::Error::from));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
