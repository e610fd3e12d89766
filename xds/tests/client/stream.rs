//! What a healthy stream brings.

use std::net::IpAddr;

use crate::{
    plane::{ADDRESS, AUTHORIZATION, Plane, any, discovery::DeltaDiscoveryResponse, pod, service, workload},
    world::World,
};
use prost::Message;
use serde_json::json;
use tonic::Status;
use xds::proto::{security, workload as api};

const WEB: &str = "Kubernetes//Pod/shop/web-1";
const DB: &str = "Kubernetes//Pod/shop/db-0";
const SERVICE: &str = "shop/web.shop.svc.cluster.local";

#[tokio::test]
async fn the_first_request_says_who_we_are_and_asks_for_everything() {
    let plane = Plane::start().await;
    let world = World::of(&plane);
    let (_stream, first) = plane.greet().await;
    let node = first.node.expect("it has a node");
    assert_eq!(node.id, "ztunnel~10.0.0.1~meshd-x.mesh~mesh.svc.cluster.local");
    assert_eq!(node.metadata.unwrap().fields.len(), 6);
    assert!(first.resource_names_subscribe.is_empty() && first.initial_resource_versions.is_empty());
    assert!(!world.status.is_synced());
    world.stop().await;
}

#[tokio::test]
async fn the_whole_state_is_applied_at_once_and_then_what_changes() {
    let begin = std::time::Instant::now();
    let plane = Plane::start().await;
    let world = World::of(&plane);
    let mut changes = world.cache.subscribe();
    let (mut stream, _) = plane.greet().await;
    let complaint =
        stream.send(vec![workload(pod("web-1", [10, 1, 0, 1], "web")), service("web", [10, 96, 0, 1])], &[]).await;
    assert_eq!(complaint, None);
    assert_eq!(world.names(), [WEB, SERVICE]);
    assert!(world.status.is_synced() && world.cache.state().complete);
    assert_eq!(world.cache.state().source, "istiod");

    let mut changed = pod("web-1", [10, 1, 0, 1], "web");
    changed.status = 1;
    stream.send(vec![workload(changed), workload(pod("db-0", [10, 1, 0, 2], "db"))], &[]).await;
    assert_eq!(world.names(), [DB, WEB, SERVICE]);
    assert_eq!(world.cache.load().workload(WEB).unwrap().status, cache::Health::Unhealthy);

    stream.send(vec![], &[DB, "Kubernetes//Pod/shop/never-there", "/10.1.0.1"]).await;
    assert_eq!(world.names(), [WEB, SERVICE]);
    stream.send(vec![], &[SERVICE]).await;
    assert_eq!(world.names(), [WEB]);

    assert_eq!(world.metric("meshd_xds_connected"), 1.0);
    assert_eq!(world.metric("meshd_xds_messages_total"), 4.0);
    assert_eq!(world.metric("meshd_xds_resources_total"), 4.0);
    assert_eq!(world.metric("meshd_xds_removed_resources_total"), 4.0);
    assert_eq!(world.metric("meshd_xds_nacks_total"), 0.0);
    assert!(world.metric("meshd_xds_received_bytes_total") > 300.0);
    assert!(world.metric("meshd_xds_last_update_timestamp_seconds") > 1.7e9);
    let received = changes.pending().and_then(|change| change.received).expect("responses tell when they came");
    assert!(received >= begin && received.elapsed() < begin.elapsed());
}

#[tokio::test]
async fn a_reused_address_and_the_removal_of_its_old_owner_come_together() {
    let plane = Plane::start().await;
    let world = World::of(&plane);
    let (mut stream, _) = plane.greet().await;
    stream.send(vec![workload(pod("web-1", [10, 1, 0, 1], "web"))], &[]).await;
    stream.send(vec![workload(pod("db-0", [10, 1, 0, 1], "db"))], &[WEB]).await;
    let now = world.cache.load();
    let holder = now.workload_at("", IpAddr::from([10, 1, 0, 1])).expect("the address is held");
    assert_eq!(holder.uid, DB);
}

#[tokio::test]
async fn a_name_that_becomes_a_service_is_no_workload_any_more() {
    let plane = Plane::start().await;
    let world = World::of(&plane);
    let (mut stream, _) = plane.greet().await;
    let pod = || workload(api::Workload { uid: SERVICE.to_owned(), ..pod("web-1", [10, 1, 0, 1], "web") });
    stream.send(vec![pod()], &[]).await;
    let counts = || (world.cache.load().workload_count(), world.cache.load().service_count());
    assert_eq!(counts(), (1, 0));
    stream.send(vec![service("web", [10, 96, 0, 1])], &[]).await;
    assert_eq!(counts(), (0, 1));
    stream.send(vec![pod()], &[]).await;
    assert_eq!(counts(), (1, 0));
    stream.send(vec![], &[SERVICE]).await;
    assert_eq!(counts(), (0, 0));
}

#[tokio::test]
async fn what_is_sent_again_unchanged_stays_as_it_is() {
    let plane = Plane::start().await;
    let world = World::of(&plane);
    let (mut stream, _) = plane.greet().await;
    let all = || vec![workload(pod("web-1", [10, 1, 0, 1], "web")), service("web", [10, 96, 0, 1])];
    stream.send(all(), &[]).await;
    let before = (world.cache.load().workload(WEB).unwrap().serial, world.cache.state().swaps);
    stream.send(all(), &[]).await;
    assert_eq!((world.cache.load().workload(WEB).unwrap().serial, world.cache.state().swaps), before);
}

#[tokio::test]
async fn a_name_updated_and_removed_in_one_response_is_gone() {
    let plane = Plane::start().await;
    let world = World::of(&plane);
    let (mut stream, _) = plane.greet().await;
    let both = || vec![workload(pod("web-1", [10, 1, 0, 1], "web")), workload(pod("db-0", [10, 1, 0, 2], "db"))];
    stream.send(both(), &[DB]).await;
    assert_eq!(world.names(), [WEB]);
    stream.send(both(), &[DB]).await;
    assert_eq!(world.names(), [WEB]);
}

#[tokio::test]
async fn policies_are_kept_for_the_dump() {
    let plane = Plane::start().await;
    let world = World::of(&plane);
    let (mut stream, _) = plane.greet().await;
    let policy = |name: &str, action| {
        let policy = security::Authorization {
            name: name.to_owned(),
            namespace: "shop".to_owned(),
            action,
            ..Default::default()
        };
        any(&format!("shop/{name}"), "", AUTHORIZATION, policy.encode_to_vec())
    };
    let response = |resources, removed: &[&str]| DeltaDiscoveryResponse {
        resources,
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        type_url: AUTHORIZATION.to_owned(),
        ..Default::default()
    };
    let held = || world.cache.load().policies().keys().map(ToString::to_string).collect::<Vec<_>>();

    assert_eq!(stream.respond(response(vec![policy("a", 0), policy("b", 1)], &[])).await, None);
    assert_eq!(held(), ["shop/a", "shop/b"]);
    let shown = json!({"name": "b", "namespace": "shop", "scope": "Global", "action": "Deny", "rules": []});
    assert_eq!(*world.cache.load().policies()["shop/b"], shown);
    assert!(!world.status.is_synced(), "policies alone are not the state");
    stream.respond(response(vec![policy("c", 0)], &["shop/a"])).await;
    assert_eq!(held(), ["shop/b", "shop/c"]);
    let complaint = stream.respond(response(vec![policy("b", 9)], &[])).await;
    assert_eq!(complaint.as_deref(), Some("1 of 1 resources cannot be used: \"shop/b\": action has no value 9"));
    assert_eq!(*world.cache.load().policies()["shop/b"], shown);

    stream.end(Status::unavailable("restart")).await;
    let (mut stream, _) = plane.greet().await;
    stream.respond(response(vec![policy("c", 0)], &[])).await;
    assert_eq!(held(), ["shop/c"], "a new stream says all there is");
}

#[tokio::test]
async fn a_type_that_was_not_asked_for_is_refused_and_nothing_of_it_applied() {
    let plane = Plane::start().await;
    let world = World::of(&plane);
    let (mut stream, _) = plane.greet().await;
    let response = DeltaDiscoveryResponse {
        resources: vec![workload(pod("web-1", [10, 1, 0, 1], "web"))],
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned(),
        ..Default::default()
    };
    let complaint = stream.respond(response.clone()).await;
    assert_eq!(
        complaint.as_deref(),
        Some("type \"type.googleapis.com/envoy.config.cluster.v3.Cluster\" was not asked for")
    );
    assert_eq!(world.names(), [""; 0]);
    let complaint = stream.respond(DeltaDiscoveryResponse { type_url: AUTHORIZATION.to_owned(), ..response }).await;
    let expected = format!("1 of 1 resources cannot be used: {WEB:?}: its type is {ADDRESS:?}");
    assert_eq!(complaint, Some(expected));
    assert_eq!(world.names(), [""; 0]);
}
