//! What is loaded, and that nothing of it stays.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    Meshd,
    meshd::ALL,
    retry::{DEADLINE, eventually},
};

use crate::pair::{Pair, Truth, talk};

#[test]
fn sigterm_drains_and_nothing_stays_attached() -> Result<()> {
    let mut pair = Pair::new("sigterm")?;
    let (sandbox, service) = (&pair.sandbox, pair.service());
    let mut meshd = Meshd::start(sandbox, &pair.mesh(), ALL)?;
    let (client, server) = (&mut pair.client, &mut pair.server);
    let programs = programs(meshd.pid())?;
    ensure!(programs.len() >= 4, "connect4, connect6, sock_ops and an iterator at least, not {programs:?}");

    client.open("a", &service, "l", server)?;
    talk(client, server, &service, 77)?;
    meshd.signal(Signal::SIGTERM)?;
    let status = meshd.ended(Duration::from_secs(5))?;
    assert!(status.success(), "{status}: {}", meshd.log());
    // What had happened before the signal is told.
    meshd.logs(&[("state", "BPF_TCP_CLOSE"), ("sent_bytes", "77"), ("direction", "OUTBOUND")])?;
    meshd.logs(&[("state", "BPF_TCP_CLOSE"), ("received_bytes", "77"), ("direction", "INBOUND")])?;

    eventually(DEADLINE, || {
        let left: Vec<_> = loaded()?.into_iter().filter(|p| programs.contains(p)).collect();
        ensure!(left.is_empty(), "still loaded: {left:?}");
        Ok(())
    })?;
    // The service's address leads nowhere again, and the open connection works on.
    assert_eq!(client.ask_to_fail(format_args!("connect c {service}"))?, "ENETUNREACH");
    client.send("a", 5, server)?;
    client.close("a", server)
}

#[test]
fn an_interrupt_ends_it_as_well() -> Result<()> {
    let pair = Pair::new("sigint")?;
    let mut meshd = Meshd::start(&pair.sandbox, &pair.mesh(), &["--monitoring"])?;
    meshd.signal(Signal::SIGINT)?;
    let status = meshd.ended(Duration::from_secs(5))?;
    assert!(status.success(), "{status}: {}", meshd.log());
    Ok(())
}

#[test]
fn without_a_first_state_it_is_not_ready_and_says_so() -> Result<()> {
    let pair = Pair::new("unready")?;
    let mut meshd =
        Meshd::spawn_without_mesh(&pair.sandbox, &[], &["--xds-address=http://127.0.0.1:9", "--monitoring"])?;
    // The ports answer last, when everything else runs.
    let answer = eventually(DEADLINE, || meshd.get(15021, "/healthz/ready"))?;
    assert_eq!(answer.status, 503, "{}", answer.body);
    ensure!(!answer.body.trim().is_empty(), "it does not say why");
    meshd.signal(Signal::SIGTERM)?;
    let status = meshd.ended(Duration::from_secs(5))?;
    assert!(status.success(), "{status}: {}", meshd.log());
    Ok(())
}

#[test]
fn without_monitoring_no_telemetry_program_is_loaded_and_a_switch_loads_them() -> Result<()> {
    let mut pair = Pair::new("off")?;
    let (sandbox, service) = (&pair.sandbox, pair.service());
    let meshd = Meshd::start(sandbox, &pair.mesh(), &[])?;
    let (client, server) = (&mut pair.client, &mut pair.server);
    let steering = programs(meshd.pid())?;

    // Steering works, nothing is observed.
    talk(client, server, &service, 0)?;
    let scrape = meshd.scrape()?;
    assert_eq!(scrape.samples().iter().filter(|s| s.name.starts_with("kmesh_")).count(), 0);
    scrape.shows("meshd_telemetry_kernel_connections_total", &[], 0.0)?;

    assert_eq!(meshd.post("/monitoring?enable=true", "")?.status, 200);
    assert_eq!(meshd.post("/workload_metrics?enable=true", "")?.status, 200);
    let telemetry: Vec<_> = programs(meshd.pid())?.into_iter().filter(|p| !steering.contains(p)).collect();
    ensure!(telemetry.len() >= 2, "sock_ops and an iterator at least, not {telemetry:?}");
    talk(client, server, &service, 8)?;
    meshd.eventually(|s| Truth { opened: 1, closed: 1, there: 8, back: 0 }.is_shown(s)).map(drop)
}

/// The programs that a process holds, by number.
fn programs(pid: u32) -> Result<Vec<u32>> {
    let mut programs = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).context("reading what it has open")? {
        // A descriptor may be closed meanwhile.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        programs.extend(text.lines().filter_map(|l| l.strip_prefix("prog_id:")?.trim().parse::<u32>().ok()));
    }
    programs.sort_unstable();
    programs.dedup();
    Ok(programs)
}

/// The programs that are loaded at all.
fn loaded() -> Result<Vec<u32>> {
    aya::programs::loaded_programs().map(|p| Ok(p.context("listing programs")?.id())).collect()
}
