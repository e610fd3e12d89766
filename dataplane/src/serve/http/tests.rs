//! Clients that are slow, many, broken or mean harm.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    routing::{get, post},
};
use prometheus::IntCounter;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{Limits, serve};

/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
const HOST: &str = "Host: x\r\n";

/// A port that serves: `/` at once, `/wait` once it is let, `/echo` what it is sent, `/endless` for ever.
struct Port {
    address: SocketAddr,
    displaced: IntCounter,
    let_go: Arc<Semaphore>,
    answered: Arc<Semaphore>,
    _stop: DropGuard,
}

impl Port {
    async fn start(limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, displaced) = (CancellationToken::new(), IntCounter::new("displaced", "Displaced.").unwrap());
        let (let_go, answered) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (allowed, done) = (let_go.clone(), answered.clone());
        let wait = get(async move || {
            allowed.acquire().await.unwrap().forget();
            done.add_permits(1);
            "let go"
        });
        let endless = get(async || {
            crate::serve::stream::streamed(|out| {
                loop {
                    out.write_all(&[b'x'; 4096])?
                }
            })
        });
        let router = Router::new()
            .route("/", get(async || "here"))
            .route("/wait", wait)
            .route("/endless", endless)
            .route("/echo", post(async |body: String| body));
        TaskTracker::new().spawn(serve(listener, router, limits, displaced.clone(), stop.clone()));
        Self { address, displaced, let_go, answered, _stop: stop.drop_guard() }
    }

    async fn send(&self, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// Sends something, and returns what comes until the server ends the connection.
    async fn ask(&self, text: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // A server that has read enough may have closed already.
        let _ = stream.write_all(text.as_bytes()).await;
        rest(&mut stream).await
    }
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let read = async {
        let mut some = [0; 4096];
        // A reset after the answer ends it too.
        while let Ok(read @ 1..) = stream.read(&mut some).await {
            text.extend_from_slice(&some[..read]);
        }
    };
    timeout(PATIENCE, read).await.expect("the server ends the connection");
    String::from_utf8_lossy(&text).into_owned()
}

fn get_once(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n")
}

#[tokio::test]
async fn heads_that_never_end_keep_nobody_out() {
    let limits = Limits { connections: 8, ..Limits::default() };
    let port = Port::start(limits).await;
    let mut slow = Vec::new();
    for _ in 0..3 * limits.connections {
        slow.push(port.send(&format!("GET / HTTP/1.1\r\n{HOST}X-Slow: ")).await);
        assert!(port.ask(&get_once("/")).await.ends_with("here"));
    }
    assert_eq!(rest(&mut slow[0]).await, "", "the first has made room");
    assert!(port.displaced.get() >= 2 * limits.connections as u64, "{}", port.displaced.get());
}

#[tokio::test]
async fn who_waits_for_an_answer_keeps_the_place() {
    let limits = Limits { connections: 4, ..Limits::default() };
    let port = Port::start(limits).await;
    let mut working = port.send(&get_once("/wait")).await;
    for _ in 0..5 * limits.connections {
        assert!(port.ask(&get_once("/")).await.ends_with("here"));
        drop(port.send("GET ").await);
    }
    port.let_go.add_permits(1);
    assert!(rest(&mut working).await.ends_with("let go"));
}

#[tokio::test]
async fn a_port_whose_clients_are_all_served_lets_the_next_one_wait() {
    let limits = Limits { connections: 2, ..Limits::default() };
    let port = Port::start(limits).await;
    let mut working = [port.send(&get_once("/wait")).await, port.send(&get_once("/wait")).await];
    let mut third = port.send(&get_once("/")).await;
    port.let_go.add_permits(2);
    for stream in &mut working {
        assert!(rest(stream).await.ends_with("let go"));
    }
    assert!(rest(&mut third).await.ends_with("here"));
}

#[tokio::test]
async fn a_client_that_leaves_does_not_stop_what_it_asked_for() {
    let port = Port::start(Limits::default()).await;
    let leaving = port.send(&get_once("/wait")).await;
    // Answered after it: so the first request has been read, too, or will be.
    assert!(port.ask(&get_once("/")).await.ends_with("here"));
    drop(leaving);
    assert!(port.ask(&get_once("/")).await.ends_with("here"));
    port.let_go.add_permits(1);
    timeout(PATIENCE, port.answered.acquire()).await.expect("it is done all the same").unwrap().forget();
}

#[tokio::test]
async fn a_head_that_does_not_come_in_time_ends_the_connection() {
    let port = Port::start(Limits { head: Duration::from_millis(50), ..Limits::default() }).await;
    assert_eq!(port.ask("").await, "");
    assert!(!port.ask("GET / HTTP/1.1\r\nHost:").await.contains("200"));
    let idle_afterwards = port.ask(&format!("GET / HTTP/1.1\r\n{HOST}\r\n")).await;
    assert!(idle_afterwards.ends_with("here"), "{idle_afterwards}");
}

#[tokio::test]
async fn heads_and_bodies_that_are_too_large_or_too_slow_are_refused() {
    let port = Port::start(Limits { body: Duration::from_millis(50), ..Limits::default() }).await;
    let many: String = (0..150).map(|n| format!("X-{n}: 1\r\n")).collect();
    let post = |length: usize| format!("POST /echo HTTP/1.1\r\n{HOST}Content-Length: {length}\r\n\r\n");
    let chunked = format!("POST /echo HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n");
    for (text, status) in [
        (format!("GET / HTTP/1.1\r\n{HOST}X-Huge: {}\r\n\r\n", "x".repeat(100_000)), "431"),
        (format!("GET /{} HTTP/1.1\r\n{HOST}\r\n", "x".repeat(70_000)), "4"),
        (format!("GET / HTTP/1.1\r\n{HOST}{many}\r\n"), "431"),
        (post(1 << 40), "413"),
        (post(100_000) + &"x".repeat(100_000), "413"),
        (chunked.clone() + "20000\r\n" + &"x".repeat(0x20000), "413"),
        (post(10) + "short", "408"),
        (chunked + "3\r\nabc\r\n", "408"),
        (format!("GET / HTTP/1.1\r\n{HOST}Content-Length: 10\r\n\r\n"), "408"),
    ] {
        let answer = port.ask(&text).await;
        let shown = &text[..text.len().min(60)];
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{shown:?}: {answer:?}");
    }
    let answer = port.ask(&(post(5).replace(HOST, "Host: x\r\nConnection: close\r\n") + "whole")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("whole"), "{answer}");
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_hurts_nobody() {
    let port = Port::start(Limits { head: Duration::from_millis(200), ..Limits::default() }).await;
    for text in [
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/1.1\r\nHost x\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere:443\r\n\r\n",
        "BREW / HTTP/1.1\r\nHost: x\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
        "DELETE /echo HTTP/1.1\r\nHost: x\r\n\r\n",
        "\r\n\r\n\r\n",
    ] {
        let answer = port.ask(text).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{text:?}: {answer:?}");
    }
    assert!(port.ask(&get_once("/")).await.ends_with("here"));
}

#[tokio::test]
async fn an_answer_that_takes_too_long_ends_the_connection() {
    let port = Port::start(Limits { request: Duration::from_millis(100), ..Limits::default() }).await;
    // It reads all the time, and is ended all the same.
    let answer = port.ask(&get_once("/endless")).await;
    assert!(answer.starts_with("HTTP/1.1 200"));
}
