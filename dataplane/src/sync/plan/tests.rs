use std::net::SocketAddr;

use cache::{Cache, Delta, Health, Node, Service, Subscription, Workload, model::LoadBalancing};

use super::{Plan, Site, Step};
use crate::kernel::{Dialled, Target};

/// A mesh and its plan.
struct Mesh {
    cache: Cache,
    changes: Subscription,
    plan: Plan,
}

impl Mesh {
    fn new(network: &str) -> Self {
        let cache = Cache::new(Node { name: "node-a".into(), network: network.into() });
        let changes = cache.subscribe();
        let site = Site { network: network.into(), node: "node-a".into(), cluster: "x".into(), ..Site::default() };
        Self { cache, changes, plan: Plan::new(site) }
    }

    /// Applies a delta and returns the steps that follow from it, in the order of their addresses.
    fn apply(&mut self, delta: Delta) -> Vec<(SocketAddr, Option<Vec<SocketAddr>>)> {
        let plain = |target: Target| {
            assert_eq!(target.waypoint, 0);
            target
                .endpoints
                .into_iter()
                .inspect(|(_, weight)| assert_eq!(*weight, 1))
                .map(|(address, _)| address)
                .collect()
        };
        let steps = self.steps(delta).into_iter().inspect(|(dialled, _)| assert!(!dialled.direct));
        steps.map(|(dialled, target)| (dialled.address, target.map(plain))).collect()
    }

    /// Applies a delta and returns the steps that follow from it, in the order of what is dialled.
    fn steps(&mut self, delta: Delta) -> Vec<(Dialled, Option<Target>)> {
        self.cache.apply(delta);
        let Some(change) = self.changes.pending() else { return Vec::new() };
        let steps = self.plan.steps(&self.cache.load(), &change).into_iter();
        let mut steps: Vec<_> = steps
            .map(|step| match step {
                Step::Set(dialled, target) => (dialled, Some(target)),
                Step::Remove(dialled) => (dialled, None),
            })
            .collect();
        steps.sort_unstable_by_key(|(dialled, _)| *dialled);
        steps
    }
}

fn service(vips: &[&str], ports: &[(u16, u16)]) -> Service {
    let vips = vips.iter().map(|v| v.split_once('/').unwrap()).map(|(n, ip)| (n.into(), ip.parse().unwrap())).collect();
    Service {
        name: "cart".into(),
        namespace: "shop".into(),
        hostname: "cart.shop".into(),
        vips,
        ports: ports.into(),
        subject_alt_names: [].into(),
        waypoint: None,
        load_balancing: None,
        ip_families: "".into(),
        canonical: true,
    }
}

fn workload(name: &str, addresses: &[&str], ports: &[(u16, u16)]) -> Workload {
    let [empty, text] = ["", "x"].map(cache::Str::from);
    Workload {
        uid: name.into(),
        name: name.into(),
        namespace: "shop".into(),
        service_account: text.clone(),
        trust_domain: text.clone(),
        network: empty.clone(),
        node: "node-b".into(),
        cluster_id: text.clone(),
        workload_name: text.clone(),
        workload_type: text.clone(),
        canonical_name: text.clone(),
        canonical_revision: text,
        hostname: empty,
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        network_mode: Default::default(),
        status: Health::Healthy,
        protocol: Default::default(),
        services: [("shop/cart.shop".into(), ports.into())].into(),
        extra: None,
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn set(vip: &str, endpoints: &[&str]) -> (SocketAddr, Option<Vec<SocketAddr>>) {
    (at(vip), Some(endpoints.iter().map(|e| at(e)).collect()))
}

#[test]
fn each_port_goes_to_the_endpoints_of_its_address_family() {
    let mut mesh = Mesh::new("");
    let steps = mesh.apply(Delta {
        services: vec![service(&["/10.96.0.10", "/fd00:96::10"], &[(80, 8080), (443, 8443)])],
        workloads: vec![workload("a", &["10.0.0.5", "fd00::5"], &[]), workload("b", &["10.0.0.6"], &[])],
        ..Delta::default()
    });
    let wanted = [
        set("10.96.0.10:80", &["10.0.0.5:8080", "10.0.0.6:8080"]),
        set("10.96.0.10:443", &["10.0.0.5:8443", "10.0.0.6:8443"]),
        set("[fd00:96::10]:80", &["[fd00::5]:8080"]),
        set("[fd00:96::10]:443", &["[fd00::5]:8443"]),
    ];
    assert_eq!(steps, wanted);
    assert_eq!(mesh.plan.len(), 4);
}

#[test]
fn a_workload_s_own_target_port_wins_and_a_named_one_needs_it() {
    let mut mesh = Mesh::new("");
    let steps = mesh.apply(Delta {
        services: vec![service(&["/10.96.0.10"], &[(80, 8080), (90, 0)])],
        workloads: vec![
            workload("a", &["10.0.0.5"], &[(80, 9080), (90, 9090)]),
            workload("b", &["10.0.0.6"], &[(80, 0)]),
        ],
        ..Delta::default()
    });
    let wanted = [set("10.96.0.10:80", &["10.0.0.5:9080", "10.0.0.6:8080"]), set("10.96.0.10:90", &["10.0.0.5:9090"])];
    assert_eq!(steps, wanted);
}

#[test]
fn only_what_changed_is_programmed() {
    let mut mesh = Mesh::new("");
    let all = service(&["/10.96.0.10"], &[(80, 8080), (443, 8443)]);
    mesh.apply(Delta { services: vec![all], workloads: vec![workload("a", &["10.0.0.5"], &[])], ..Delta::default() });
    let one = workload("a", &["10.0.0.5"], &[(443, 9443)]);
    let steps = mesh.apply(Delta { workloads: vec![one], ..Delta::default() });
    assert_eq!(steps, [set("10.96.0.10:443", &["10.0.0.5:9443"])]);
    let fewer = service(&["/10.96.0.10"], &[(443, 8443)]);
    let steps = mesh.apply(Delta { services: vec![fewer], ..Delta::default() });
    assert_eq!(steps, [(at("10.96.0.10:80"), None)]);
}

#[test]
fn unhealthy_endpoints_are_left_out_unless_the_service_takes_all() {
    let mut mesh = Mesh::new("");
    let ill = Workload { status: Health::Unhealthy, ..workload("a", &["10.0.0.5"], &[]) };
    let plain = service(&["/10.96.0.10"], &[(80, 8080)]);
    let steps = mesh.apply(Delta { services: vec![plain.clone()], workloads: vec![ill], ..Delta::default() });
    assert_eq!(steps, []);
    let all = LoadBalancing { allow_unhealthy: true, ..LoadBalancing::default() };
    let any = Service { load_balancing: Some(all), ..plain };
    let steps = mesh.apply(Delta { services: vec![any], ..Delta::default() });
    assert_eq!(steps, [set("10.96.0.10:80", &["10.0.0.5:8080"])]);
}

#[test]
fn a_service_that_passes_through_is_not_steered_any_more() {
    let mut mesh = Mesh::new("");
    let plain = service(&["/10.96.0.10"], &[(80, 8080)]);
    let workloads = vec![workload("a", &["10.0.0.5"], &[])];
    mesh.apply(Delta { services: vec![plain.clone()], workloads, ..Delta::default() });
    let through = LoadBalancing { mode: "PASSTHROUGH".into(), ..LoadBalancing::default() };
    let steps =
        mesh.apply(Delta { services: vec![Service { load_balancing: Some(through), ..plain }], ..Delta::default() });
    assert_eq!(steps, [(at("10.96.0.10:80"), None)]);
    assert_eq!(mesh.plan.len(), 0);
}

#[test]
fn addresses_and_endpoints_of_other_networks_are_left_out() {
    let mut mesh = Mesh::new("here");
    let far = Workload { network: "there".into(), ..workload("b", &["10.0.0.6"], &[]) };
    let near = Workload { network: "here".into(), ..workload("a", &["10.0.0.5"], &[]) };
    let steps = mesh.apply(Delta {
        services: vec![service(&["here/10.96.0.10", "there/10.96.0.11", "/10.96.0.12"], &[(80, 8080)])],
        workloads: vec![near, far],
        ..Delta::default()
    });
    assert_eq!(steps, [set("10.96.0.10:80", &["10.0.0.5:8080"]), set("10.96.0.12:80", &["10.0.0.5:8080"])]);
}

#[test]
fn a_virtual_address_moves_from_service_to_service() {
    let mut mesh = Mesh::new("");
    let old = service(&["/10.96.0.10"], &[(80, 8080)]);
    mesh.apply(Delta { services: vec![old], workloads: vec![workload("a", &["10.0.0.5"], &[])], ..Delta::default() });
    let new = Service { hostname: "till.shop".into(), ..service(&["/10.96.0.10"], &[(90, 9090)]) };
    let services = [("shop/till.shop".into(), [].into())].into();
    let to_till = Workload { services, ..workload("a", &["10.0.0.5"], &[]) };
    let (workloads, removed) = (vec![to_till], vec!["shop/cart.shop".into()]);
    let steps = mesh.apply(Delta { services: vec![new], workloads, removed, ..Delta::default() });
    assert_eq!(steps, [(at("10.96.0.10:80"), None), set("10.96.0.10:90", &["10.0.0.5:9090"])]);
    let steps = mesh.apply(Delta { removed: vec!["shop/till.shop".into()], ..Delta::default() });
    assert_eq!(steps, [(at("10.96.0.10:90"), None)]);
    assert!(mesh.plan.addresses.is_empty() && mesh.plan.holders.is_empty());
}

mod locality;
mod waypoint;
