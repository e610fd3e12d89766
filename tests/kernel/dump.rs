//! What the program says of a daemon that runs beside it.

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::{Meshd, artifacts, command::run};

use crate::pair::Pair;

#[test]
fn the_mesh_of_the_running_daemon_is_a_table_or_json() -> Result<()> {
    let pair = Pair::new("dump")?;
    let mut meshd = Meshd::start(&pair.sandbox, &pair.mesh(), &[])?;
    let say = |words: &str| {
        let node = pair.sandbox.node().path();
        run(&format!("nsenter --net={} {} {words}", node.display(), artifacts::meshd()?.display()))
    };
    let table = say("dump workloads")?;
    let [header, client, server] = table.lines().collect::<Vec<_>>()[..] else { panic!("not three lines:\n{table}") };
    ensure!(header.starts_with("NAMESPACE  NAME") && client.contains(" client-0 ") && server.contains(" server-0 "));
    ensure!(
        client.find("client-0") == header.find("NAME  ") && client.find("node-a") == header.find("NODE"),
        "{table}"
    );

    let [v4, v6] = pair.vips();
    let table = say("dump services")?;
    let (pod4, pod6) = (pair.server_pod.v4, pair.server_pod.v6);
    for row in
        [format!("{v4}:80"), format!("[{v6}]:80")].iter().zip([format!("{pod4}:8080*1"), format!("[{pod6}]:8080*1")])
    {
        let is = |line: &str| {
            let cells: Vec<_> = line.split_whitespace().collect();
            cells.get(1..5).is_some_and(|cells| cells == [row.0.as_str(), "STANDARD", "endpoint", row.1.as_str()])
        };
        ensure!(table.lines().any(is), "no {row:?} in {table}");
    }

    let client = pair.client_pod.v4;
    let explained = say(&format!("explain {client} {v4}:80"))?;
    ensure!(explained.contains("VERDICT") && explained.contains(" endpoint\n"), "{explained}");
    ensure!(explained.contains("shop/server-0  ") && explained.contains(&format!("{pod4}:8080")), "{explained}");
    let explained: Value = serde_json::from_str(&say(&format!("explain {client} {v4}:81 --output json"))?)?;
    assert_eq!((&explained["verdict"], &explained["source"]), (&"unchanged".into(), &"shop/client-0".into()));
    assert_eq!(explained["why"], "the service does not declare the port");

    let whole: Value = serde_json::from_str(&meshd.get(15200, "/debug/config_dump/dual-engine")?.body)?;
    for list in ["workloads", "services"] {
        let json: Value = serde_json::from_str(&say(&format!("dump {list} --output json"))?)?;
        assert_eq!(json, whole[list]);
    }

    let doctor = say("doctor")?;
    let standing = doctor.lines().last().unwrap_or_default();
    ensure!(
        standing.starts_with("mesh state: file, good, last confirmed ") && standing.contains("2 workloads"),
        "{doctor}"
    );

    meshd.signal(nix::sys::signal::Signal::SIGTERM)?;
    meshd.ended(tests::retry::DEADLINE)?;
    let refused = say("dump workloads").unwrap_err().to_string();
    ensure!(
        refused.contains("error: no meshd answers at 127.0.0.1:15200: ") && refused.lines().count() == 1,
        "{refused}"
    );
    ensure!(say("doctor")?.contains("mesh state: no meshd answers at 127.0.0.1:15200: "));
    Ok(())
}
