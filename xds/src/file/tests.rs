mod fuzz;
mod reload;

use std::{fmt::Write as _, path::Path};

use cache::{
    Health, NetworkMode,
    model::{GatewayDestination, Protocol},
};
use proptest::prelude::*;

use super::*;

const LOCAL: &str = include_str!("tests/local.yaml");

fn parse(text: &str) -> Result<Mesh, FileError> {
    Mesh::parse(text, Path::new("mesh.yaml"))
}

fn error(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

#[test]
fn every_field_of_a_workload_is_read() {
    let mesh = parse(LOCAL).unwrap();
    let w = &mesh.workloads[0];
    assert_eq!((&*w.uid, &*w.name, &*w.namespace), ("cluster1//v1/Pod/shop/cart-7d4b-x2x", "cart-7d4b-x2x", "shop"));
    assert_eq!(w.principal(), "spiffe://example.org/ns/shop/sa/cart");
    assert_eq!((&*w.network, &*w.node, &*w.cluster_id, &*w.hostname), ("", "local", "cluster1", "cart.example.org"));
    assert_eq!((&*w.workload_name, &*w.workload_type), ("cart", "deployment"));
    assert_eq!((&*w.canonical_name, &*w.canonical_revision), ("cart", "v2"));
    assert_eq!(*w.addresses, ["127.0.0.1", "fd00::5"].map(|a| a.parse::<std::net::IpAddr>().unwrap()));
    assert_eq!((w.protocol, w.network_mode, w.status), (Protocol::Hbone, NetworkMode::Standard, Health::Unhealthy));
    assert_eq!(w.services[0].0, "shop/cart.example.org");
    assert_eq!(*w.services[0].1, [(80, 8080), (443, 8443)]);
    let extra = w.extra.as_ref().unwrap();
    let waypoint = extra.waypoint.as_ref().unwrap();
    assert_eq!(waypoint.destination, GatewayDestination::Hostname("shop/waypoint.shop.svc.cluster.local".into()));
    let gateway = extra.network_gateway.as_ref().unwrap();
    assert_eq!(gateway.destination, GatewayDestination::Address("remote".into(), "192.0.2.7".parse().unwrap()));
    assert_eq!((waypoint.hbone_mtls_port, gateway.hbone_mtls_port), (15008, 15009));
    assert_eq!(extra.application_tunnel, Some(("PROXY".into(), Some(15088))));
    assert_eq!((extra.native_tunnel, extra.capacity, &*extra.locality.subzone), (true, Some(3), "rack-7"));
    assert_eq!(*extra.authorization_policies, ["shop/allow-front"]);
}

#[test]
fn what_is_left_out_has_its_default() {
    let mesh = parse(LOCAL).unwrap();
    let w = &mesh.workloads[1];
    assert_eq!(w.uid, "//v1/Pod/shop/plain");
    assert_eq!(w.principal(), "spiffe://cluster.local/ns/shop/sa/default");
    assert_eq!((w.protocol, w.status), (Protocol::Tcp, Health::Healthy));
    assert!(w.extra.is_none());
}

#[test]
fn every_field_of_a_service_is_read_and_its_endpoints_are_the_workloads() {
    let mesh = parse(LOCAL).unwrap();
    let s = &mesh.services[0];
    assert_eq!((&*s.key(), &*s.name, s.canonical, &*s.ip_families), ("shop/cart.example.org", "cart", true, "Dual"));
    let vips = [("".into(), "127.10.0.1".parse().unwrap()), ("remote".into(), "fd00:10::1".parse().unwrap())];
    assert_eq!(*s.vips, vips);
    assert_eq!(*s.ports, [(80, 8080), (81, 0)]);
    assert_eq!(*s.subject_alt_names, ["spiffe://example.org/ns/shop/sa/cart"]);
    assert!(s.waypoint.is_some());
    let balancing = s.load_balancing.as_ref().unwrap();
    assert_eq!((&*balancing.mode, balancing.allow_unhealthy), ("FAILOVER", true));
    assert_eq!(*balancing.routing_preference, ["NETWORK", "REGION"]);
    assert_eq!(*mesh.workloads[1].services, [("shop/other.example.org".into(), [(80, 9090)].into())]);
    assert!(mesh.warnings.is_empty(), "{:?}", mesh.warnings);
}

#[test]
fn policies_are_kept_as_they_are() {
    let mesh = parse(LOCAL).unwrap();
    let (key, policy) = &mesh.policies[0];
    assert_eq!(key, "shop/deny-9999");
    assert_eq!(policy["rules"][0][0][0]["notDestinationPorts"], serde_json::json!([9999]));
    assert_eq!(
        (&policy["action"], &policy["scope"], &policy["dryRun"]),
        (&"Deny".into(), &"Namespace".into(), &false.into())
    );
}

/// A workload that is right but for what is added to it.
fn pod(name: &str, address: &str, more: &str) -> String {
    format!("- {{name: {name}, namespace: ns, workloadIps: [{address:?}], {more}}}\n")
}

fn service(hostname: &str, more: &str) -> String {
    format!("- {{name: s, namespace: ns, hostname: {hostname:?}, {more}}}\n")
}

#[test]
fn an_unknown_field_is_an_error_that_names_it_its_line_and_the_file() {
    let text = format!("workloads:\n{}{}", pod("a", "10.0.0.1", ""), pod("b", "10.0.0.2", "nodeName: x"));
    let error = error(&text);
    assert!(error.starts_with("mesh.yaml:3:"), "{error}");
    assert!(error.contains("workloads[1].nodeName: unknown field `nodeName`"), "{error}");
    assert!(!error.contains(" at line"), "{error}");
}

#[test]
fn what_is_wrong_is_said_with_line_and_field() {
    let cases = [
        (format!("workloads:\n{}", pod("a", "10.0.0", "")), "mesh.yaml:2:", "workloads[0].workloadIps[0]: invalid IP"),
        ("workloads:\n- {name: a, workloadIps: []}\n".into(), "mesh.yaml:2:", "missing field `namespace`"),
        ("workloads:\n- {name: a, namespace: b}\n".into(), "mesh.yaml:2:", "missing field `workloadIps`"),
        ("workloads: [\n".into(), "mesh.yaml:1:", "workloads: unclosed bracket"),
        ("workloads:\n- name: a\n  name: b\n".into(), "mesh.yaml:3:", "duplicate mapping key: name"),
        ("mesh: {}\n".into(), "mesh.yaml:1:1", "unknown field `mesh`"),
        (
            format!("workloads:\n{}", pod("a", "1.1.1.1", "status: Sick")),
            "mesh.yaml:2:",
            "status: unknown variant `Sick`",
        ),
        (
            format!("workloads:\n{}", pod("a", "1.1.1.1", "waypoint: {destination: x, hboneMtlsPort: 1}")),
            "mesh.yaml:2:",
            "waypoint.destination: \"x\" is neither network/address nor namespace/hostname",
        ),
        (
            format!("workloads:\n{}", pod("a", "1.1.1.1", "services: {host: {80: 80}}")),
            "mesh.yaml:2:",
            "\"host\" is not namespace/hostname",
        ),
        (
            format!("workloads:\n{}", pod("a", "1.1.1.1", "services: {n/h: {70000: 80}}")),
            "mesh.yaml:2:",
            "port 70000 is not in 1 to 65535",
        ),
        (
            format!("workloads:\n{}", pod("a", "1.1.1.1", "services: {n/h: {80: 0}}")),
            "mesh.yaml:2:",
            "port 0 is not in 1 to 65535",
        ),
        (
            format!("services:\n{}", service("h", "vips: [], ports: {0: 80}")),
            "mesh.yaml:2:",
            "ports.0: port 0 is not in 1 to 65535",
        ),
        (
            format!("services:\n{}", service("h", "vips: [], ports: {80: -1}")),
            "mesh.yaml:2:",
            "ports.80: port -1 is not in 0 to 65535",
        ),
        (
            format!("services:\n{}", service("h", "vips: [10.1.0.1], ports: {}")),
            "mesh.yaml:2:",
            "vips[0]: \"10.1.0.1\" is not network/address",
        ),
        (
            format!("services:\n{}", service("h", "vips: [/10.1.0], ports: {}")),
            "mesh.yaml:2:",
            "services[0].vips[0]: \"/10.1.0\" is not",
        ),
        (
            "policies:\n- {name: p, namespace: n, scope: Global, action: Log, rules: []}\n".into(),
            "mesh.yaml:2:",
            "action: unknown variant `Log`",
        ),
        ("workloads: []\n---\nworkloads: []\n".into(), "mesh.yaml:2:", "Documents"),
    ];
    for (text, place, what) in cases {
        let error = error(&text);
        assert!(error.starts_with(place) && error.contains(what), "{text}\n{error}");
    }
}

#[test]
fn contradictions_are_errors_that_name_both_sides() {
    let two = |a: String, b: String| format!("{a}{b}");
    let cases = [
        (
            format!("workloads:\n{}", two(pod("a", "10.0.0.1", ""), pod("b", "::ffff:10.0.0.1", ""))),
            "mesh.yaml:3: workload ns/b: workloadIps: 10.0.0.1 of network \"\" is also an address of workload ns/a (line 2)",
        ),
        (
            format!("workloads:\n{}", two(pod("a", "10.0.0.1", "networkMode: HostNetwork"), pod("b", "10.0.0.1", ""))),
            "workload ns/a (line 2)",
        ),
        (
            format!("workloads:\n{}", two(pod("a", "10.0.0.1", "uid: u"), pod("b", "10.0.0.2", "uid: u"))),
            "mesh.yaml:3: workload ns/b: uid: \"u\" is also the uid of workload ns/a (line 2)",
        ),
        (
            format!("workloads:\n{}", two(pod("a", "10.0.0.1", ""), pod("a", "10.0.0.2", ""))),
            "uid: \"//v1/Pod/ns/a\" is also",
        ),
        (
            format!("services:\n{}", two(service("h", "vips: [], ports: {}"), service("h", "vips: [], ports: {}"))),
            "mesh.yaml:3: service ns/h: hostname: the service is also defined on line 2",
        ),
        (format!("services:\n{}", service("", "vips: [], ports: {}")), "mesh.yaml:2: service ns/: hostname: is empty"),
        (format!("workloads:\n{}", pod("\"\"", "10.0.0.1", "")), "mesh.yaml:2: workload ns/: name: is empty"),
        (
            "policies:\n- &p {name: p, namespace: n, scope: Global, action: Deny, rules: []}\n- *p\n".into(),
            "policy n/p: name: the policy is also defined on line",
        ),
    ];
    for (text, what) in cases {
        let error = error(&text);
        assert!(error.contains(what), "{text}\n{error}");
    }
}

#[test]
fn an_address_may_be_shared_on_the_host_or_in_another_network() {
    let host = |name| pod(name, "192.168.0.1", "networkMode: HostNetwork");
    let text = format!("workloads:\n{}{}{}", host("a"), host("b"), pod("c", "192.168.0.1", "network: other"));
    assert_eq!(parse(&text).unwrap().workloads.len(), 3);
}

#[test]
fn what_cannot_be_steered_is_a_warning_that_names_it() {
    let text = format!(
        "workloads:\n{}{}services:\n{}",
        pod("a", "10.1.0.1", ""),
        "- {uid: b, name: b, namespace: ns, workloadIps: [], services: {ns/h: {80: 80}}}\n",
        service("h", "vips: [/10.1.0.1, /10.1.0.2], ports: {}"),
    );
    assert_eq!(
        parse(&text).unwrap().warnings,
        [
            "mesh.yaml:3: workload ns/b: workloadIps: it is an endpoint without an address, which takes no connections",
            "mesh.yaml:5: service ns/h: vips: 10.1.0.1 is not steered, as workload ns/a (line 2) has it",
        ]
    );
}

#[test]
fn what_does_no_harm_is_a_warning() {
    let text = format!(
        "workloads:\n{}{}services:\n{}{}",
        pod("a", "10.0.0.1", "services: {ns/gone: {80: 80}}"),
        pod("b", "10.0.0.2", "services: {ns/gone: {80: 80}}"),
        service("h", "vips: [/10.1.0.1], ports: {}"),
        service("i", "vips: [/10.1.0.1], ports: {}, endpoints: {u: {workloadUid: u, port: {80: 80}}}"),
    );
    let warnings = parse(&text).unwrap().warnings;
    assert_eq!(
        warnings,
        [
            "mesh.yaml:6: service ns/i: vips: 10.1.0.1 is also an address of the service ns/h",
            "mesh.yaml:6: service ns/i: endpoints: no workload has uid \"u\"",
            "mesh.yaml:2: workload ns/a: services: ns/gone is not defined",
        ]
    );
}

#[test]
fn the_old_form_and_an_empty_file_are_told_apart() {
    let old = error("- name: local\n  namespace: default\n  workloadIp: \"127.0.0.1\"\n  protocol: HBONE\n");
    assert!(old.contains("old form") && old.contains("workloadIps"), "{old}");
    assert!(error(" \n\n").contains("empty"));
    assert!(parse("workloads: []\n").unwrap().workloads.is_empty());
}

#[test]
fn aliases_work_within_bounds() {
    let text = "workloads:\n- &a\n  name: a\n  namespace: n\n  workloadIps: [10.0.0.1]\n- <<: *a\n  name: b\n  workloadIps: [10.0.0.2]\n";
    let mesh = parse(text).unwrap();
    assert_eq!((&*mesh.workloads[1].name, &*mesh.workloads[1].namespace), ("b", "n"));
    let mut bomb = "policies:\n- &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..12 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(",");
        writeln!(bomb, "- &a{i} [{aliases}]").unwrap();
    }
    assert!(parse(&bomb).is_err());
    let rules = format!(
        "policies:\n- {{name: p, namespace: n, scope: Global, action: Deny, rules: [[[{{a: &a {:?}}}]]]}}\n",
        "x".repeat(1 << 19)
    );
    let wide = format!(
        "{rules}- {{name: q, namespace: n, scope: Global, action: Deny, rules: [[[{{a: [{}]}}]]]}}\n",
        vec!["*a"; 9000].join(",")
    );
    assert!(error(&wide).contains("budget"));
}

#[test]
fn depth_is_bounded() {
    for open in ["[", "{a: ", "- "] {
        let error = error(&format!("policies: \n {}", open.repeat(100_000)));
        assert!(error.len() < 500, "{}", error.len());
    }
}

#[test]
fn names_cannot_break_a_message() {
    let text = format!("workloads:\n{}", pod(r#""a\nfake: line""#, "10.0.0.1", r#"uid: "u\nv""#).repeat(2));
    let error = error(&text);
    assert!(!error.contains('\n') && error.contains(r"a\nfake"), "{error}");
    let error = super::tests::error("workloads:\n- {\"x\\ny\": 1}\n");
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn a_file_is_read_within_its_bounds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mesh.yaml");
    assert!(matches!(read(&path), Err(FileError::Read { .. })));
    assert!(matches!(read(directory.path()), Err(FileError::NotAFile { .. })));
    std::fs::write(&path, b"a: b\nc: \xff\n").unwrap();
    let error = read(&path).unwrap_err().to_string();
    assert!(error.ends_with("mesh.yaml:2:4: not UTF-8"), "{error}");
    std::fs::File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
    assert!(matches!(read(&path), Err(FileError::TooLarge { .. })));
}

/// Text that looks like a mesh file, now and then.
fn mesh_like() -> impl Strategy<Value = String> {
    let lines = LOCAL.lines().map(str::to_owned).collect::<Vec<_>>();
    let token = prop_oneof![
        6 => proptest::sample::select(lines),
        1 => "[\\[\\]{}&*!|>:,?'\"%@`#~ \\-\n\tx0-9a]{0,12}",
        1 => any::<String>(),
    ];
    proptest::collection::vec(token, 0..40).prop_map(|tokens| tokens.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_makes_the_parser_panic(text in mesh_like()) {
        if let Err(error) = parse(&text) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }

    #[test]
    fn a_file_with_bytes_changed_is_read_or_refused(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = LOCAL.as_bytes().to_vec();
        for (at, to) in changes {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        _ = parse(&String::from_utf8_lossy(&bytes));
    }
}
