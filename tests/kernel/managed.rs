//! Whose connections are steered and observed.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tests::{Mesh, Meshd, meshd::ALL, retry::eventually};

use crate::pair::{Pair, talk};

const OPENED: &str = "kmesh_tcp_workload_connections_opened_total";

#[test]
fn a_namespace_that_appears_later_is_enrolled() -> Result<()> {
    let mut pair = Pair::new("late")?;
    let (sandbox, service) = (&pair.sandbox, pair.service());
    // A pod that the mesh names and nobody has made yet.
    let (v4, v6) = sandbox.next_pod();
    let mesh = pair.mesh().workload("late", &[v4.into(), v6.into()], json!({}));
    let meshd = Meshd::start(sandbox, &mesh, ALL)?;

    let pod = sandbox.pod("late")?;
    let mut late = pod.peer()?;
    // Not managed yet, a service's address leads nowhere.
    eventually(Duration::from_secs(3), || late.open("a", &service, "l", &mut pair.server))?;
    late.send("a", 6, &mut pair.server)?;
    late.close("a", &mut pair.server)?;
    let labels = [("reporter", "source"), ("source_workload", "late"), ("destination_workload", "server")];
    meshd.eventually(|s| s.shows("kmesh_tcp_workload_sent_bytes_total", &labels, 6.0)).map(drop)
}

#[test]
fn a_workload_of_another_node_is_not_managed_here() -> Result<()> {
    let mut pair = Pair::new("remote")?;
    let (sandbox, direct) = (&pair.sandbox, pair.direct());
    let mesh = pair.mesh().with("server", &json!({"node": "node-b"}));
    let meshd = Meshd::start(sandbox, &mesh, ALL)?;
    let (client, server) = (&mut pair.client, &mut pair.server);
    talk(client, server, &direct, 4)?;
    let ends = [("reporter", "source"), ("destination_workload", "server"), ("destination_pod_name", "server-0")];
    let scrape = meshd.eventually(|s| s.shows("kmesh_tcp_workload_sent_bytes_total", &ends, 4.0))?;
    scrape.shows("kmesh_tcp_workload_connections_opened_total", &[("reporter", "destination")], 0.0)
}

#[test]
fn with_manage_all_a_namespace_that_nobody_names_is_observed() -> Result<()> {
    let mut pair = Pair::new("all")?;
    let (sandbox, direct) = (&pair.sandbox, pair.direct());
    let flags = [ALL, &["--manage=all"]].concat();
    let meshd = Meshd::start(sandbox, &Mesh::new().pod(&pair.server_pod), &flags)?;
    let (client, server) = (&mut pair.client, &mut pair.server);
    talk(client, server, &direct, 5)?;
    for reporter in ["source", "destination"] {
        let ends = [("reporter", reporter), ("source_workload", "-"), ("destination_workload", "server")];
        meshd.eventually(|s| s.shows(OPENED, &ends, 1.0))?;
    }
    Ok(())
}

#[test]
fn the_cni_signal_enrols_a_namespace_and_takes_it_out_again() -> Result<()> {
    let mut pair = Pair::new("signal")?;
    let (sandbox, direct) = (&pair.sandbox, pair.direct());
    let mesh = Mesh::new().pod(&pair.server_pod).with("server", &json!({"node": "node-b"}));
    let meshd = Meshd::start(sandbox, &mesh, ALL)?;
    let (client, server) = (&mut pair.client, &mut pair.server);
    // How the connect of the signal ends says nothing: what it does is done by then.
    let signal = |client: &mut tests::Peer, port: u16| -> Result<()> {
        client.begin(format_args!("give-up 0.0.0.2:{port}"))?;
        drop(client.finish());
        Ok(())
    };

    talk(client, server, &direct, 1)?;
    signal(client, 929)?;
    talk(client, server, &direct, 2)?;
    signal(client, 930)?;
    talk(client, server, &direct, 4)?;
    signal(client, 929)?;
    talk(client, server, &direct, 8)?;
    // Only what happened between 929 and 930.
    let scrape = meshd.eventually(|s| s.shows("kmesh_tcp_workload_sent_bytes_total", &[], 10.0))?;
    scrape.shows(OPENED, &[("reporter", "source"), ("destination_workload", "server")], 2.0)?;
    scrape.shows("kmesh_tcp_connections_failed_total", &[], 0.0)
}
