//! The four switches over HTTP.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use telemetry::Switch;

use crate::{
    cli::value::go_bool,
    control::{Control, Refused},
};

#[derive(Debug, Deserialize)]
struct Enable {
    #[serde(default)]
    enable: String,
}

pub(super) fn router(control: Arc<Control>) -> Router {
    let paths = [
        ("/monitoring", Switch::Monitoring),
        ("/accesslog", Switch::AccessLog),
        ("/workload_metrics", Switch::WorkloadMetrics),
        ("/connection_metrics", Switch::ConnectionMetrics),
    ];
    let mut router = Router::new();
    for (path, switch) in paths {
        let show = async move |State(control): State<Arc<Control>>| format!("{}\n", control.get(switch));
        let set = async move |State(control): State<Arc<Control>>, Query(query): Query<Enable>| {
            set(&control, switch, &query.enable).await
        };
        router = router.route(path, get(show).post(set));
    }
    router.with_state(control)
}

async fn set(control: &Control, switch: Switch, enable: &str) -> Response {
    let Ok(on) = go_bool(enable) else {
        return (StatusCode::BAD_REQUEST, format!("invalid accesslog enable={enable}")).into_response();
    };
    match control.choose(switch, on).await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(refused @ Refused::MonitoringOff(_)) => (StatusCode::BAD_REQUEST, refused.to_string()).into_response(),
        Err(Refused::Kernel(error)) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("monitoring cannot be changed: {error:#}\n")).into_response()
        }
    }
}
