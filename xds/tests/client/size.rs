//! A large mesh.

use crate::{
    plane::{ADDRESS, Plane, discovery::DeltaDiscoveryResponse, pod, service, workload},
    world::World,
};
use tonic::Status;

const PODS: u32 = 100_000;

fn all(pods: std::ops::Range<u32>) -> DeltaDiscoveryResponse {
    let pod = |i: u32| {
        let [_, b, c, d] = i.to_be_bytes();
        workload(pod(&format!("web-{i:05}"), [10, b, c, d], &format!("svc-{}", i % 5000)))
    };
    let services = (0..5000_u32).map(|i| service(&format!("svc-{i}"), [172, 16, (i >> 8) as u8, i as u8]));
    DeltaDiscoveryResponse {
        resources: pods.map(pod).chain(services).collect(),
        type_url: ADDRESS.to_owned(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_workloads_come_in_one_response_and_again_after_a_reconnect() {
    let plane = Plane::start().await;
    let world = World::of(&plane);
    let (mut stream, _) = plane.greet().await;
    assert_eq!(stream.respond(all(0..PODS)).await, None);
    let counts = || (world.cache.load().workload_count(), world.cache.load().service_count());
    assert_eq!(counts(), (PODS as usize, 5000));
    let uid = "Kubernetes//Pod/shop/web-00007";
    let serial = world.cache.load().workload(uid).unwrap().serial;

    // Their versions do not fit into a request that istiod takes.
    stream.end(Status::unavailable("restart")).await;
    let (mut stream, first) = plane.greet().await;
    assert!(first.initial_resource_versions.is_empty());
    assert_eq!(stream.respond(all(5..PODS + 1)).await, None);
    assert_eq!(counts(), (PODS as usize - 4, 5000));
    assert!(world.cache.load().workload("Kubernetes//Pod/shop/web-00004").is_none(), "what does not come is gone");
    assert_eq!(world.cache.load().workload(uid).unwrap().serial, serial, "what is the same stays as it is");

    // Half of them fit.
    let removed: Vec<_> = (50_000..PODS + 1).map(|i| format!("Kubernetes//Pod/shop/web-{i:05}")).collect();
    let removed: Vec<_> = removed.iter().map(String::as_str).collect();
    stream.send(vec![], &removed).await;
    stream.end(Status::unavailable("restart")).await;
    let (_stream, first) = plane.greet().await;
    assert_eq!(first.initial_resource_versions.len(), 50_000 - 5 + 5000);
}
