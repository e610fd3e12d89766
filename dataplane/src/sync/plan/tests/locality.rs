use std::sync::Arc;

use cache::model::{Locality, WorkloadExtra};

use super::*;

/// A workload in `region/zone`.
fn in_zone(name: &str, address: &str, place: &str) -> Workload {
    let (region, zone) = place.split_once('/').unwrap();
    let locality = Locality { region: region.into(), zone: zone.into(), subzone: "".into() };
    let extra = Some(Arc::new(WorkloadExtra { locality, ..WorkloadExtra::default() }));
    Workload { extra, ..workload(name, &[address], &[]) }
}

/// One of this node's own, of no service.
fn own(name: &str, address: &str, place: &str) -> Workload {
    Workload { node: "node-a".into(), services: [].into(), ..in_zone(name, address, place) }
}

fn preferring(mode: &str, scopes: &[&str]) -> Service {
    let routing_preference = scopes.iter().map(|scope| (*scope).into()).collect();
    let lb = LoadBalancing { routing_preference, mode: mode.into(), ..LoadBalancing::default() };
    Service { load_balancing: Some(lb), ..service(&["/10.96.0.10"], &[(80, 8080)]) }
}

fn ill(workload: Workload) -> Workload {
    Workload { status: Health::Unhealthy, ..workload }
}

const SCOPES: [&str; 3] = ["NETWORK", "REGION", "ZONE"];

#[test]
fn failover_takes_the_nearest_that_are_healthy() {
    let mut mesh = Mesh::new("");
    let near = in_zone("near", "10.0.0.1", "west/1");
    let next = in_zone("next", "10.0.0.2", "west/2");
    let far = in_zone("far", "10.0.0.3", "east/1");
    let steps = mesh.apply(Delta {
        services: vec![preferring("FAILOVER", &SCOPES)],
        workloads: vec![own("client", "10.0.0.9", "west/1"), near.clone(), next.clone(), far.clone()],
        ..Delta::default()
    });
    assert_eq!(steps, [set("10.96.0.10:80", &["10.0.0.1:8080"])]);
    let mut change = |workload: Workload| mesh.apply(Delta { workloads: vec![workload], ..Delta::default() });
    assert_eq!(change(ill(near.clone())), [set("10.96.0.10:80", &["10.0.0.2:8080"])]);
    assert_eq!(change(ill(next.clone())), [set("10.96.0.10:80", &["10.0.0.3:8080"])]);
    assert_eq!(change(ill(far)), [(at("10.96.0.10:80"), None)]);
    assert_eq!(change(next), [set("10.96.0.10:80", &["10.0.0.2:8080"])]);
    assert_eq!(change(near), [set("10.96.0.10:80", &["10.0.0.1:8080"])]);
}

#[test]
fn a_zone_of_the_same_name_in_another_region_is_not_nearer() {
    let mut mesh = Mesh::new("");
    let workloads = vec![
        own("client", "10.0.0.9", "west/1"),
        in_zone("same-name", "10.0.0.1", "east/1"),
        in_zone("region", "10.0.0.2", "west/2"),
    ];
    let services = vec![preferring("FAILOVER", &["REGION", "ZONE"])];
    let steps = mesh.apply(Delta { services, workloads, ..Delta::default() });
    assert_eq!(steps, [set("10.96.0.10:80", &["10.0.0.2:8080"])]);
}

#[test]
fn strict_takes_what_matches_every_scope_and_refuses_without() {
    let mut mesh = Mesh::new("");
    let near = in_zone("near", "10.0.0.1", "west/1");
    let steps = mesh.apply(Delta {
        services: vec![preferring("STRICT", &SCOPES)],
        workloads: vec![own("client", "10.0.0.9", "west/1"), near.clone(), in_zone("next", "10.0.0.2", "west/2")],
        ..Delta::default()
    });
    assert_eq!(steps, [set("10.96.0.10:80", &["10.0.0.1:8080"])]);
    let steps = mesh.apply(Delta { workloads: vec![ill(near)], ..Delta::default() });
    assert_eq!(steps, [set("10.96.0.10:80", &[])]);
    let steps = mesh.apply(Delta { services: vec![preferring("STANDARD", &SCOPES)], ..Delta::default() });
    assert_eq!(steps, [set("10.96.0.10:80", &["10.0.0.2:8080"])]);
}

#[test]
fn scopes_of_node_and_cluster_are_this_node_s() {
    let mut mesh = Mesh::new("");
    let here = Workload { node: "node-a".into(), ..workload("here", &["10.0.0.1"], &[]) };
    let there = workload("there", &["10.0.0.2"], &[]);
    let abroad = Workload { cluster_id: "y".into(), ..workload("abroad", &["10.0.0.3"], &[]) };
    let services = vec![preferring("STRICT", &["NODE"])];
    let steps = mesh.apply(Delta { services, workloads: vec![here, there, abroad], ..Delta::default() });
    assert_eq!(steps, [set("10.96.0.10:80", &["10.0.0.1:8080"])]);
    let steps = mesh.apply(Delta { services: vec![preferring("STRICT", &["CLUSTER"])], ..Delta::default() });
    assert_eq!(steps, [set("10.96.0.10:80", &["10.0.0.1:8080", "10.0.0.2:8080"])]);
}

#[test]
fn everything_is_planned_anew_once_the_node_s_place_is_known_and_when_it_changes() {
    let mut mesh = Mesh::new("");
    let workloads = vec![in_zone("west", "10.0.0.1", "west/1"), in_zone("east", "10.0.0.2", "east/1")];
    let services = vec![preferring("FAILOVER", &SCOPES)];
    let steps = mesh.apply(Delta { services, workloads, ..Delta::default() });
    assert_eq!(steps, [set("10.96.0.10:80", &["10.0.0.1:8080", "10.0.0.2:8080"])]);
    for (place, endpoint) in [("west/1", "10.0.0.1:8080"), ("east/1", "10.0.0.2:8080")] {
        let steps = mesh.apply(Delta { workloads: vec![own("client", "10.0.0.9", place)], ..Delta::default() });
        assert_eq!(steps, [set("10.96.0.10:80", &[endpoint])]);
    }
}

#[test]
fn weights_are_capacities_and_what_has_none_takes_one_share() {
    let mut mesh = Mesh::new("");
    let weighing = |name, address: &str, capacity| {
        let extra = Some(Arc::new(WorkloadExtra { capacity, ..WorkloadExtra::default() }));
        Workload { extra, ..workload(name, &[address], &[]) }
    };
    let workloads =
        vec![weighing("a", "10.0.0.1", None), weighing("b", "10.0.0.2", Some(5)), weighing("c", "10.0.0.3", Some(0))];
    let services = vec![service(&["/10.96.0.10"], &[(80, 8080)])];
    let steps = mesh.steps(Delta { services, workloads, ..Delta::default() });
    let endpoints = vec![(at("10.0.0.1:8080"), 1), (at("10.0.0.2:8080"), 5)];
    assert_eq!(steps, [(at("10.96.0.10:80").into(), Some(Target { endpoints, waypoint: 0 }))]);
}
