//! What the data plane knows, as JSON.

use std::{io, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use cache::Cache;

use super::super::stream::{Chunked, streamed};
use crate::record::Queries;

pub(super) fn router(cache: Arc<Cache>, queries: Queries) -> Router {
    let mesh = Router::new().route("/debug/config_dump/dual-engine", get(mesh)).with_state(cache);
    mesh.merge(Router::new().route("/debug/connections", get(connections)).with_state(queries))
}

async fn mesh(State(cache): State<Arc<Cache>>) -> Response {
    let mesh = Arc::clone(&*cache.load());
    json(streamed(move |out| serde_json::to_writer(out, &mesh.dump()).map_err(io::Error::from)))
}

async fn connections(State(queries): State<Queries>) -> Response {
    match queries.connections() {
        Some(chunks) => json(Body::new(Chunked(chunks))),
        None => (StatusCode::SERVICE_UNAVAILABLE, "too many questions at a time\n").into_response(),
    }
}

fn json(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
