//! Mesh state from a file: reloaded when it changes, kept when it is broken.

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use anyhow::{Result, ensure};
use serde_json::json;
use tests::{
    Mesh, Meshd, Peer,
    meshd::{ALL, mesh_file},
    retry::eventually,
};

use crate::pair::{Pair, TARGET, Truth, talk};

/// A changed file is in force within a second; the rest is for a machine that is busy with other tests.
const RELOAD: Duration = Duration::from_secs(3);

#[test]
fn a_file_written_in_place_renamed_over_or_linked_anew_is_in_force_at_once() -> Result<()> {
    let mut pair = Pair::new("reload")?;
    let sandbox = &pair.sandbox;
    // As a ConfigMap is mounted: the file is a link into a folder that is a link, which is replaced.
    let (file, folder) = (mesh_file(sandbox), sandbox.directory());
    let mesh = pair.mesh();
    let version = |n: u8| mesh.clone().service("new", &[sandbox.vip(n).into()], &[(80, TARGET)], &["server"]).render();
    let publish = |n: u8| -> Result<()> {
        let data = folder.join(format!("..{n}"));
        fs::create_dir(&data)?;
        fs::write(data.join("mesh.yaml"), version(n))?;
        symlink(&data, folder.join("..next"))?;
        Ok(fs::rename(folder.join("..next"), folder.join("..data"))?)
    };
    publish(10)?;
    symlink(Path::new("..data/mesh.yaml"), &file)?;
    let mut meshd = Meshd::spawn(sandbox, &["--monitoring"])?;
    meshd.ready()?;
    let reached = |client: &mut Peer, n: u8| {
        eventually(RELOAD, || client.ask(format_args!("connect c{n} {}:80", sandbox.vip(n))).map(drop))
    };
    reached(&mut pair.client, 10)?;
    publish(11)?;
    reached(&mut pair.client, 11)?;
    assert_eq!(pair.client.ask_to_fail(format_args!("connect a {}:80", sandbox.vip(10)))?, "ENETUNREACH");

    let renamed = folder.join("next.yaml");
    fs::write(&renamed, version(12))?;
    fs::rename(&renamed, &file)?;
    reached(&mut pair.client, 12)?;

    fs::write(&file, version(13))?;
    reached(&mut pair.client, 13)
}

#[test]
fn a_broken_file_is_told_with_its_line_and_the_last_good_state_stays() -> Result<()> {
    let mut pair = Pair::new("broken")?;
    let (sandbox, service) = (&pair.sandbox, pair.service());
    let meshd = Meshd::start(sandbox, &pair.mesh(), ALL)?;
    fs::write(mesh_file(sandbox), "workloads:\n- uid: x\n  name: [\n")?;
    meshd.says("mesh.yaml:3:")?;
    let mut mesh = pair.mesh();
    let (client, server) = (&mut pair.client, &mut pair.server);
    talk(client, server, &service, 2)?;
    meshd.eventually(|s| Truth { opened: 1, closed: 1, there: 2, back: 0 }.is_shown(s))?;

    // Repaired, it is read again.
    let vip = sandbox.vip(2);
    mesh = mesh.service("new", &[vip.into()], &[(80, TARGET)], &["server"]);
    fs::write(mesh_file(sandbox), mesh.render())?;
    eventually(RELOAD, || client.ask(format_args!("connect b {vip}:80")).map(drop))
}

#[test]
fn a_file_that_cannot_be_used_at_the_start_is_one_line_and_a_failure() -> Result<()> {
    let pair = Pair::new("unusable")?;
    let sandbox = &pair.sandbox;
    let [v4, v6] = pair.server_pod.addresses();
    let twice = Mesh::new().workload("one", &[v4, v6], json!({})).workload("two", &[v4], json!({})).render();
    let unknown = pair.mesh().with("server", &json!({"colour": "red"})).render();
    let cases: [(&str, &[&str]); 4] = [
        ("workloads:\n- uid: x\n  name: [\n", &["mesh.yaml:3:", "name"]),
        (&twice, &["mesh.yaml", &v4.to_string(), "one-0", "two-0"]),
        (&unknown, &["mesh.yaml", "colour"]),
        (
            "workloads:\n- uid: x\n  name: x\n  namespace: y\n  workloadIps: [\"10.0.0.256\"]\n",
            &["mesh.yaml:5:", "workloadIps"],
        ),
    ];
    for (text, parts) in cases {
        fs::write(mesh_file(sandbox), text)?;
        let line = Meshd::spawn(sandbox, &["--monitoring"])?.refusal()?;
        ensure!(parts.iter().all(|p| line.contains(p)), "{parts:?} are not all in `{line}`");
    }
    fs::remove_file(mesh_file(sandbox))?;
    let line = Meshd::spawn(sandbox, &["--monitoring"])?.refusal()?;
    ensure!(line.contains("mesh.yaml") && line.contains("No such file"), "`{line}`");
    Ok(())
}

#[test]
fn a_service_that_nobody_defines_is_a_warning() -> Result<()> {
    let pair = Pair::new("undefined")?;
    let mesh = pair.mesh().with("server", &json!({"services": {"shop/ghost.shop.svc.cluster.local": {"80": 8080}}}));
    let meshd = Meshd::start(&pair.sandbox, &mesh, &["--monitoring"])?;
    meshd.says("ghost.shop.svc.cluster.local")
}

#[test]
fn hostile_names_break_no_line_and_forge_no_field() -> Result<()> {
    const HOSTILE: &str = "a\"b\\c\nd}, dst.workload=forged 1\u{1b}[2J\r\n# TYPE x counter\u{2028}é";
    let mut pair = Pair::new("hostile")?;
    let (sandbox, service) = (&pair.sandbox, pair.service());
    let names = json!({"name": HOSTILE, "workloadName": HOSTILE, "canonicalName": HOSTILE, "serviceAccount": HOSTILE});
    let meshd = Meshd::start(sandbox, &pair.mesh().with("client", &names), ALL)?;
    let (client, server) = (&mut pair.client, &mut pair.server);
    talk(client, server, &service, 0)?;

    let line = meshd.logs(&[("direction", "OUTBOUND"), ("dst.workload", "server-0")])?;
    assert!(line.text.chars().all(|c| !c.is_control() && c != '\u{2028}'), "{:?}", line.text);
    meshd.logs(&[("direction", "INBOUND"), ("dst.workload", "server-0")])?;
    assert_eq!(meshd.access_log()?.len(), 2);

    let labels = [("destination_workload", "server"), ("reporter", "source")];
    let scrape = meshd.eventually(|s| s.shows("kmesh_tcp_connections_closed_total", &labels, 1.0))?;
    let series = scrape.only("kmesh_tcp_connections_closed_total", &labels)?;
    // A line break is the format's to escape, other control characters are ours.
    let shown = &series.labels["source_canonical_service"];
    assert!(shown.starts_with("a\"b\\c\nd}, dst.workload=forged 1"), "{shown:?}");
    assert!(shown.ends_with('é') && shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
    assert_eq!(scrape.kind("x"), None);
    tests::command::run_with("promtool check metrics", &meshd.metrics()?).map(drop)
}
