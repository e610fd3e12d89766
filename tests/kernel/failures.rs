//! A connect that fails is counted once, with its reason.

use anyhow::Result;
use tests::{Meshd, Scrape, meshd::ALL};

use crate::pair::{Pair, TARGET};

#[test]
fn a_refused_connect() -> Result<()> {
    let mut pair = Pair::new("refused")?;
    let dial = format!("{}:9", pair.server_pod.v4);
    let meshd = Meshd::start(&pair.sandbox, &pair.mesh(), ALL)?;
    assert_eq!(pair.client.ask_to_fail(format_args!("connect a {dial}"))?, "ECONNREFUSED");
    is_told(&meshd, "CONNECT_REFUSED", "server", &[("dst.addr", &dial), ("error", "ECONNREFUSED")])
}

#[test]
fn a_refused_connect_over_ipv6() -> Result<()> {
    let mut pair = Pair::new("refused6")?;
    let dial = format!("[{}]:9", pair.server_pod.v6);
    let meshd = Meshd::start(&pair.sandbox, &pair.mesh(), ALL)?;
    assert_eq!(pair.client.ask_to_fail(format_args!("connect a {dial}"))?, "ECONNREFUSED");
    is_told(&meshd, "CONNECT_REFUSED", "server", &[("dst.addr", &dial), ("error", "ECONNREFUSED")])
}

#[test]
fn a_connect_that_nobody_answers() -> Result<()> {
    let mut pair = Pair::new("timeout")?;
    pair.server_pod.namespace().run("iptables -A INPUT -p tcp -j DROP")?;
    pair.client_pod.namespace().sysctl("net.ipv4.tcp_syn_retries", "1")?;
    let meshd = Meshd::start(&pair.sandbox, &pair.mesh(), ALL)?;
    let dial = pair.direct();
    assert_eq!(pair.client.ask_to_fail(format_args!("connect a {dial}"))?, "ETIMEDOUT");
    is_told(&meshd, "CONNECT_TIMEOUT", "server", &[("dst.addr", &dial), ("error", "ETIMEDOUT")])
}

#[test]
fn a_host_that_is_reported_unreachable() -> Result<()> {
    let mut pair = Pair::new("unreachable")?;
    pair.server_pod.namespace().run("iptables -A INPUT -p tcp -j REJECT --reject-with icmp-host-unreachable")?;
    let meshd = Meshd::start(&pair.sandbox, &pair.mesh(), ALL)?;
    let dial = pair.direct();
    assert_eq!(pair.client.ask_to_fail(format_args!("connect a {dial}"))?, "EHOSTUNREACH");
    is_told(&meshd, "CONNECT_UNREACHABLE", "server", &[("dst.addr", &dial), ("error", "EHOSTUNREACH")])
}

#[test]
fn a_network_without_route() -> Result<()> {
    let mut pair = Pair::new("noroute")?;
    let meshd = Meshd::start(&pair.sandbox, &pair.mesh(), ALL)?;
    assert_eq!(pair.client.ask_to_fail("connect a 203.0.113.9:80")?, "ENETUNREACH");
    // An address outside the mesh is in the log alone, never a label.
    let from = format!("{}:0", pair.client_pod.v4);
    let line = [("src.addr", &*from), ("dst.addr", "203.0.113.9:80"), ("error", "ENETUNREACH")];
    is_told(&meshd, "CONNECT_UNREACHABLE", "-", &line)?;
    assert!(!meshd.metrics()?.contains("203.0.113.9"));
    Ok(())
}

#[test]
fn a_pod_without_a_free_port() -> Result<()> {
    let mut pair = Pair::new("noport")?;
    pair.client_pod.namespace().sysctl("net.ipv4.ip_local_port_range", "40000 40000")?;
    let dial = pair.direct();
    pair.client.ask(format_args!("connect a {dial}"))?;
    let meshd = Meshd::start(&pair.sandbox, &pair.mesh(), ALL)?;
    assert_eq!(pair.client.ask_to_fail(format_args!("connect b {dial}"))?, "EADDRNOTAVAIL");
    let line = [("dst.addr", &*dial), ("error", "EADDRNOTAVAIL")];
    is_told(&meshd, "CONNECT", "server", &line)
}

#[test]
fn a_connect_that_the_program_gives_up() -> Result<()> {
    let mut pair = Pair::new("abandoned")?;
    pair.server_pod.namespace().run("iptables -A INPUT -p tcp -j DROP")?;
    let meshd = Meshd::start(&pair.sandbox, &pair.mesh(), ALL)?;
    let dial = pair.direct();
    pair.client.ask(format_args!("give-up {dial}"))?;
    is_told(&meshd, "CONNECT_ABANDONED", "server", &[("dst.addr", &dial)])
}

#[test]
fn a_socket_that_fails_and_then_connects_is_one_failure_and_one_connection() -> Result<()> {
    let mut pair = Pair::new("secondtry")?;
    let meshd = Meshd::start(&pair.sandbox, &pair.mesh(), ALL)?;
    let (client, server) = (&mut pair.client, &mut pair.server);
    client.ask_to_fail(format_args!("connect a {}:9", pair.server_pod.v4))?;
    client.open("a", format_args!("{}:{TARGET}", pair.server_pod.v4), "l", server)?;
    client.send("a", 3, server)?;
    client.close("a", server)?;
    let scrape = meshd.eventually(|s| {
        s.shows("kmesh_tcp_workload_sent_bytes_total", &[("reporter", "source")], 3.0)?;
        s.shows("kmesh_tcp_workload_connections_closed_total", &[], 2.0)
    })?;
    scrape.shows("kmesh_tcp_workload_connections_failed_total", &[], 1.0)?;
    scrape.shows("kmesh_tcp_workload_connections_opened_total", &[], 2.0)
}

/// One failure with this flag from `client` to a workload, under every name, and nothing opened or closed; one line with these fields.
fn is_told(meshd: &Meshd<'_>, flag: &str, to: &str, line: &[(&str, &str)]) -> Result<()> {
    let labels =
        [("reporter", "source"), ("source_workload", "client"), ("destination_workload", to), ("response_flags", flag)];
    // The reference documents spell two of them like this.
    let names = [
        "kmesh_tcp_connections_failed_total",
        "kmesh_tcp_conntections_failed_total",
        "kmesh_tcp_workload_connections_failed_total",
        "kmesh_tcp_workload_conntections_failed_total",
    ];
    let all = |s: &Scrape| names.iter().try_for_each(|name| s.shows(name, &labels, 1.0));
    let scrape = meshd.eventually(all)?;
    for name in names {
        scrape.shows(name, &[], 1.0)?;
    }
    for family in ["kmesh_tcp", "kmesh_tcp_workload"] {
        scrape.shows(&format!("{family}_connections_opened_total"), &[], 0.0)?;
        scrape.shows(&format!("{family}_connections_closed_total"), &[], 0.0)?;
    }
    let line = meshd.logs(&[line, &[("direction", "OUTBOUND"), ("state", "BPF_TCP_CLOSE")]].concat())?;
    assert_eq!((line.field("src.workload"), line.number("sent_bytes")), ("client-0", 0));
    assert_eq!(meshd.access_log()?.len(), 1);
    Ok(())
}
