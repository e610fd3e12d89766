//! The metrics port: read only, and a slow scraper costs a few chunks of memory.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use telemetry::{Exposition, exposition::Encoding, negotiate};
use tokio::{sync::Semaphore, time::timeout};

use super::stream::streamed;

/// Scrapes that encode at a time.
const SCRAPES: usize = 4;
/// How long a scrape waits for its turn: longer than those take, one after the other, who do not read.
const TURN: Duration = Duration::from_secs(8);

#[derive(Clone)]
struct Scraped {
    exposition: Arc<Exposition>,
    turns: Arc<Semaphore>,
}

/// Serves the metrics at the three paths that Kmesh and Istio are scraped at, and nothing else.
pub fn router(exposition: Arc<Exposition>) -> Router {
    let scraped = Scraped { exposition, turns: Arc::new(Semaphore::new(SCRAPES)) };
    Router::new()
        .route("/metrics", get(scrape))
        .route("/status/metric", get(scrape))
        .route("/stats/prometheus", get(scrape))
        .with_state(scraped)
}

async fn scrape(State(scraped): State<Scraped>, headers: HeaderMap) -> Response {
    let Ok(Ok(turn)) = timeout(TURN, scraped.turns.acquire_owned()).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at a time\n").into_response();
    };
    let asked = negotiate(&joined(&headers, header::ACCEPT), &joined(&headers, header::ACCEPT_ENCODING));
    let mut response = streamed(move |out| {
        let _turn = turn;
        scraped.exposition.scrape(asked, out)
    })
    .into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asked.format.content_type()));
    headers.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
    if asked.encoding == Encoding::Gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// A header that came in several lines is one list (RFC 9110, 5.3).
fn joined(headers: &HeaderMap, name: header::HeaderName) -> String {
    let values: Vec<_> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}

#[cfg(test)]
mod tests;
