//! Connections that are older than `meshd`, than monitoring, or than their pod's enrolment.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::{
    Mesh, Meshd, Peer, Pod, Scrape,
    meshd::{ALL, mesh_file},
    retry::{DEADLINE, eventually},
};

use crate::pair::{Pair, TARGET, Truth, talk};

const ADOPTED: &str = "meshd_connections_adopted_total";

/// Waits until so many connections are adopted at each end.
fn adopted(meshd: &Meshd<'_>, count: u32) -> Result<Scrape> {
    meshd.eventually(|s| {
        s.shows(ADOPTED, &[("reporter", "source")], count.into())?;
        s.shows(ADOPTED, &[("reporter", "destination")], count.into())
    })
}

/// Opens a connection from client to server over each family, `a` and `b`, and sends 1000 bytes there and 20 back on each.
fn open_both(client: &mut Peer, server: &mut Peer, to: &Pod) -> Result<()> {
    for (name, dial) in [("a", format!("{}:{TARGET}", to.v4)), ("b", format!("[{}]:{TARGET}", to.v6))] {
        client.open(name, dial, "l", server)?;
        client.send(name, 1000, server)?;
        server.send(name, 20, client)?;
    }
    Ok(())
}

/// Moves bytes on `a` alone and ends both, `b` by a reset.
fn use_both(client: &mut Peer, server: &mut Peer) -> Result<()> {
    client.send("a", 77, server)?;
    server.send("a", 5, client)?;
    client.close("a", server)?;
    client.ask("reset b")?;
    server.ask_to_fail("drain b")?;
    server.ask("close b").map(drop)
}

#[test]
fn older_connections_are_adopted_in_both_directions_and_count_from_then_on() -> Result<()> {
    let mut pair = Pair::new("older")?;
    let service = pair.service();
    open_both(&mut pair.client, &mut pair.server, &pair.server_pod)?;
    let meshd = Meshd::start(&pair.sandbox, &pair.mesh(), ALL)?;
    let scrape = adopted(&meshd, 2)?;
    Truth { opened: 0, closed: 0, there: 0, back: 0 }.is_shown(&scrape)?;
    // Idle ones are long one day as any other, by their age since the adoption.
    meshd.eventually(|s| {
        let idle = format!("[{}]:{TARGET}", pair.server_pod.v6);
        let labels = [("reporter", "source"), ("destination_address", idle.as_str())];
        s.shows("kmesh_tcp_connection_sent_bytes_total", &labels, 0.0)?;
        s.only("kmesh_tcp_connection_sent_bytes_total", &labels).map(drop)
    })?;
    let debug: Vec<Value> = serde_json::from_str(&meshd.get(15200, "/debug/connections")?.body)?;
    assert!(debug.len() == 4 && debug.iter().all(|c| c["adopted"] == true), "{debug:#?}");

    use_both(&mut pair.client, &mut pair.server)?;
    talk(&mut pair.client, &mut pair.server, &service, 8)?;
    let scrape = meshd.eventually(|s| {
        Truth { opened: 1, closed: 3, there: 85, back: 5 }.is_shown(s)?;
        s.shows("meshd_telemetry_connections", &[], 0.0)
    })?;
    scrape.shows("kmesh_tcp_connections_closed_total", &[("response_flags", "RESET")], 2.0)?;
    scrape.shows(ADOPTED, &[], 4.0)?;
    scrape.shows("meshd_telemetry_vanished_total", &[], 0.0)?;
    let line = meshd.logs(&[("direction", "OUTBOUND"), ("state", "BPF_TCP_CLOSE"), ("sent_bytes", "77")])?;
    assert_eq!(line.number("received_bytes"), 5);
    Ok(())
}

#[test]
fn with_adopt_history_older_connections_count_with_what_they_had_moved() -> Result<()> {
    let mut pair = Pair::new("history")?;
    let direct = pair.direct();
    open_both(&mut pair.client, &mut pair.server, &pair.server_pod)?;
    let flags = [ALL, &["--adopt-history", "--access-log-format=json"]].concat();
    let meshd = Meshd::start(&pair.sandbox, &pair.mesh(), &flags)?;
    adopted(&meshd, 2)?;
    meshd.eventually(|s| Truth { opened: 0, closed: 0, there: 2000, back: 40 }.is_shown(s))?;
    use_both(&mut pair.client, &mut pair.server)?;
    talk(&mut pair.client, &mut pair.server, &direct, 3)?;
    meshd.eventually(|s| Truth { opened: 1, closed: 3, there: 2080, back: 45 }.is_shown(s))?;
    // Lines tell who was adopted.
    let line = |sent: u64| {
        eventually(DEADLINE, || {
            let lines = meshd.access_log()?;
            let lines = lines.iter().map(|l| serde_json::from_str(l)).collect::<Result<Vec<Value>, _>>()?;
            let fits = |l: &Value| l["state"] == "BPF_TCP_CLOSE" && l["sent_bytes"] == sent;
            lines.iter().find(|l| fits(l)).cloned().with_context(|| format!("{lines:#?}"))
        })
    };
    assert_eq!(line(1077)?["adopted"], true);
    assert_eq!(line(3)?["adopted"], false);
    Ok(())
}

#[test]
fn connections_are_adopted_when_monitoring_is_switched_on() -> Result<()> {
    let mut pair = Pair::new("later")?;
    let meshd = Meshd::start(&pair.sandbox, &pair.mesh(), &["--report-interval=500ms"])?;
    open_both(&mut pair.client, &mut pair.server, &pair.server_pod)?;
    let switch = |on: bool| -> Result<()> {
        let answer = meshd.post(&format!("/monitoring?enable={on}"), "")?;
        ensure!(answer.status == 200, "{}", answer.body);
        Ok(())
    };
    let sent = |s: &Scrape, bytes: f64| s.shows("kmesh_tcp_sent_bytes_total", &[("reporter", "source")], bytes);
    switch(true)?;
    adopted(&meshd, 2)?;
    pair.client.send("a", 7, &mut pair.server)?;
    meshd.eventually(|s| sent(s, 7.0))?;
    // Off and on again: who was known goes on from where it is then, who came meanwhile is adopted.
    switch(false)?;
    pair.client.send("a", 100, &mut pair.server)?;
    pair.client.open("c", pair.direct(), "l", &mut pair.server)?;
    pair.client.send("c", 100, &mut pair.server)?;
    switch(true)?;
    adopted(&meshd, 3)?;
    pair.client.send("c", 3, &mut pair.server)?;
    for name in ["a", "b", "c"] {
        pair.client.close(name, &mut pair.server)?;
    }
    let scrape = meshd.eventually(|s| s.shows("kmesh_tcp_connections_closed_total", &[], 6.0))?;
    scrape.shows("kmesh_tcp_connections_opened_total", &[], 0.0)?;
    sent(&scrape, 10.0)
}

#[test]
fn connections_of_a_pod_that_the_mesh_names_later_are_adopted_then() -> Result<()> {
    let mut pair = Pair::new("named")?;
    let (v4, v6) = pair.sandbox.next_pod();
    let pod = pair.sandbox.pod("late")?;
    assert_eq!((pod.v4, pod.v6), (v4, v6));
    let mut late = pod.peer()?;
    late.open("a", pair.direct(), "l", &mut pair.server)?;
    let meshd = Meshd::start(&pair.sandbox, &pair.mesh(), ALL)?;
    // The server's end alone is this mesh's so far.
    meshd.eventually(|s| s.shows(ADOPTED, &[("reporter", "destination")], 1.0))?;
    late.open("b", pair.direct(), "l", &mut pair.server)?;
    late.send("b", 500, &mut pair.server)?;
    let mesh = pair.mesh().workload("late", &[v4.into(), v6.into()], json!({}));
    fs::write(mesh_file(&pair.sandbox), mesh.render())?;
    meshd.eventually(|s| s.shows(ADOPTED, &[("reporter", "source")], 2.0))?;
    for (name, bytes) in [("a", 6), ("b", 60)] {
        late.send(name, bytes, &mut pair.server)?;
        late.close(name, &mut pair.server)?;
    }
    let ends = [("reporter", "source"), ("source_workload", "late"), ("destination_workload", "server")];
    let scrape = meshd.eventually(|s| s.shows("kmesh_tcp_workload_connections_closed_total", &ends, 2.0))?;
    scrape.shows("kmesh_tcp_workload_sent_bytes_total", &ends, 66.0)?;
    scrape.shows("kmesh_tcp_workload_connections_opened_total", &ends, 0.0)?;
    scrape.shows(ADOPTED, &[("reporter", "destination")], 1.0)
}

#[test]
fn connections_of_a_namespace_that_is_signalled_are_adopted_then() -> Result<()> {
    let mut pair = Pair::new("signalled")?;
    let direct = pair.direct();
    let mesh = Mesh::new().pod(&pair.server_pod).with("server", &json!({"node": "node-b"}));
    let meshd = Meshd::start(&pair.sandbox, &mesh, ALL)?;
    let (client, server) = (&mut pair.client, &mut pair.server);
    let signal = |client: &mut Peer, port: u16| -> Result<()> {
        client.begin(format_args!("give-up 0.0.0.2:{port}"))?;
        drop(client.finish());
        Ok(())
    };
    client.open("a", &direct, "l", server)?;
    client.send("a", 1000, server)?;
    signal(client, 929)?;
    meshd.eventually(|s| s.shows(ADOPTED, &[("reporter", "source")], 1.0))?;
    client.send("a", 4, server)?;
    client.close("a", server)?;
    let closed = |count| move |s: &Scrape| s.shows("kmesh_tcp_workload_connections_closed_total", &[], count);
    let scrape = meshd.eventually(closed(1.0))?;
    scrape.shows("kmesh_tcp_workload_sent_bytes_total", &[], 4.0)?;
    scrape.shows("kmesh_tcp_workload_connections_opened_total", &[], 0.0)?;
    scrape.shows("kmesh_tcp_workload_connections_failed_total", &[], 0.0)?;
    scrape.shows(ADOPTED, &[("reporter", "destination")], 0.0)
}

#[test]
fn with_manage_all_older_connections_of_every_namespace_are_adopted() -> Result<()> {
    let mut pair = Pair::new("everyone")?;
    open_both(&mut pair.client, &mut pair.server, &pair.server_pod)?;
    let flags = [ALL, &["--manage=all"]].concat();
    let meshd = Meshd::start(&pair.sandbox, &Mesh::new().pod(&pair.server_pod), &flags)?;
    // Other tests' namespaces are managed too; these labels are this one's.
    let ends = |reporter| [("reporter", reporter), ("source_workload", "-"), ("destination_workload", "server")];
    let closed = "kmesh_tcp_workload_connections_closed_total";
    meshd.eventually(|s| {
        let total = s.total(ADOPTED, &[("reporter", "source")]).min(s.total(ADOPTED, &[("reporter", "destination")]));
        ensure!(total >= 2.0, "{total} are adopted at both ends");
        Ok(())
    })?;
    use_both(&mut pair.client, &mut pair.server)?;
    for (reporter, sent) in [("source", 77.0), ("destination", 5.0)] {
        let scrape = meshd.eventually(|s| s.shows(closed, &ends(reporter), 2.0))?;
        scrape.shows("kmesh_tcp_workload_sent_bytes_total", &ends(reporter), sent)?;
        scrape.shows("kmesh_tcp_workload_connections_opened_total", &ends(reporter), 0.0)?;
    }
    Ok(())
}

#[test]
fn an_adopted_connection_from_outside_the_cgroup_is_closed_when_it_is_gone() -> Result<()> {
    let mut pair = Pair::new("outside")?;
    let inner = pair.sandbox.cgroup().join("inner");
    fs::create_dir(&inner)?;
    let inner = inner.to_str().context("a path is text")?.to_owned();
    open_both(&mut pair.client, &mut pair.server, &pair.server_pod)?;
    let flags = [ALL, &["--cgroup", &inner]].concat();
    let meshd = Meshd::start(&pair.sandbox, &pair.mesh(), &flags)?;
    adopted(&meshd, 2)?;
    let (client, server) = (&mut pair.client, &mut pair.server);
    client.send("a", 77, server)?;
    meshd.eventually(|s| Truth { opened: 0, closed: 0, there: 77, back: 0 }.is_shown(s))?;
    client.close("a", server)?;
    client.close("b", server)?;
    let scrape = meshd.eventually(|s| Truth { opened: 0, closed: 2, there: 77, back: 0 }.is_shown(s))?;
    scrape.shows("meshd_telemetry_vanished_total", &[], 4.0)?;
    drop(meshd);
    Ok(fs::remove_dir(inner)?)
}
