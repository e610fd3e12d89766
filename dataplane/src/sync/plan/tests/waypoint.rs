use std::sync::Arc;

use cache::model::{Gateway, GatewayDestination, WorkloadExtra};

use super::*;

fn by_name(port: u16) -> Gateway {
    Gateway { destination: GatewayDestination::Hostname("shop/way.shop".into()), hbone_mtls_port: port }
}

fn by_address(address: &str) -> Gateway {
    let destination = GatewayDestination::Address("".into(), address.parse().unwrap());
    Gateway { destination, hbone_mtls_port: 15008 }
}

fn behind(gateway: Gateway) -> Service {
    Service { waypoint: Some(gateway), ..service(&["/10.96.0.10"], &[(80, 8080)]) }
}

/// The waypoint's service.
fn way() -> Service {
    Service { hostname: "way.shop".into(), ..service(&["/10.96.0.99"], &[(15008, 15008), (15021, 15021)]) }
}

fn instance(name: &str, address: &str, node: &str) -> Workload {
    let services = [("shop/way.shop".into(), [].into())].into();
    Workload { services, node: node.into(), ..workload(name, &[address], &[]) }
}

/// Where a step goes through a waypoint, without its number.
fn through(steps: &[(Dialled, Option<Target>)], dialled: Dialled) -> Option<Vec<String>> {
    let target = steps.iter().find(|(at, _)| *at == dialled)?.1.as_ref().expect("it is set");
    assert_ne!(target.waypoint, 0, "{target:?}");
    Some(target.endpoints.iter().map(|(address, _)| address.to_string()).collect())
}

#[test]
fn a_service_is_dialled_at_its_waypoint_by_name_and_by_either_address() {
    let vip = Dialled::from(at("10.96.0.10:80"));
    for gateway in [by_name(15008), by_name(0), by_address("10.96.0.99"), by_address("10.0.0.7")] {
        let mut mesh = Mesh::new("");
        let workloads = vec![workload("a", &["10.0.0.5"], &[]), instance("way-1", "10.0.0.7", "node-b")];
        let services = vec![behind(gateway.clone()), way()];
        let steps = mesh.steps(Delta { services, workloads, ..Delta::default() });
        assert_eq!(through(&steps, vip), Some(vec!["10.0.0.7:15008".into()]), "{gateway:?}");
        assert!(!steps.iter().any(|(dialled, _)| dialled.direct), "none of its endpoints is here");
    }
}

#[test]
fn a_waypoint_s_endpoints_come_and_go_and_without_any_the_connect_is_refused() {
    let vip = Dialled::from(at("10.96.0.10:80"));
    let mut mesh = Mesh::new("");
    let workloads = vec![workload("a", &["10.0.0.5"], &[])];
    let steps = mesh.steps(Delta { services: vec![behind(by_name(15008))], workloads, ..Delta::default() });
    assert_eq!(through(&steps, vip), Some(vec![]), "a waypoint that nobody knows");
    let steps = mesh.steps(Delta {
        services: vec![way()],
        workloads: vec![instance("way-1", "10.0.0.7", "node-b")],
        ..Delta::default()
    });
    assert_eq!(through(&steps, vip), Some(vec!["10.0.0.7:15008".into()]));
    let second = instance("way-2", "10.0.0.8", "node-b");
    let steps = mesh.steps(Delta { workloads: vec![second], ..Delta::default() });
    assert_eq!(through(&steps, vip), Some(vec!["10.0.0.7:15008".into(), "10.0.0.8:15008".into()]));
    let removed = ["way-1", "way-2"].map(Into::into).into();
    let steps = mesh.steps(Delta { removed, ..Delta::default() });
    assert_eq!(through(&steps, vip), Some(vec![]));
    let steps = mesh.steps(Delta { services: vec![service(&["/10.96.0.10"], &[(80, 8080)])], ..Delta::default() });
    assert_eq!(steps, [(vip, Some(Target::equal(&[at("10.0.0.5:8080")])))]);
    assert!(mesh.plan.depend.is_empty());
}

#[test]
fn a_waypoint_on_this_node_has_a_way_past_itself() {
    let mut mesh = Mesh::new("");
    let workloads = vec![workload("a", &["10.0.0.5"], &[]), instance("way-1", "10.0.0.7", "node-a")];
    let steps = mesh.steps(Delta { services: vec![behind(by_name(15008)), way()], workloads, ..Delta::default() });
    let direct = Dialled { address: at("10.96.0.10:80"), direct: true };
    assert!(steps.contains(&(direct, Some(Target::equal(&[at("10.0.0.5:8080")])))), "{steps:?}");
    let own: Vec<_> = mesh.plan.own_waypoints().values().flatten().collect();
    assert_eq!(own, [&at("10.0.0.7:0").ip()]);
    let steps = mesh.steps(Delta { removed: vec!["way-1".into()], ..Delta::default() });
    assert!(steps.contains(&(direct, None)) && mesh.plan.own_waypoints().is_empty(), "{steps:?}");
}

#[test]
fn a_workload_is_dialled_at_its_waypoint_whichever_the_port_and_the_waypoint_s_own_is_not() {
    let extra = Some(Arc::new(WorkloadExtra { waypoint: Some(by_name(15008)), ..WorkloadExtra::default() }));
    let mut mesh = Mesh::new("");
    let pod = Workload { extra: extra.clone(), ..workload("a", &["10.0.0.5", "fd00::5"], &[]) };
    let mine = Workload { extra, ..instance("way-1", "10.0.0.7", "node-b") };
    let own = Service { waypoint: Some(by_name(15008)), ..way() };
    let steps = mesh.steps(Delta { services: vec![own], workloads: vec![pod.clone(), mine], ..Delta::default() });
    let [v4, v6] = ["10.0.0.5:0", "[fd00::5]:0"].map(|address| Dialled::from(at(address)));
    assert_eq!(through(&steps, v4), Some(vec!["10.0.0.7:15008".into()]));
    assert_eq!(through(&steps, v6), Some(vec![]), "the waypoint has no address of that family");
    let service = Target::equal(&[at("10.0.0.7:15008")]);
    assert!(steps.contains(&(at("10.96.0.99:15008").into(), Some(service))), "its own service is no detour: {steps:?}");
    assert!(!steps.iter().any(|(dialled, _)| dialled.address.ip() == at("10.0.0.7:0").ip()));
    let steps = mesh.steps(Delta { workloads: vec![Workload { extra: None, ..pod }], ..Delta::default() });
    assert_eq!(steps, [(v4, None), (v6, None)]);
}

#[test]
fn an_address_that_a_workload_has_is_not_the_service_s() {
    let mut mesh = Mesh::new("");
    let both = service(&["/10.96.0.10", "/10.96.0.11"], &[(80, 8080)]);
    let steps = mesh.apply(Delta {
        services: vec![both],
        workloads: vec![workload("a", &["10.0.0.5"], &[])],
        ..Delta::default()
    });
    let [first, second] = ["10.96.0.10:80", "10.96.0.11:80"].map(|vip| set(vip, &["10.0.0.5:8080"]));
    assert_eq!(steps, [first.clone(), second]);
    let other = Workload { services: [].into(), ..workload("b", &["10.96.0.10"], &[]) };
    let steps = mesh.apply(Delta { workloads: vec![other], ..Delta::default() });
    assert_eq!((steps, mesh.plan.contested()), (vec![(at("10.96.0.10:80"), None)], 1));
    let steps = mesh.apply(Delta { removed: vec!["b".into()], ..Delta::default() });
    assert_eq!((steps, mesh.plan.contested()), (vec![first], 0));
}

#[test]
fn a_service_has_as_many_ports_as_it_says() {
    let mut mesh = Mesh::new("");
    let ports: Vec<_> = (1..=u16::MAX).chain([7]).map(|port| (port, 8080)).collect();
    let workloads = vec![workload("a", &["10.0.0.5"], &[])];
    let steps = mesh.apply(Delta { services: vec![service(&["/10.96.0.10"], &ports)], workloads, ..Delta::default() });
    assert_eq!((steps.len(), mesh.plan.len()), (65_535, 65_535));
}
