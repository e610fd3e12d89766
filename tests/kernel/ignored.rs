//! What is no traffic of the mesh is not reported, and counted as ignored.

use anyhow::Result;
use tests::{Meshd, Peer, meshd::ALL};

use crate::pair::{Pair, Truth, talk};

const IGNORED: &str = "meshd_telemetry_ignored_total";

#[test]
fn a_pods_own_loopback_is_ignored_and_counted() -> Result<()> {
    let mut pair = Pair::new("loopback")?;
    let (sandbox, direct) = (&pair.sandbox, pair.direct());
    let meshd = Meshd::start(sandbox, &pair.mesh(), ALL)?;
    let (client, server) = (&mut pair.client, &mut pair.server);

    for (name, dial) in [("a", "127.0.0.1:8080"), ("b", "[::1]:8080")] {
        server.ask(format_args!("connect {name} {dial}"))?;
        server.ask(format_args!("accept l {name}2"))?;
        server.ask(format_args!("send {name} 5"))?;
        server.ask(format_args!("receive {name}2 5"))?;
        server.ask(format_args!("close {name}"))?;
        server.ask(format_args!("close {name}2"))?;
    }
    // Both ends of both.
    meshd.eventually(|s| s.shows(IGNORED, &[("reason", "loopback")], 4.0))?;
    talk(client, server, &direct, 0)?;
    meshd.eventually(|s| Truth { opened: 1, closed: 1, ..Truth::default() }.is_shown(s))?;
    let scrape = meshd.scrape()?;
    scrape.shows("kmesh_tcp_connections_opened_total", &[], 2.0)?;
    scrape.shows(IGNORED, &[], 4.0)?;
    meshd.logs(&[("direction", "INBOUND")])?;
    meshd.logs(&[("direction", "OUTBOUND")])?;
    assert_eq!(meshd.access_log()?.len(), 2);
    Ok(())
}

#[test]
fn probes_of_a_pods_own_node_are_ignored_and_counted() -> Result<()> {
    let mut pair = Pair::new("probe")?;
    let (sandbox, direct) = (&pair.sandbox, pair.direct());
    let mut kubelet = Peer::start(sandbox.node(), sandbox.cgroup())?;
    let meshd = Meshd::start(sandbox, &pair.mesh(), ALL)?;

    kubelet.open("a", &direct, "l", &mut pair.server)?;
    kubelet.close("a", &mut pair.server)?;
    // A process of the node is in no managed namespace: its own end is not even seen.
    let seen = "meshd_telemetry_kernel_connections_total";
    let scrape = meshd.eventually(|s| {
        s.shows(IGNORED, &[("reason", "node")], 1.0)?;
        s.shows(seen, &[("event", "closed")], 1.0)
    })?;
    scrape.shows(seen, &[("event", "established")], 1.0)?;
    scrape.shows("kmesh_tcp_connections_opened_total", &[], 0.0)?;
    assert_eq!(meshd.access_log()?, Vec::<String>::new());
    Ok(())
}

#[test]
fn probes_are_reported_when_asked_for() -> Result<()> {
    let mut pair = Pair::new("probed")?;
    let (sandbox, direct) = (&pair.sandbox, pair.direct());
    let mut kubelet = Peer::start(sandbox.node(), sandbox.cgroup())?;
    let flags = [ALL, &["--include-node-traffic"]].concat();
    let meshd = Meshd::start(sandbox, &pair.mesh(), &flags)?;

    kubelet.open("a", &direct, "l", &mut pair.server)?;
    kubelet.send("a", 9, &mut pair.server)?;
    kubelet.close("a", &mut pair.server)?;
    let labels = [
        ("reporter", "destination"),
        ("source_workload", "-"),
        ("source_principal", "-"),
        ("destination_workload", "server"),
        ("destination_service_name", "echo"),
    ];
    let scrape = meshd.eventually(|s| s.shows("kmesh_tcp_received_bytes_total", &labels, 9.0))?;
    scrape.shows(IGNORED, &[], 0.0)?;
    meshd.logs(&[("src.workload", "-"), ("dst.workload", "server-0")]).map(drop)
}
