//! Streams that break, and servers that are gone, silent or new.

use std::{net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tonic::Status;

use crate::{
    log::Log,
    plane::{ADDRESS, Plane, discovery::DeltaDiscoveryResponse, pod, service, workload},
    proxy::Proxy,
    world::{World, config},
};

const WEB: &str = "Kubernetes//Pod/shop/web-1";
const DB: &str = "Kubernetes//Pod/shop/db-0";
const SERVICE: &str = "shop/web.shop.svc.cluster.local";

#[tokio::test]
async fn a_new_stream_tells_what_is_held_and_takes_only_the_difference() {
    let plane = Plane::start().await;
    let world = World::of(&plane);
    let (mut stream, _) = plane.greet().await;
    let web = workload(pod("web-1", [10, 1, 0, 1], "web"));
    let mut odd = service("web", [10, 96, 0, 1]);
    odd.version = "Version 7".to_owned();
    let expected = [(WEB.to_owned(), web.version.clone()), (SERVICE.to_owned(), odd.version.clone())];
    stream.send(vec![web, odd], &[]).await;

    stream.end(Status::unavailable("restart")).await;
    assert_eq!(world.failure().await, "it ended the stream (Unavailable): restart");
    let (mut stream, first) = plane.greet().await;
    assert!(first.node.is_some());
    assert_eq!(first.initial_resource_versions, expected.into());
    assert_eq!(world.names(), [WEB, SERVICE], "the last state stays meanwhile");
    stream.send(vec![workload(pod("db-0", [10, 1, 0, 2], "db"))], &[WEB, "never there"]).await;
    assert_eq!(world.names(), [DB, SERVICE]);
    assert_eq!(world.metric("meshd_xds_connects_total"), 2.0);
    assert_eq!(world.metric("meshd_xds_failures_total"), 1.0);
    assert_eq!(world.status.last_error(), None);
}

#[tokio::test]
async fn a_response_that_breaks_off_leaves_no_trace() {
    let plane = Plane::start().await;
    let proxy = Proxy::start(plane.address, 20_000).await;
    let world = World::start(config(format!("http://{}", proxy.address)));
    let pods = |count| (0..count).map(|i| workload(pod(&format!("web-{i}"), [10, 1, (i >> 8) as u8, i as u8], "web")));
    let (stream, _) = plane.greet().await;
    let response = |count| DeltaDiscoveryResponse {
        resources: pods(count).collect(),
        type_url: ADDRESS.to_owned(),
        ..Default::default()
    };
    stream.push(response(1000)).await;
    let line = world.failure().await;
    assert!(line.starts_with("the connection was lost: "), "{line}");
    assert_eq!(world.names(), [""; 0]);
    assert!(!world.status.is_synced());

    let (stream, first) = plane.greet().await;
    assert!(first.initial_resource_versions.is_empty());
    proxy.allow(usize::MAX);
    stream.push(response(1000)).await;
    let (mut stream, _) = plane.greet().await;
    assert_eq!(stream.send(pods(5).collect(), &[]).await, None);
    assert_eq!(world.names().len(), 5);
}

#[tokio::test]
async fn a_new_server_with_other_versions_changes_nothing_that_is_the_same() {
    let plane = Plane::start().await;
    let world = World::of(&plane);
    let (mut stream, _) = plane.greet().await;
    let all = |version: &str| {
        let mut all = vec![workload(pod("web-1", [10, 1, 0, 1], "web")), service("web", [10, 96, 0, 1])];
        all.iter_mut().for_each(|resource| resource.version = version.to_owned());
        all
    };
    stream.send(all("1"), &[]).await;
    let before = (world.cache.load().workload(WEB).unwrap().serial, world.cache.state().swaps);
    let address = plane.address;
    drop((stream, plane));
    world.until("a lost connection", |world| !world.status.is_connected()).await;
    assert_eq!(world.names(), [WEB, SERVICE]);

    let plane = Plane::start_at(address, None).await;
    let (mut stream, first) = plane.greet().await;
    assert_eq!(first.initial_resource_versions[WEB], "1");
    stream.send(all("2"), &[]).await;
    assert_eq!((world.cache.load().workload(WEB).unwrap().serial, world.cache.state().swaps), before);
    stream.end(Status::unavailable("restart")).await;
    let (_stream, first) = plane.greet().await;
    assert_eq!(first.initial_resource_versions[WEB], "2");
}

#[tokio::test]
async fn a_dead_peer_is_noticed() {
    // The kernel takes the connection, nobody reads from it.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut config = config(format!("http://{}", listener.local_addr().unwrap()));
    config.timing.keep_alive = Duration::from_millis(50);
    config.timing.keep_alive_timeout = Duration::from_millis(50);
    let world = World::start(config);
    let line = world.failure().await;
    assert!(line.starts_with("it gives no sign of life: "), "{line}");
    world.stop().await;
}

#[tokio::test]
async fn an_encrypted_connection_that_is_never_answered_is_given_up() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut config = config(listener.local_addr().unwrap());
    config.root_ca = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/client/outage.rs").into();
    config.timing.connect = Duration::from_millis(50);
    let world = World::start(config.clone());
    assert!(world.failure().await.ends_with("holds no certificate in PEM"), "{:?}", world.status.last_error());
    let root = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(root.path(), rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap().cert.pem()).unwrap();
    config.root_ca = root.path().to_owned();
    let world = World::start(config);
    assert_eq!(world.failure().await, "cannot connect: no answer for 50ms");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_tried_again_until_it_is() {
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let log = Log::default();
    let _guard = log.capture();
    let world = World::start(config(format!("http://{address}")));
    assert!(world.failure().await.contains("Connection refused"), "{:?}", world.status.last_error());
    world.until("many attempts", |world| world.metric("meshd_xds_failures_total") >= 10.0).await;
    let lines = log.lines("WARN");
    assert_eq!(lines.len(), 1, "one line for one cause: {lines:?}");
    assert!(lines[0].contains(&format!("control plane http://{address}: cannot connect: ")), "{lines:?}");

    let plane = Plane::start_at(address, None).await;
    let (mut stream, _) = plane.greet().await;
    stream.send(vec![], &[]).await;
    assert!(world.status.is_synced(), "a mesh may be empty");
    world.stop().await;
}

#[tokio::test]
async fn silence_is_logged_and_waited_out() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut config = config(format!("http://{}", listener.local_addr().unwrap()));
    config.timing.silence = Duration::from_millis(30);
    let log = Log::default();
    let _guard = log.capture();
    let world = World::start(config);
    world
        .until("a line about it", |_| log.lines("WARN").iter().any(|line| line.contains("no response for 30ms")))
        .await;
    assert_eq!(world.status.last_error(), None);
    assert!(!world.status.is_synced());
}

#[tokio::test]
async fn a_server_that_finds_signs_of_life_asked_too_often_is_asked_less() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut config = config(format!("http://{}", listener.local_addr().unwrap()));
    config.timing.keep_alive = Duration::from_millis(200);
    let log = Log::default();
    let _guard = log.capture();
    let world = World::start(config);
    let (mut connection, _) = listener.accept().await.unwrap();
    // What gRPC's Go server does: answers three, and at the fourth says GOAWAY (last stream 1, ENHANCE_YOUR_CALM) and goes.
    connection.read_exact(&mut [0; 24]).await.unwrap();
    connection.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut asked = 0;
    while asked < 4 {
        let mut head = [0; 9];
        connection.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        connection.read_exact(&mut payload).await.unwrap();
        if (head[3], head[4]) == (6, 0) {
            asked += 1;
            head[4] = 1;
            connection.write_all(&[&head[..], &payload].concat()).await.unwrap();
        }
    }
    let goaway = b"\0\0\x16\x07\0\0\0\0\0\0\0\0\x01\0\0\0\x0btoo_many_pings";
    connection.write_all(goaway).await.unwrap();
    drop(connection);
    log.until("it was cut when asked for a sign of life; that is done every 330s from now on").await;
    world.stop().await;
}
