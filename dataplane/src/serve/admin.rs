//! The admin port: switches, loggers, and what the data plane knows.

mod dump;
mod host;
mod loggers;
mod mesh;
mod steering;
mod switches;

use std::sync::Arc;

use axum::{Json, Router, middleware, routing::get};
use cache::Cache;

use crate::{control::Control, log::Loggers, mesh::Source, record::Queries, sync::Explainer, version::version};

/// What the admin port shows and changes.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The switches, and what setting one entails.
    pub control: Arc<Control>,
    /// The log's levels.
    pub loggers: Arc<Loggers>,
    /// The mesh.
    pub cache: Arc<Cache>,
    /// Where the mesh is told.
    pub mesh: Source,
    /// The live connections.
    pub queries: Queries,
    /// Who says where connections go.
    pub explainer: Explainer,
}

/// Serves the admin paths, to this host alone: a browser that was lured to a page of another origin is refused.
pub fn router(admin: Admin) -> Router {
    let ready = get(async || "OK");
    Router::new()
        .merge(switches::router(admin.control))
        .merge(loggers::router(admin.loggers))
        .merge(mesh::router(admin.cache.clone(), admin.mesh))
        .merge(dump::router(admin.cache, admin.queries))
        .merge(steering::router(admin.explainer))
        .route("/debug/ready", ready)
        .route("/version", get(async || Json(version())))
        .layer(middleware::from_fn(host::local_only))
}

#[cfg(test)]
mod tests;
