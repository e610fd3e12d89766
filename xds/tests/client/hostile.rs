//! What cannot be used, and what must not harm.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::{IpAddr, Ipv4Addr},
    task::{Context, Poll},
};

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Status, body::Body, server::NamedService, transport::Server};

use crate::{
    plane::{ADDRESS, Plane, any, discovery::Resource, pod, service, workload},
    world::{World, config},
};

const WEB: &str = "Kubernetes//Pod/shop/web-1";
const DB: &str = "Kubernetes//Pod/shop/db-0";
const SERVICE: &str = "shop/web.shop.svc.cluster.local";

fn web() -> Resource {
    workload(pod("web-1", [10, 1, 0, 1], "web"))
}

/// A pod that cannot be used, since its address has five bytes.
fn broken(name: &str) -> Resource {
    let mut pod = pod(name, [0; 4], "web");
    pod.addresses = vec![vec![1, 2, 3, 4, 5].into()];
    workload(pod)
}

#[tokio::test]
async fn what_cannot_be_used_is_named_and_the_rest_applies() {
    let plane = Plane::start().await;
    let world = World::of(&plane);
    let (mut stream, _) = plane.greet().await;
    let complaint = stream.send(vec![broken("db-0"), web(), service("web", [10, 96, 0, 1])], &[]).await;
    assert_eq!(complaint, Some(format!("1 of 3 resources cannot be used: {DB:?}: an address has 5 bytes")));
    assert_eq!(world.names(), [WEB, SERVICE]);
    assert_eq!(world.metric("meshd_xds_nacks_total"), 1.0);
    assert_eq!(world.metric("meshd_xds_rejected_resources_total"), 1.0);
    assert!(world.status.is_synced());

    stream.end(Status::unavailable("restart")).await;
    let (mut stream, first) = plane.greet().await;
    let sent: Vec<_> = first.initial_resource_versions.keys().collect();
    assert_eq!(sent, [WEB, SERVICE], "what was rejected is asked for again");
    assert_eq!(stream.send(vec![workload(pod("db-0", [10, 1, 0, 2], "db"))], &[]).await, None);
    assert_eq!(world.names(), [DB, WEB, SERVICE]);
}

#[tokio::test]
async fn what_was_held_stays_while_its_update_cannot_be_used() {
    let plane = Plane::start().await;
    let world = World::of(&plane);
    let (mut stream, _) = plane.greet().await;
    stream.send(vec![web(), workload(pod("db-0", [10, 1, 0, 2], "db"))], &[]).await;
    assert!(stream.send(vec![broken("db-0")], &[]).await.is_some());
    let holder = || world.cache.load().workload_at("", IpAddr::from([10, 1, 0, 2])).map(|w| w.uid.to_string());
    assert_eq!(holder().as_deref(), Some(DB));

    // Still broken after a new start: still held, since it is there.
    stream.end(Status::unavailable("restart")).await;
    let (mut stream, first) = plane.greet().await;
    assert_eq!(first.initial_resource_versions.keys().collect::<Vec<_>>(), [WEB]);
    assert!(stream.send(vec![broken("db-0")], &[]).await.is_some());
    assert_eq!(holder().as_deref(), Some(DB));

    // Not mentioned after the next: it was not in the versions, so the server cannot know that it is held here.
    stream.end(Status::unavailable("restart")).await;
    let (mut stream, first) = plane.greet().await;
    assert_eq!(first.initial_resource_versions.keys().collect::<Vec<_>>(), [WEB]);
    stream.send(vec![], &[]).await;
    assert_eq!(world.names(), [WEB]);
}

#[tokio::test]
async fn what_was_held_stays_too_when_everything_is_sent_again() {
    let plane = Plane::start().await;
    let world = World::of(&plane);
    let (mut stream, _) = plane.greet().await;
    let db = || workload(pod("db-0", [10, 1, 0, 2], "db"));
    stream.send(vec![web(), db(), service("web", [10, 96, 0, 1])], &[]).await;
    stream.end(Status::unavailable("restart")).await;
    let (stream, first) = plane.greet().await;
    assert_eq!(first.initial_resource_versions.len(), 3);
    stream.end(Status::resource_exhausted("received message larger than max")).await;
    let (mut stream, first) = plane.greet().await;
    assert!(first.initial_resource_versions.is_empty(), "a server that refuses the versions is asked for everything");
    assert!(stream.send(vec![broken("db-0"), service("web", [10, 96, 0, 1])], &[]).await.is_some());
    assert_eq!(world.names(), [DB, SERVICE], "what came broken stays, what did not come goes");
}

#[tokio::test]
async fn garbage_in_a_resource_harms_only_that() {
    let plane = Plane::start().await;
    let world = World::of(&plane);
    let (mut stream, _) = plane.greet().await;
    let garbage = vec![
        any("garbage", "1", ADDRESS, vec![0xff; 40]),
        any("empty", "1", ADDRESS, vec![]),
        any("other", "1", "type.googleapis.com/other", vec![1, 2, 3]),
        any("", "1", ADDRESS, vec![]),
        Resource { name: "bare".to_owned(), ..Default::default() },
        any("forged\nname\u{1b}[31m", "1", ADDRESS, vec![]),
        web(),
    ];
    let complaint = stream.send(garbage, &[]).await.expect("it complains");
    assert!(
        complaint.starts_with("6 of 7 resources cannot be used: \"garbage\": the resource cannot be read: "),
        "{complaint}"
    );
    let rest = "\"empty\": it is neither a workload nor a service; \"other\": its type is \"type.googleapis.com/other\"; \
        \"\": the resource's name is empty; \"bare\": the resource is empty; \
        \"forged\\nname\\u{1b}[31m\": it is neither a workload nor a service";
    assert!(complaint.ends_with(rest), "{complaint}");
    assert_eq!(world.names(), [WEB]);
}

#[tokio::test]
async fn a_name_of_a_mebibyte_is_refused_in_a_short_complaint() {
    let plane = Plane::start().await;
    let world = World::of(&plane);
    let (mut stream, _) = plane.greet().await;
    let name = "n".repeat(1 << 20);
    let mut long = pod("long", [10, 1, 0, 9], "web");
    long.canonical_name = name.clone();
    let mut resources = vec![any(&name, "1", ADDRESS, vec![]), workload(long), web()];
    resources.extend((0..20).map(|i| broken(&format!("broken-{i}"))));
    let complaint = stream.send(resources, &[]).await.expect("it complains");
    let starts = format!(
        "22 of 23 resources cannot be used: \"{}...\": the resource's name is 1048576 bytes long",
        "n".repeat(120)
    );
    assert!(complaint.starts_with(&starts), "{complaint}");
    assert!(complaint.contains("canonical_name is 1048576 bytes long, at most 4096 are accepted"), "{complaint}");
    assert!(complaint.ends_with("; and 12 more") && complaint.len() < 4096, "{complaint}");
    assert_eq!(world.names(), [WEB]);
    // Removed by that name, and asked for again, nothing grows.
    stream.send(vec![], &[&name]).await;
    assert_eq!(world.names(), [WEB]);
}

#[tokio::test]
async fn of_a_name_sent_twice_the_last_counts_and_no_name_speaks_for_another() {
    let plane = Plane::start().await;
    let world = World::of(&plane);
    let (mut stream, _) = plane.greet().await;
    let twice = |last| vec![web(), workload(pod("web-1", [10, 1, 0, last], "web"))];
    assert_eq!(stream.send(twice(7), &[]).await, None);
    let held = || world.cache.load().workload(WEB).unwrap().addresses.to_vec();
    assert_eq!(held(), [IpAddr::from([10, 1, 0, 7])]);
    assert_eq!(stream.send(twice(8), &[]).await, None);
    assert_eq!(held(), [IpAddr::from([10, 1, 0, 8])]);

    let mut forged = web();
    forged.name = "Kubernetes//Pod/shop/evil".to_owned();
    let complaint = stream.send(vec![forged], &[]).await;
    let expected =
        format!("1 of 1 resources cannot be used: \"Kubernetes//Pod/shop/evil\": it says that it is {WEB:?}");
    assert_eq!(complaint, Some(expected));
    assert_eq!(world.names(), [WEB]);
    assert_eq!(world.cache.load().workload_count(), 1);
}

/// Answers every call with the same bytes.
#[derive(Clone)]
struct Bytes {
    content_type: &'static str,
    body: String,
}

impl NamedService for Bytes {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl tower_service::Service<http::Request<Body>> for Bytes {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let response = http::Response::builder().header("content-type", self.content_type);
        ready(Ok(response.body(Body::new(self.body.clone())).unwrap()))
    }
}

async fn failure_after(content_type: &'static str, body: &[u8]) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let service = Bytes { content_type, body };
    let server =
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
    let world = World::start(config(format!("http://{address}")));
    let failure = world.failure().await;
    assert_eq!(world.names(), [""; 0]);
    server.abort();
    failure
}

#[tokio::test]
async fn a_stream_that_cannot_be_read_ends_with_one_clear_line() {
    let line = failure_after("application/grpc", b"\x00\x00\x00\x00\x04\x0b\x0b\x0b\x0b").await;
    assert_eq!(line, "it sent what cannot be read: a message cannot be read: a field has wire type 3");
    let line = failure_after("application/grpc", b"\x00\x00\x00\x00\x02\x12\x7f").await;
    assert_eq!(line, "it sent what cannot be read: a field is longer than its message");
    let line = failure_after("application/grpc", b"\x01\x00\x00\x00\x00").await;
    assert_eq!(line, "it sent what cannot be read: a message has compression flag 1, and no compression was agreed on");
    let line = failure_after("application/grpc", "\x00\x7f\x7f\x7f\x7f\x12\u{80}\u{ff}\x01".as_bytes()).await;
    let expected = "it sent what cannot be read: one field is 401653826 bytes long, at most 4194304 are accepted";
    assert_eq!(line, expected);
    let line = failure_after("text/html", b"<html>").await;
    assert_eq!(line, "it does not speak gRPC: it answered HTTP 200 OK with content type \"text/html\"");
}
