//! How the mesh state stands, as JSON.

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::get};
use cache::Cache;

use crate::mesh::{self, Source, Standing};

pub(super) fn router(cache: Arc<Cache>, source: Source) -> Router {
    Router::new().route(mesh::PATH, get(standing)).with_state((cache, source))
}

async fn standing(State((cache, source)): State<(Arc<Cache>, Source)>) -> Json<Standing> {
    Json(source.standing(&cache))
}
