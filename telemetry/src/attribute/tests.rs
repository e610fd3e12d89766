use std::{net::IpAddr, sync::Arc};

use abi::{Direction, Endpoint, Record};
use cache::{Cache, Node, Service, Str, Workload};

use super::{Attribution, Ignored, NodeAddresses, attribute, ignored};

const CLIENT: &str = "10.0.0.1";
const SERVER: &str = "10.0.0.2";
const VIP: &str = "10.96.0.10";

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

fn end(address: &str, port: u16) -> Endpoint {
    Endpoint::from(std::net::SocketAddr::new(ip(address), port))
}

/// A pod, and the services it serves: `namespace/hostname`, port pairs.
fn pod(name: &str, address: &str, services: &[(&str, &[(u16, u16)])]) -> Workload {
    Workload {
        uid: Str::from(name),
        name: Str::from(name),
        namespace: Str::from("shop"),
        addresses: [ip(address)].into(),
        services: services.iter().map(|(key, ports)| (Str::from(*key), (*ports).into())).collect(),
        ..Workload::default()
    }
}

fn service(key: &str, vip: Option<&str>, ports: &[(u16, u16)]) -> Service {
    let (namespace, hostname) = key.split_once('/').unwrap();
    Service {
        name: Str::from(hostname.split('.').next().unwrap()),
        namespace: Str::from(namespace),
        hostname: Str::from(hostname),
        vips: vip.map(|v| (Str::new(), ip(v))).into_iter().collect(),
        ports: ports.into(),
        ..Service::default()
    }
}

fn mesh(workloads: Vec<Workload>, services: Vec<Service>) -> Arc<Cache> {
    let cache = Cache::new(Node::default());
    cache.replace(workloads, services);
    Arc::new(cache)
}

fn simple() -> Arc<Cache> {
    mesh(
        vec![pod("client", CLIENT, &[]), pod("server", SERVER, &[("shop/cart", &[(80, 8080)])])],
        vec![service("shop/cart", Some(VIP), &[(80, 8080)])],
    )
}

/// Source, destination and service, by name.
fn named(cache: &Cache, direction: Direction, record: &Record) -> (String, String, String) {
    shown(&attribute(record, direction, &cache.load(), ""))
}

fn shown(names: &Attribution) -> (String, String, String) {
    let workload = |w: &Option<Arc<cache::Held<Workload>>>| w.as_ref().map_or("-".into(), |w| w.name.to_string());
    let service = names.service.as_ref().map_or("-".into(), |s| s.key().to_string());
    (workload(&names.source), workload(&names.destination), service)
}

fn outbound(remote: Endpoint, original: Endpoint) -> Record {
    Record { local: end(CLIENT, 40000), remote, original, ..Record::default() }
}

fn inbound(port: u16) -> Record {
    Record { local: end(SERVER, port), remote: end(CLIENT, 40000), ..Record::default() }
}

fn names(source: &str, destination: &str, service: &str) -> (String, String, String) {
    (source.into(), destination.into(), service.into())
}

#[test]
fn a_dialled_service_is_named_with_the_peer_after_steering() {
    let record = outbound(end(SERVER, 8080), end(VIP, 80));
    assert_eq!(named(&simple(), Direction::Outbound, &record), names("client", "server", "shop/cart"));
}

#[test]
fn a_dialled_service_is_named_also_when_the_port_is_not_declared() {
    let record = outbound(end(SERVER, 9999), end(VIP, 9999));
    assert_eq!(named(&simple(), Direction::Outbound, &record), names("client", "server", "shop/cart"));
}

#[test]
fn a_socket_that_still_has_the_service_address_names_the_service_alone() {
    let record = outbound(end(VIP, 80), Endpoint::default());
    assert_eq!(named(&simple(), Direction::Outbound, &record), names("client", "-", "shop/cart"));
}

#[test]
fn a_service_steered_outside_the_mesh_keeps_its_name() {
    let record = outbound(end("192.0.2.7", 443), end(VIP, 80));
    assert_eq!(named(&simple(), Direction::Outbound, &record), names("client", "-", "shop/cart"));
}

#[test]
fn addresses_outside_the_mesh_are_nobody() {
    let out = outbound(end("192.0.2.7", 443), Endpoint::default());
    assert_eq!(named(&simple(), Direction::Outbound, &out), names("client", "-", "-"));
    let r#in = Record { remote: end("192.0.2.7", 443), ..inbound(8080) };
    assert_eq!(named(&simple(), Direction::Inbound, &r#in), names("-", "server", "shop/cart"));
}

#[test]
fn an_accepted_connection_has_source_and_destination_the_other_way_round() {
    assert_eq!(named(&simple(), Direction::Inbound, &inbound(8080)), names("client", "server", "shop/cart"));
}

#[test]
fn mapped_addresses_are_the_ipv4_ones() {
    let record = outbound(end("::ffff:10.0.0.2", 8080), Endpoint::default());
    assert_eq!(named(&simple(), Direction::Outbound, &record), names("client", "server", "shop/cart"));
}

#[test]
fn a_pod_port_is_the_service_with_that_endpoint_port_before_target_port() {
    let by_target: (&str, &[(u16, u16)]) = ("shop/a-target", &[(80, 0)]);
    let cache = mesh(
        vec![pod("client", CLIENT, &[]), pod("server", SERVER, &[by_target, ("shop/b-endpoint", &[(80, 8080)])])],
        vec![
            service("shop/a-target", Some(VIP), &[(80, 8080), (81, 8081)]),
            service("shop/b-endpoint", Some("10.96.0.11"), &[(80, 8080)]),
        ],
    );
    assert_eq!(named(&cache, Direction::Inbound, &inbound(8080)).2, "shop/b-endpoint");
    assert_eq!(named(&cache, Direction::Inbound, &inbound(8081)).2, "shop/a-target");
    assert_eq!(named(&cache, Direction::Inbound, &inbound(8082)).2, "-");
    let dialled = outbound(end(SERVER, 8081), Endpoint::default());
    assert_eq!(named(&cache, Direction::Outbound, &dialled), names("client", "server", "shop/a-target"));
}

#[test]
fn of_several_services_own_namespace_then_virtual_address_then_name_decides() {
    let all: [(&str, Option<&str>); 5] = [
        ("alien/a", Some("10.96.0.1")),
        ("shop/a-headless", None),
        ("shop/c", Some("10.96.0.3")),
        ("shop/b", Some("10.96.0.2")),
        ("alien/b", None),
    ];
    let winners = ["shop/b", "shop/c", "shop/a-headless", "alien/a", "alien/b"];
    let mut left = all.to_vec();
    for winner in winners {
        let ports: &[(u16, u16)] = &[(80, 8080)];
        let server = pod("server", SERVER, &left.iter().map(|s| (s.0, ports)).collect::<Vec<_>>());
        let cache = mesh(vec![server], left.iter().map(|s| service(s.0, s.1, ports)).collect());
        assert_eq!(named(&cache, Direction::Inbound, &inbound(8080)).2, winner);
        left.retain(|s| s.0 != winner);
    }
}

#[test]
fn a_port_of_no_service_is_the_only_service_if_that_is_headless() {
    let at = |services: &[(&str, Option<&str>)]| {
        let server = pod("server", SERVER, &services.iter().map(|s| (s.0, &[(80, 8080)][..])).collect::<Vec<_>>());
        let cache = mesh(vec![server], services.iter().map(|s| service(s.0, s.1, &[(80, 8080)])).collect());
        named(&cache, Direction::Inbound, &inbound(5432)).2
    };
    assert_eq!(at(&[("shop/db", None)]), "shop/db");
    assert_eq!(at(&[("shop/db", Some(VIP))]), "-");
    assert_eq!(at(&[("shop/db", None), ("shop/db2", None)]), "-");
}

#[test]
fn a_service_that_no_one_defines_is_not_named() {
    let cache = mesh(vec![pod("server", SERVER, &[("shop/ghost", &[(80, 8080)])])], vec![]);
    assert_eq!(named(&cache, Direction::Inbound, &inbound(8080)), names("-", "server", "-"));
}

#[test]
fn a_waypoint_on_the_way_is_the_destination() {
    let waypoint = pod("waypoint", "10.0.0.9", &[("shop/waypoint", &[(15008, 15008)])]);
    let cart = service("shop/cart", Some(VIP), &[(80, 8080)]);
    let server = pod("server", SERVER, &[("shop/cart", &[(80, 8080)])]);
    let cache = mesh(vec![pod("client", CLIENT, &[]), server, waypoint], vec![cart]);
    let at = |record: Record| attribute(&record, Direction::Outbound, &cache.load(), "");
    // A workload that was dialled gives its service, as it would without a waypoint.
    for dialled in [end(VIP, 80), end(SERVER, 8080)] {
        let record = outbound(end("10.0.0.9", 15008), dialled);
        let by_way = at(Record { flags: abi::record::flags::WAYPOINT, ..record });
        assert_eq!(shown(&by_way), names("client", "waypoint", "shop/cart"));
    }
}

#[test]
fn a_look_up_uses_the_node_network_then_the_empty_one() {
    let elsewhere = |name, network| Workload { network: Str::from(network), ..pod(name, SERVER, &[]) };
    let cache = mesh(vec![elsewhere("ours", "west"), elsewhere("theirs", "east"), pod("client", CLIENT, &[])], vec![]);
    let record = outbound(end(SERVER, 80), Endpoint::default());
    let at = |network| shown(&attribute(&record, Direction::Outbound, &cache.load(), network));
    assert_eq!(at("west"), names("client", "ours", "-"));
    assert_eq!(at("north"), names("client", "-", "-"));
}

#[test]
fn loopback_at_both_ends_and_what_the_node_opens_are_ignored() {
    let node = NodeAddresses::default();
    node.set([ip("10.0.0.254"), ip("::ffff:10.1.0.1")]);
    let at = |direction, local: &str, remote: &str, include| {
        let record = Record { local: end(local, 1), remote: end(remote, 2), ..Record::default() };
        ignored(&record, direction, &node, include)
    };
    use Direction::{Inbound, Outbound};
    assert_eq!(at(Outbound, "127.0.0.1", "127.0.0.2", true), Some(Ignored::Loopback));
    assert_eq!(at(Inbound, "::1", "::1", false), Some(Ignored::Loopback));
    assert_eq!(at(Outbound, "::ffff:127.0.0.1", "127.0.0.1", false), Some(Ignored::Loopback));
    assert_eq!(at(Outbound, SERVER, "127.0.0.1", false), None);
    assert_eq!(at(Inbound, SERVER, "10.0.0.254", false), Some(Ignored::Node));
    assert_eq!(at(Inbound, SERVER, "10.1.0.1", false), Some(Ignored::Node));
    assert_eq!(at(Inbound, SERVER, "10.0.0.254", true), None);
    assert_eq!(at(Outbound, SERVER, "10.0.0.254", false), None);
}

#[test]
fn a_socket_without_an_address_has_its_pods() {
    let node = NodeAddresses::default();
    node.set_pods([(7, vec![ip("fd00::7"), ip("10.0.0.7")]), (8, vec![])]);
    let at = |netns, local: &str, remote: &str| {
        let record = Record { netns, local: end(local, 5), remote: end(remote, 2), ..Record::default() };
        node.located(&record).local
    };
    assert_eq!(at(7, "0.0.0.0", "203.0.113.1"), end("10.0.0.7", 5));
    assert_eq!(at(7, "::", "2001:db8::1"), end("fd00::7", 5));
    assert_eq!(at(7, "10.0.0.9", "203.0.113.1"), end("10.0.0.9", 5));
    assert_eq!(at(8, "0.0.0.0", "203.0.113.1"), end("0.0.0.0", 5));
    assert_eq!(at(9, "0.0.0.0", "203.0.113.1"), end("0.0.0.0", 5));
}
