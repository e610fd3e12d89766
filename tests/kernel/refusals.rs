//! What cannot work is refused in one line that names the remedy, and nothing is left behind.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use tests::{
    Meshd, Peer, Sandbox,
    command::run,
    meshd::{ALL, mesh_file},
};

use crate::pair::Pair;

#[test]
fn a_port_in_use_is_named_with_its_flag() -> Result<()> {
    let pair = Pair::new("portinuse")?;
    let sandbox = prepared(&pair)?;
    let mut other = Peer::start(sandbox.node(), sandbox.cgroup())?;
    for (port, flag) in [(15020, "--metrics-address"), (15021, "--ready-address"), (15200, "--admin-address")] {
        other.ask(format_args!("listen l{port} 127.0.0.1:{port}"))?;
        let line = Meshd::spawn(sandbox, ALL)?.refusal()?;
        ensure!(line.contains(&port.to_string()) && line.contains(flag), "{port} and {flag} are not in `{line}`");
        other.ask(format_args!("close l{port}"))?;
    }
    Ok(())
}

#[test]
fn missing_rights_are_named() -> Result<()> {
    let pair = Pair::new("rights")?;
    let sandbox = prepared(&pair)?;
    let line = Meshd::spawn_with(sandbox, &["setpriv", "--bounding-set=-all", "--inh-caps=-all"], ALL)?.refusal()?;
    ensure!(line.contains("CAP_BPF") || line.contains("root"), "`{line}`");
    Ok(())
}

#[test]
fn a_folder_that_is_no_cgroup_is_refused() -> Result<()> {
    let pair = Pair::new("nocgroup")?;
    let sandbox = prepared(&pair)?;
    let folder = sandbox.directory().to_str().context("a path of plain characters")?;
    let line = Meshd::spawn(sandbox, &["--monitoring", "--cgroup", folder])?.refusal()?;
    ensure!(line.contains(folder) && line.contains("cgroup"), "`{line}`");
    Ok(())
}

#[test]
fn flags_that_make_no_sense_are_refused_by_name() -> Result<()> {
    let pair = Pair::new("flags")?;
    let sandbox = prepared(&pair)?;
    for flag in ["--access-log", "--workload-metrics", "--connection-metrics"] {
        let mut meshd = Meshd::spawn(sandbox, &[flag])?;
        let status = meshd.ended(tests::retry::DEADLINE)?;
        let log = meshd.log();
        ensure!(!status.success() && log.contains(flag) && log.contains("--monitoring"), "{flag}: {status}: {log}");
    }
    for (flag, part) in [
        ("--report-interval=0s", "report-interval"),
        ("--report-interval=soon", "soon"),
        ("--max-series=0", "max-series"),
    ] {
        let mut meshd = Meshd::spawn(sandbox, &["--monitoring", flag])?;
        let status = meshd.ended(tests::retry::DEADLINE)?;
        let log = meshd.log();
        ensure!(!status.success() && log.contains(part), "{flag}: {status}: {log}");
    }
    Ok(())
}

#[test]
fn the_doctor_says_what_this_machine_allows() -> Result<()> {
    let meshd = tests::artifacts::meshd()?.display().to_string();
    let said = run(&format!("{meshd} doctor"))?;
    for part in ["cgroup", "BTF", "iterator"] {
        ensure!(said.to_lowercase().contains(&part.to_lowercase()), "no word of {part} in\n{said}");
    }
    let version = run(&format!("{meshd} version"))?;
    ensure!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    Ok(())
}

fn prepared(pair: &Pair) -> Result<&Sandbox> {
    fs::write(mesh_file(&pair.sandbox), pair.mesh().render())?;
    Ok(&pair.sandbox)
}
