//! The log's levels over HTTP.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};

use crate::log::{LoggerError, Loggers};

#[derive(Debug, Deserialize)]
struct Name {
    name: Option<String>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Logger {
    name: String,
    level: String,
}

pub(super) fn router(loggers: Arc<Loggers>) -> Router {
    Router::new().route("/debug/loggers", get(show).post(set)).with_state(loggers)
}

async fn show(State(loggers): State<Arc<Loggers>>, Query(query): Query<Name>) -> Response {
    match query.name {
        None => Json(loggers.names()).into_response(),
        Some(name) => match loggers.level(&name) {
            Ok(level) => Json(Logger { name, level }).into_response(),
            Err(error) => refused(&error),
        },
    }
}

/// The body is JSON whatever its content type says: `kmeshctl` sends none.
async fn set(State(loggers): State<Arc<Loggers>>, body: String) -> Response {
    let logger: Logger = match serde_json::from_str(&body) {
        Ok(logger) => logger,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("not a logger: {error}\n")).into_response(),
    };
    match loggers.set(&logger.name, &logger.level) {
        Ok(()) => "OK".into_response(),
        Err(error) => refused(&error),
    }
}

fn refused(error: &LoggerError) -> Response {
    let status = match error {
        LoggerError::UnknownName(_) => StatusCode::NOT_FOUND,
        LoggerError::UnknownLevel(_) => StatusCode::BAD_REQUEST,
    };
    (status, format!("{error}\n")).into_response()
}
