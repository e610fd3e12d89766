//! A service's address leads to one of its healthy endpoints and is named as the service.

use std::{cell::Cell, fs};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::{
    Mesh, Meshd, Peer,
    meshd::{ALL, mesh_file},
    retry::{DEADLINE, eventually},
};

use crate::pair::{PORT, Pair, TARGET, Truth, talk};

const ECHO: &str = "echo.shop.svc.cluster.local";

#[test]
fn a_service_address_is_steered_and_named_as_the_service() -> Result<()> {
    let mut pair = Pair::new("steer")?;
    let dials = [
        format!("{}:{PORT}", pair.sandbox.vip(1)),
        format!("[{}]:{PORT}", pair.sandbox.vip6(1)),
        format!("[::ffff:{}]:{PORT}", pair.sandbox.vip(1)),
    ];
    let sandbox = &pair.sandbox;
    let meshd = Meshd::start(sandbox, &pair.mesh(), ALL)?;
    let (client, server) = (&mut pair.client, &mut pair.server);

    for dial in &dials {
        talk(client, server, dial, 10)?;
    }
    let scrape = meshd.eventually(|s| Truth { opened: 3, closed: 3, there: 30, back: 0 }.is_shown(s))?;
    let service = [
        ("source_principal", "spiffe://cluster.local/ns/shop/sa/client"),
        ("source_canonical_service", "client"),
        ("source_canonical_revision", "v1"),
        ("source_app", "client"),
        ("source_version", "v1"),
        ("source_cluster", "cluster1"),
        ("source_workload_namespace", "shop"),
        ("destination_service", ECHO),
        ("destination_service_name", "echo"),
        ("destination_service_namespace", "shop"),
        ("destination_workload", "server"),
        ("destination_principal", "spiffe://cluster.local/ns/shop/sa/server"),
        ("request_protocol", "tcp"),
        ("connection_security_policy", "unknown"),
        ("response_flags", "-"),
    ];
    for reporter in ["source", "destination"] {
        let labels = [&service[..], &[("reporter", reporter)]].concat();
        let series = scrape.only("kmesh_tcp_connections_opened_total", &labels)?;
        assert_eq!((series.value, series.labels.len()), (3.0, 23));
        let (v4, v6) = (pair.server_pod.v4.to_string(), pair.server_pod.v6.to_string());
        for (address, opened) in [(&v4, 2.0), (&v6, 1.0)] {
            let pod =
                [("reporter", reporter), ("destination_pod_address", address), ("destination_pod_name", "server-0")];
            scrape.shows("kmesh_tcp_workload_connections_opened_total", &pod, opened)?;
        }
    }
    for address in [format!("{}:{TARGET}", pair.server_pod.v4), format!("[{}]:{TARGET}", pair.server_pod.v6)] {
        meshd.logs(&[("dst.addr", &address), ("dst.service", ECHO), ("direction", "OUTBOUND")])?;
        meshd.logs(&[("dst.addr", &address), ("src.workload", "client-0"), ("direction", "INBOUND")])?;
    }
    Ok(())
}

#[test]
fn a_json_line_tells_what_was_dialled_and_where_it_went() -> Result<()> {
    let mut pair = Pair::new("json")?;
    let (sandbox, service) = (&pair.sandbox, pair.service());
    let meshd = Meshd::start(sandbox, &pair.mesh(), &["--monitoring", "--access-log", "--access-log-format=json"])?;
    let (client, server) = (&mut pair.client, &mut pair.server);
    talk(client, server, &service, 11)?;

    let lines = eventually(DEADLINE, || {
        let lines = meshd.access_log()?;
        ensure!(lines.len() == 2, "two lines are awaited: {lines:#?}");
        Ok(lines.iter().map(|l| serde_json::from_str(l)).collect::<Result<Vec<Value>, _>>()?)
    })?;
    let texts = lines.iter().map(Value::to_string).collect::<Vec<_>>();
    let outbound = texts.iter().find(|t| t.contains("OUTBOUND")).expect("one line is the client's");
    for part in [&service, ECHO, &format!("{}:{TARGET}", pair.server_pod.v4), "\"sent_bytes\":11", "\"client-0\""] {
        assert!(outbound.contains(part), "no {part} in {outbound}");
    }
    Ok(())
}

#[test]
fn only_healthy_endpoints_take_connections_and_each_takes_some() -> Result<()> {
    let mut pair = Pair::new("spread")?;
    let (second, third) = (pair.sandbox.pod("second")?, pair.sandbox.pod("third")?);
    let (mut second_peer, mut third_peer) = (second.peer()?, third.peer()?);
    for peer in [&mut pair.server, &mut second_peer, &mut third_peer] {
        peer.ask("serve 0.0.0.0:9090")?;
    }
    let sandbox = &pair.sandbox;
    let vip = sandbox.vip(2);
    let mesh = pair.mesh().pod(&second).pod(&third);
    let mesh = mesh.service("many", &[vip.into()], &[(80, 9090)], &["server", "second", "third"]);
    let mesh = mesh.with("third", &json!({"status": "Unhealthy"}));
    let meshd = Meshd::start(sandbox, &mesh, &["--monitoring", "--workload-metrics"])?;

    // That one of two is never chosen in 60 random choices happens once in 10^17 runs.
    pair.client.ask(format_args!("churn {vip}:80 60 5"))?;
    let scrape = meshd.eventually(|s| {
        let many = [("reporter", "source"), ("destination_service_name", "many")];
        s.shows("kmesh_tcp_connections_closed_total", &many, 60.0)
    })?;
    let took = |w| {
        scrape.total(
            "kmesh_tcp_workload_connections_opened_total",
            &[("reporter", "source"), ("destination_workload", w)],
        )
    };
    assert!(took("server") > 0.0 && took("second") > 0.0, "{} and {}", took("server"), took("second"));
    assert_eq!((took("server") + took("second"), took("third")), (60.0, 0.0));
    Ok(())
}

#[test]
fn a_preferred_endpoint_that_is_lost_is_missed_by_a_strict_service_alone() -> Result<()> {
    let mut pair = Pair::new("prefer")?;
    let other = pair.sandbox.pod("other")?;
    let mut other_peer = other.peer()?;
    for peer in [&mut pair.server, &mut other_peer] {
        peer.ask("serve 0.0.0.0:9090")?;
    }
    let vip = pair.sandbox.vip(2);
    let mesh = pair.mesh().workload("other", &other.addresses(), json!({"node": "node-b"}));
    let mesh = mesh.service("many", &[vip.into()], &[(80, 9090)], &["server", "other"]);
    let prefers = |mesh: &Mesh, mode: &str| {
        let balancing = json!({"routingPreferences": ["Node"], "mode": mode, "healthPolicy": "OnlyHealthy"});
        mesh.clone().with_service("many", &json!({"loadBalancer": balancing}))
    };
    let lost = mesh.clone().with("server", &json!({"status": "Unhealthy"}));
    let meshd = Meshd::start(&pair.sandbox, &prefers(&mesh, "Failover"), &["--monitoring", "--workload-metrics"])?;
    let write = |mesh: &Mesh| fs::write(mesh_file(&pair.sandbox), mesh.render());
    let dialled = Cell::new(0_u32);
    // Dials, and tells how many connections went to a workload and how many there were, once all of them are told.
    let dial = |client: &mut Peer, count: u32, workload: &str| -> Result<(f64, f64)> {
        client.ask(format_args!("churn {vip}:80 {count} 5"))?;
        dialled.update(|n| n + count);
        let opened = "kmesh_tcp_workload_connections_opened_total";
        let told = meshd.eventually(|s| s.shows(opened, &[("reporter", "source")], dialled.get().into()))?;
        let its = told.total(opened, &[("reporter", "source"), ("destination_workload", workload)]);
        Ok((its, dialled.get().into()))
    };
    // From the first one that gets there on, all do.
    let all_go_to = |client: &mut Peer, workload: &str| -> Result<()> {
        let (mut before, _) = dial(client, 0, workload)?;
        let (first, all) = eventually(DEADLINE, || {
            let (its, all) = dial(client, 1, workload)?;
            ensure!(its > std::mem::replace(&mut before, its), "{workload} takes none");
            Ok((its, all))
        })?;
        let (its, now) = dial(client, 20, workload)?;
        ensure!(its - first == now - all, "{} of {} went to {workload}", its - first, now - all);
        Ok(())
    };
    all_go_to(&mut pair.client, "server")?;
    write(&prefers(&lost, "Failover"))?;
    all_go_to(&mut pair.client, "other")?;
    write(&prefers(&mesh, "Failover"))?;
    all_go_to(&mut pair.client, "server")?;

    write(&prefers(&lost, "Strict"))?;
    eventually(DEADLINE, || {
        let refused = pair.client.ask_to_fail(format_args!("churn {vip}:80 1 5"));
        let reason = refused.inspect_err(|_connected| dialled.update(|n| n + 1))?;
        ensure!(reason == "ECONNREFUSED", "{reason}");
        Ok(())
    })?;
    write(&prefers(&mesh, "Strict"))?;
    all_go_to(&mut pair.client, "server")
}

#[test]
fn without_a_healthy_endpoint_a_strict_service_refuses_and_is_named() -> Result<()> {
    let mut pair = Pair::new("empty")?;
    let sandbox = &pair.sandbox;
    let vip = sandbox.vip(3);
    let mesh = pair.mesh().service("empty", &[vip.into()], &[(80, 80)], &[]);
    let strict = mesh.with_service(
        "empty",
        &json!({"loadBalancer": {"routingPreferences": ["Zone"], "mode": "Strict", "healthPolicy": "OnlyHealthy"}}),
    );
    let meshd = Meshd::start(sandbox, &strict, ALL)?;
    assert_eq!(pair.client.ask_to_fail(format_args!("connect a {vip}:80"))?, "ECONNREFUSED");

    let labels = [
        ("reporter", "source"),
        ("source_workload", "client"),
        ("response_flags", "NO_HEALTHY_ENDPOINT"),
        ("destination_service_name", "empty"),
        ("destination_workload", "-"),
    ];
    let scrape = meshd.eventually(|s| s.shows("kmesh_tcp_connections_failed_total", &labels, 1.0))?;
    assert_eq!(scrape.total("kmesh_tcp_connections_failed_total", &[]), 1.0);
    assert_eq!(scrape.total("kmesh_tcp_connections_opened_total", &[]), 0.0);
    meshd.logs(&[
        ("dst.service", "empty.shop.svc.cluster.local"),
        ("state", "BPF_TCP_CLOSE"),
        ("dst.workload", "-"),
    ])?;
    Ok(())
}

#[test]
fn without_a_healthy_endpoint_another_service_s_address_is_dialled_as_it_is() -> Result<()> {
    let mut pair = Pair::new("through")?;
    let vip = pair.sandbox.vip(3);
    let mesh = pair.mesh().service("empty", &[vip.into()], &[(80, 80)], &[]);
    let meshd = Meshd::start(&pair.sandbox, &mesh, ALL)?;
    assert_eq!(pair.client.ask_to_fail(format_args!("connect a {vip}:80"))?, "ENETUNREACH");
    let labels = [("response_flags", "CONNECT_UNREACHABLE"), ("destination_service_name", "empty")];
    meshd.eventually(|s| s.shows("kmesh_tcp_connections_failed_total", &labels, 1.0)).map(drop)
}

#[test]
fn a_port_that_the_service_does_not_declare_still_names_the_service() -> Result<()> {
    let mut pair = Pair::new("undeclared")?;
    let sandbox = &pair.sandbox;
    let meshd = Meshd::start(sandbox, &pair.mesh(), ALL)?;
    // No route leads to a virtual address: only steering makes one reachable.
    assert_eq!(pair.client.ask_to_fail(format_args!("connect a {}:81", sandbox.vip(1)))?, "ENETUNREACH");
    let labels = [("destination_service_name", "echo"), ("destination_workload", "-")];
    meshd.eventually(|s| s.shows("kmesh_tcp_connections_failed_total", &labels, 1.0)).map(drop)
}
