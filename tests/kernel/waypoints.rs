//! Connections that go by a waypoint, and the words of the program about it.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::{
    Meshd, Pod, artifacts,
    command::run,
    retry::{DEADLINE, eventually},
};

use crate::pair::{PORT, Pair};

const WAY: u16 = 15008;

/// A waypoint beside client and server, which `echo` is behind.
fn mesh(pair: &Pair, way: &Pod, destination: &str) -> tests::Mesh {
    let mesh = pair.mesh().pod(way).service("way", &[pair.sandbox.vip(9).into()], &[(WAY, WAY)], &["way"]);
    mesh.with_service("echo", &json!({"waypoint": {"destination": destination, "hboneMtlsPort": WAY}}))
}

#[test]
fn a_service_is_dialled_at_its_waypoint_which_goes_on_to_the_service_itself() -> Result<()> {
    for (name, by_name) in [("wayname", true), ("wayaddr", false)] {
        let mut pair = Pair::new(name)?;
        let way = pair.sandbox.pod("way")?;
        let mut waypoint = way.peer()?;
        waypoint.ask(format_args!("listen w [::]:{WAY}"))?;
        let destination =
            if by_name { "shop/way.shop.svc.cluster.local".to_owned() } else { format!("/{}", pair.sandbox.vip(9)) };
        let flags = ["--monitoring", "--workload-metrics", "--access-log", "--access-log-format=json"];
        let meshd = Meshd::start(&pair.sandbox, &mesh(&pair, &way, &destination), &flags)?;
        let dials =
            [(pair.service(), way.v4.to_string()), (format!("[{}]:{PORT}", pair.sandbox.vip6(1)), way.v6.to_string())];

        for (dial, _) in &dials {
            // From the client to the waypoint, and from the waypoint to the server.
            pair.client.open("c", dial, "w", &mut waypoint)?;
            pair.client.send("c", 10, &mut waypoint)?;
            pair.client.close("c", &mut waypoint)?;
            waypoint.open("s", dial, "l", &mut pair.server)?;
            waypoint.send("s", 20, &mut pair.server)?;
            waypoint.close("s", &mut pair.server)?;
        }

        let explained = |source: &str| {
            let node = pair.sandbox.node().path();
            let program = artifacts::meshd()?.display();
            run(&format!("nsenter --net={} {program} explain {source} {}", node.display(), pair.service()))
        };
        ensure!(explained(&pair.client_pod.v4.to_string())?.contains(&format!("{}:{WAY}", way.v4)));
        ensure!(explained(&way.v4.to_string())?.contains("the source is the waypoint itself"));

        let opened = "kmesh_tcp_workload_connections_opened_total";
        meshd.eventually(|scrape| {
            for (source, destination) in [("client", "way"), ("way", "server")] {
                for (_, address) in &dials {
                    let mut ends = vec![
                        ("reporter", "source"),
                        ("source_workload", source),
                        ("destination_workload", destination),
                    ];
                    if destination == "way" {
                        ends.push(("destination_pod_address", address));
                    }
                    let wanted = if destination == "way" { 1.0 } else { 2.0 };
                    ensure!(scrape.total(opened, &ends) == wanted, "{source} to {destination}");
                }
                let service = [
                    ("reporter", "source"),
                    ("source_workload", source),
                    ("destination_workload", destination),
                    ("destination_service_name", "echo"),
                ];
                ensure!(scrape.total("kmesh_tcp_connections_opened_total", &service) == 2.0, "{source}");
            }
            Ok(())
        })?;
        let lines = eventually(DEADLINE, || {
            let lines = meshd.access_log()?;
            ensure!(lines.len() == 8, "eight lines are awaited: {lines:#?}");
            Ok(lines.iter().map(|l| serde_json::from_str(l)).collect::<Result<Vec<Value>, _>>()?)
        })?;
        let from = |source: &str| {
            let of = |line: &&Value| line["direction"] == "OUTBOUND" && line["src.workload"] == source;
            lines.iter().find(of).cloned().context("there is a line")
        };
        let (there, on) = (from("client-0")?, from("way-0")?);
        assert_eq!((&there["waypoint"], &there["dst.service"]), (&json!("way-0"), &on["dst.service"]));
        assert_eq!((&on["waypoint"], &on["dst.workload"]), (&Value::Null, &json!("server-0")));
    }
    Ok(())
}
