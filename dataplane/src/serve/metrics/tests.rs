use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use axum::{
    body::{Body, to_bytes},
    http::{Request, Response, StatusCode},
};
use cache::{Cache, Node};
use flate2::read::GzDecoder;
use prometheus::{IntCounter, IntGauge};
use socket2::{Domain, Socket, Type};
use telemetry::{AccessLog, Clock, Config, Exposition, NodeAddresses, Switches};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use super::{SCRAPES, router};
use crate::serve::http;

/// An exposition with one gauge besides what telemetry brings, and `more` that make it large.
fn exposition(more: usize) -> Arc<Exposition> {
    let config = Config::default();
    let log = AccessLog::new(&config, std::io::sink()).unwrap();
    let cache = Arc::new(Cache::new(Node::default()));
    let (_, exposition) = telemetry::new(
        config,
        cache,
        Arc::new(Switches::default()),
        Arc::new(NodeAddresses::default()),
        Arc::new(Clock::with_offset(0)),
        log,
    );
    for n in 0..=more {
        let gauge = IntGauge::new(format!("test_gauge_{n}"), "Seven, always: one of many, whose help is long enough to fill what waits between a server and a client who does not read.").unwrap();
        gauge.set(7);
        exposition.registry().register(Box::new(gauge)).unwrap();
    }
    exposition
}

async fn ask(method: &str, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let request =
        headers.iter().fold(Request::builder().method(method).uri(path), |r, (name, value)| r.header(*name, *value));
    router(exposition(0)).oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

async fn body(response: Response<Body>) -> Vec<u8> {
    to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()
}

#[tokio::test]
async fn the_three_paths_serve_the_same_and_nothing_else_is_there() {
    for path in ["/metrics", "/status/metric", "/stats/prometheus"] {
        let response = ask("GET", path, &[]).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        let text = String::from_utf8(body(response).await).unwrap();
        assert!(text.contains("\ntest_gauge_0 7\n"), "{path}: {text}");
    }
    for path in ["/", "/monitoring", "/debug/pprof", "/version", "/metrics/x", "/healthz/ready"] {
        assert_eq!(ask("GET", path, &[]).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        assert_eq!(ask(method, "/metrics", &[]).await.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
    }
}

#[tokio::test]
async fn format_and_encoding_are_what_the_scraper_asked_for() {
    let asked = [("accept", "application/openmetrics-text; version=1.0.0"), ("accept-encoding", "gzip")];
    let response = ask("GET", "/metrics", &asked).await;
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let mut text = String::new();
    GzDecoder::new(body(response).await.as_slice()).read_to_string(&mut text).unwrap();
    assert!(text.contains("\ntest_gauge_0 7\n") && text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scrapers_that_do_not_read_do_not_keep_others_from_scraping() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = TaskTracker::new().spawn(http::serve(
        listener,
        router(exposition(20_000)),
        http::Limits::default(),
        IntCounter::new("displaced", "Displaced.").unwrap(),
        stop.clone(),
    ));
    let scraped = tokio::task::spawn_blocking(move || {
        let ask = |buffer: Option<usize>| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            if let Some(size) = buffer {
                socket.set_recv_buffer_size(size).unwrap();
            }
            socket.connect(&address.into()).unwrap();
            let mut stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            stream
        };
        let _silent: Vec<_> = (0..2 * SCRAPES).map(|_| ask(Some(4096))).collect();
        let mut text = String::new();
        ask(None).read_to_string(&mut text).unwrap();
        text
    });
    let text = scraped.await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("test_gauge_20000 7"));
    stop.cancel();
    server.await.unwrap().unwrap();
}
