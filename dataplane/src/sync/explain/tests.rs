use cache::{Delta, Health, Node, model::LoadBalancing};

use super::*;

const VIP: &str = "10.96.0.1:80";

fn pod(name: &str, address: &str, node: &str) -> Workload {
    Workload {
        uid: name.into(),
        name: name.into(),
        namespace: "shop".into(),
        node: node.into(),
        addresses: [address.parse().unwrap()].into(),
        services: [("shop/web".into(), [].into())].into(),
        ..Workload::default()
    }
}

fn web(mode: &str, scopes: &[&str]) -> Service {
    let routing_preference = scopes.iter().map(|scope| (*scope).into()).collect();
    Service {
        namespace: "shop".into(),
        hostname: "web".into(),
        vips: [("".into(), "10.96.0.1".parse().unwrap())].into(),
        ports: [(80, 8080)].into(),
        load_balancing: Some(LoadBalancing { routing_preference, mode: mode.into(), allow_unhealthy: false }),
        ..Service::default()
    }
}

/// A client and three endpoints, one of them elsewhere and one not ready, and a kernel that has everything or nothing.
fn explainer(service: Service, kernel: bool) -> Explainer {
    let cache = Arc::new(Cache::new(Node { name: "here".into(), network: "".into() }));
    let ill = Workload { status: Health::Unhealthy, ..pod("ill", "10.0.0.2", "here") };
    let client = Workload { services: [].into(), ..pod("client", "10.0.0.9", "here") };
    let far = pod("far", "10.0.0.3", "there");
    let workloads = vec![pod("near", "10.0.0.1", "here"), ill, client, far];
    cache.apply(Delta { workloads, services: vec![service], ..Delta::default() });
    let site = Site { node: "here".into(), ..Site::default() };
    Explainer::new(cache, Arc::new(Mutex::new(site)), move |_| kernel)
}

fn ask(explainer: &Explainer, source: &str, dialled: &str) -> Answer {
    explainer.explain(source.parse().unwrap(), dialled.parse().unwrap())
}

#[test]
fn each_endpoint_is_there_with_its_weight_or_its_reason() {
    let answer = ask(&explainer(web("STRICT", &["NODE"]), true), "10.0.0.9", VIP);
    assert_eq!((answer.verdict, answer.source.as_deref()), (Verdict::Endpoint, Some("shop/client")));
    let endpoints: Vec<_> =
        answer.endpoints.iter().map(|e| (e.workload.as_deref().unwrap(), e.weight, e.excluded)).collect();
    let wanted =
        [("shop/near", 1, None), ("shop/far", 0, Some(Excluded::Locality)), ("shop/ill", 0, Some(Excluded::Unhealthy))];
    assert_eq!(endpoints, wanted);
    assert_eq!(answer.endpoints[0].address, Some("10.0.0.1:8080".parse().unwrap()));
}

#[test]
fn only_strict_refuses_and_only_what_the_kernel_has_is_steered() {
    let verdict = |service, kernel| ask(&explainer(service, kernel), "10.0.0.9", VIP).verdict;
    let nowhere = |mode| Service { ports: [(80, 0)].into(), ..web(mode, &[]) };
    assert_eq!(verdict(nowhere("STRICT"), true), Verdict::Refused);
    assert_eq!(verdict(nowhere("FAILOVER"), true), Verdict::Unchanged);
    assert_eq!(verdict(web("PASSTHROUGH", &[]), true), Verdict::Unchanged);
    assert_eq!(verdict(web("STANDARD", &[]), false), Verdict::Unchanged);
}

#[test]
fn who_is_not_managed_and_what_is_not_known_go_as_they_are() {
    let explainer = explainer(web("STANDARD", &[]), true);
    for (source, dialled, why) in [
        ("192.0.2.1", VIP, "no workload of the mesh"),
        ("10.0.0.3", VIP, "another node"),
        ("10.0.0.9", "192.0.2.1:80", "no service or workload"),
        ("10.0.0.9", "10.96.0.1:81", "does not declare"),
        ("10.0.0.9", "10.0.0.1:81", "as it is"),
    ] {
        let answer = ask(&explainer, source, dialled);
        assert!(answer.verdict == Verdict::Unchanged && answer.why.contains(why), "{answer:?}");
    }
}

#[test]
fn a_waypoint_is_on_the_way_but_for_its_own() {
    let destination = GatewayDestination::Address("".into(), "10.0.0.9".parse().unwrap());
    let waypoint = Some(Gateway { destination, hbone_mtls_port: 15008 });
    let explainer = explainer(Service { waypoint, ..web("STANDARD", &[]) }, true);
    let by_way = ask(&explainer, "10.0.0.1", VIP);
    assert_eq!((by_way.verdict, by_way.waypoint.as_deref()), (Verdict::Waypoint, Some("10.0.0.9")));
    assert_eq!(by_way.endpoints[0].address, Some("10.0.0.9:15008".parse().unwrap()));
    let own = ask(&explainer, "10.0.0.9", VIP);
    assert_eq!((own.verdict, own.endpoints.len()), (Verdict::Endpoint, 3));
}
