//! Whatever is sent to the admin port: it is answered or refused, and only who is local and posts changes anything.

use std::{net::SocketAddr, time::Duration};

use proptest::{collection::vec, prelude::*, sample::Index, sample::select};
use tests::fuzz::fuzz;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Builder,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Port, port};
use crate::serve::http;

const PATIENCE: Duration = Duration::from_secs(20);
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];
const ALIVE: &[u8] = b"GET /debug/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const PATHS: [&str; 16] = [
    "/monitoring",
    "/accesslog",
    "/workload_metrics",
    "/connection_metrics",
    "/debug/loggers",
    "/debug/connections",
    "/debug/config_dump/dual-engine",
    "/debug/mesh",
    "/debug/ready",
    "/version",
    "/",
    "*",
    "//monitoring",
    "http://localhost/monitoring",
    "/%6donitoring",
    "/../monitoring",
];
const QUERIES: [&str; 9] = [
    "",
    "?enable=true",
    "?enable=0",
    "?enable=T&enable=F",
    "?enable=%74",
    "?enable",
    "?name=default",
    "?name=%ff",
    "?%",
];
const HOSTS: [&str; 8] =
    ["localhost:15200", "127.0.0.1", "[::1]:1", "evil.example", "localhost.evil.example", "localhost:x", "", "\u{e9}"];
const HEADERS: [&str; 7] = [
    "",
    "Origin: http://localhost\r\n",
    "Origin: null\r\n",
    "Host: localhost\r\n",
    "Expect: 100-continue\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Upgrade: h2c\r\nConnection: upgrade\r\n",
];
const BODIES: [&str; 6] = [
    "",
    "{\"name\":\"default\",\"level\":\"info\"}",
    "{\"name\":\"default\",\"level\":\"\\u0000\"}",
    "[[[[[[",
    "0\r\n\r\n",
    "5\r\nabcde\r\n0\r\n\r\n",
];

/// A request whose parts are likely to mean something, with bytes changed, cut and put in.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let method = select(vec!["GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "get", ""]);
    let query = prop_oneof![3 => select(QUERIES.to_vec()).prop_map(str::to_owned), 1 => "\\?enable=[ -~]{0,20}"];
    let body =
        prop_oneof![select(BODIES.to_vec()).prop_map(|body| body.as_bytes().to_vec()), vec(any::<u8>(), 0..100),];
    let changes = vec((any::<Index>(), 0..4_usize, vec(any::<u8>(), 0..4)), 0..4);
    let parts =
        (method, select(PATHS.to_vec()), query, select(HOSTS.to_vec()), select(HEADERS.to_vec()), body, changes);
    parts.prop_map(|(method, path, query, host, headers, body, changes)| {
        let mut bytes = format!(
            "{method} {path}{query} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend(body);
        for (at, cut, put) in changes {
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..(at + cut).min(bytes.len()), put);
        }
        bytes
    })
}

async fn answer(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("the port is open");
    // A server that has read enough may have closed already.
    let _ = stream.write_all(request).await;
    let (mut all, mut some) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = timeout(PATIENCE, stream.read(&mut some)).await.expect("the server ends the connection")
    {
        all.extend_from_slice(&some[..read]);
    }
    all
}

async fn property(port: &Port, address: SocketAddr, request: &[u8]) -> Result<(), TestCaseError> {
    let settings = || telemetry::Switches::ALL.map(|switch| port.switches.get(switch));
    let before = settings();
    let answered = answer(address, request).await;
    let text = String::from_utf8_lossy(&answered);
    let sent = String::from_utf8_lossy(request).to_lowercase();
    let local = LOCAL.iter().any(|name| sent.contains(name));
    prop_assert!(answered.is_empty() || text.starts_with("HTTP/1."), "{text}");
    let status = text.split(' ').nth(1).unwrap_or("");
    // There is no record thread here that could show connections.
    prop_assert!(!status.starts_with('5') || sent.contains("/debug/connections"), "{text}");
    prop_assert!(local || !status.starts_with('2'), "a stranger is answered {text}");
    prop_assert!(before == settings() || (local && sent.contains("post")), "switches are set");
    let alive = answer(address, ALIVE).await;
    prop_assert!(alive.starts_with(b"HTTP/1.1 200") && alive.ends_with(b"OK"), "{}", String::from_utf8_lossy(&alive));
    Ok(())
}

#[test]
fn fuzz_admin_requests() {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (address, port) = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, port) = (listener.local_addr().expect("it has one"), port(true));
        let brief = Duration::from_millis(20);
        let limits = http::Limits { head: brief, body: brief, ..http::Limits::default() };
        let displaced = prometheus::IntCounter::new("displaced", "Displaced.").expect("a name");
        let served = http::serve(listener, port.router.clone(), limits, displaced, CancellationToken::new());
        TaskTracker::new().spawn(served);
        (address, port)
    });
    fuzz("admin requests", &request(), |request| runtime.block_on(property(&port, address, &request)));
}
