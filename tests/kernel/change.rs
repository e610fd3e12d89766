//! Connections around a change of who holds their addresses.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;
use tests::{
    Mesh, Meshd, Scrape,
    meshd::{ALL, mesh_file},
    retry::{DEADLINE, eventually},
};

use crate::pair::{PORT, Pair, TARGET, talk};

/// Who holds the two addresses: the client's and the server's.
type Holders = (&'static str, &'static str);

const FIRST: Holders = ("client", "server");
const SECOND: Holders = ("guest", "heir");

/// The pods' addresses, held by these.
fn mesh(pair: &Pair, (client, server): Holders) -> Mesh {
    Mesh::new()
        .workload(client, &pair.client_pod.addresses(), json!({}))
        .workload(server, &pair.server_pod.addresses(), json!({}))
        .service("echo", &pair.vips(), &[(PORT, TARGET)], &[server])
}

/// Publishes a mesh in which these hold the addresses, as a control plane would: the old ones are gone and the new ones are there at once.
fn publish(pair: &Pair, holders: Holders) -> Result<()> {
    let next = pair.sandbox.directory().join("next.yaml");
    fs::write(&next, mesh(pair, holders).render())?;
    Ok(fs::rename(next, mesh_file(&pair.sandbox))?)
}

fn is_known(meshd: &Meshd<'_>, holders: Holders) -> Result<bool> {
    let dump = meshd.get(15200, "/debug/config_dump/dual-engine")?.body;
    Ok(dump.contains(&format!("\"{}-0\"", holders.1)))
}

fn known(meshd: &Meshd<'_>, holders: Holders) -> Result<()> {
    eventually(DEADLINE, || {
        ensure!(is_known(meshd, holders)?, "{holders:?} are not known");
        Ok(())
    })
}

/// Says whether both ends of connections between these came to so many opened, closed and bytes to the server.
fn shows(scrape: &Scrape, (client, server): Holders, opened: u32, closed: u32, bytes: u32) -> Result<()> {
    for reporter in ["source", "destination"] {
        let ends = [("reporter", reporter), ("source_workload", client), ("destination_workload", server)];
        let to_server = if reporter == "source" { "sent" } else { "received" };
        for prefix in ["kmesh_tcp", "kmesh_tcp_workload"] {
            scrape.shows(&format!("{prefix}_connections_opened_total"), &ends, opened.into())?;
            scrape.shows(&format!("{prefix}_connections_closed_total"), &ends, closed.into())?;
            scrape.shows(&format!("{prefix}_{to_server}_bytes_total"), &ends, bytes.into())?;
        }
    }
    Ok(())
}

#[test]
fn a_connection_keeps_the_names_that_its_addresses_had_when_it_was_opened() -> Result<()> {
    let mut pair = Pair::new("keeps")?;
    let service = pair.service();
    let meshd = Meshd::start(&pair.sandbox, &mesh(&pair, FIRST), ALL)?;
    pair.client.open("old", &service, "l", &mut pair.server)?;
    pair.client.send("old", 100, &mut pair.server)?;
    meshd.eventually(|s| shows(s, FIRST, 1, 0, 100))?;

    publish(&pair, SECOND)?;
    known(&meshd, SECOND)?;
    pair.client.send("old", 20, &mut pair.server)?;
    pair.client.open("new", &service, "l", &mut pair.server)?;
    pair.client.send("new", 3, &mut pair.server)?;
    meshd.eventually(|s| shows(s, FIRST, 1, 0, 120).and_then(|()| shows(s, SECOND, 1, 0, 3)))?;

    // Back again while both are open: neither is renamed, and nothing of either counts anew.
    publish(&pair, FIRST)?;
    known(&meshd, FIRST)?;
    pair.client.send("new", 4, &mut pair.server)?;
    pair.client.close("new", &mut pair.server)?;
    pair.client.close("old", &mut pair.server)?;
    talk(&mut pair.client, &mut pair.server, &service, 5)?;
    let scrape = meshd.eventually(|s| shows(s, FIRST, 2, 2, 125).and_then(|()| shows(s, SECOND, 1, 1, 7)))?;
    assert_eq!(
        scrape.total("kmesh_tcp_workload_connections_opened_total", &[]),
        6.0,
        "an end of a third pair of names"
    );
    for (bytes, name) in [("120", "client-0"), ("7", "guest-0"), ("5", "client-0")] {
        let line = [("state", "BPF_TCP_CLOSE"), ("sent_bytes", bytes), ("src.workload", name)];
        meshd.logs(&line)?;
    }
    Ok(())
}

#[test]
fn connections_opened_while_their_workloads_change_count_once_each_under_names_of_one_moment() -> Result<()> {
    let mut pair = Pair::new("while")?;
    let service = pair.service();
    let meshd = Meshd::start(&pair.sandbox, &mesh(&pair, FIRST), &["--monitoring", "--workload-metrics"])?;
    let mut count = 0;
    for holders in [SECOND, FIRST, SECOND, FIRST] {
        publish(&pair, holders)?;
        let mut is_next = false;
        while !is_next {
            is_next = is_known(&meshd, holders)?;
            talk(&mut pair.client, &mut pair.server, &service, 10)?;
            count += 1;
        }
    }
    meshd.eventually(|scrape| {
        for reporter in ["source", "destination"] {
            let of = |metric: &str, (client, server): Holders| {
                let ends = [("reporter", reporter), ("source_workload", client), ("destination_workload", server)];
                scrape.total(metric, &ends)
            };
            let bytes = if reporter == "source" { "sent" } else { "received" };
            for (metric, each) in [
                ("connections_opened".to_owned(), 1.0),
                ("connections_closed".to_owned(), 1.0),
                (format!("{bytes}_bytes"), 10.0),
            ] {
                let metric = format!("kmesh_tcp_workload_{metric}_total");
                let (first, second) = (of(&metric, FIRST), of(&metric, SECOND));
                ensure!(first >= each && second >= each, "{metric} of {reporter}: {first} and {second}");
                let all = scrape.total(&metric, &[("reporter", reporter)]);
                let truth = f64::from(count) * each;
                ensure!(
                    first + second == truth && all == truth,
                    "{metric} of {reporter}: {first} and {second}, {all} of {truth}"
                );
            }
        }
        Ok(())
    })?;
    Ok(())
}
