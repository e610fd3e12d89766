//! What a live connection costs while it lives: pulling its totals.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::Meshd;

use super::{
    load::Order,
    process,
    programs::Counting,
    worker::Worker,
    world::{Dial, Mode, PORTS, World},
};
use crate::{
    figure::{Figures, Number, Target},
    machine,
};

/// Connections that one process keeps: it may have 20,000 files open.
const EACH: usize = 16_000;

/// Pulling only: no connection becomes long and gets series of its own.
pub(super) const FLAGS: [&str; 2] = ["--report-interval=1s", "--long-connection-threshold=1h"];

/// Measures the pull of `ends` live connections once a second over `seconds`. Both ends are in pods of this node, so each connection
/// that the load keeps open is two to pull.
pub fn run(world: &World, ends: usize, seconds: u32, target: Target, figures: &mut Figures) -> Result<()> {
    let meshd = world.meshd(Mode::On, &FLAGS)?.context("a meshd in that mode")?;
    let open = ends / 2;
    let idle = cost(&meshd, seconds)?;
    let _held = hold(world, Dial::Vip, open)?;
    meshd.eventually(|s| s.shows("kmesh_tcp_connections_opened_total", &[], 2.0 * open as f64))?;
    let held = cost(&meshd, seconds)?;
    ensure!(held.pulled >= 2.0 * open as f64, "in {seconds} s only {} records of {ends} ends came", held.pulled);
    let (runs, us) = programs(&meshd, seconds)?;
    let note = format!(
        "meshd's processor time, less that of an idle one: walks, program, ring, decoding, families; the program {} us in {} runs, counting included",
        Number(us),
        Number(runs)
    );
    let each = (held.cpu - idle.cpu) * 1e6 / held.pulled;
    figures.add(&format!("pulling one of {ends} live connections"), target, each, "us", note);
    Ok(())
}

/// Opens connections, which are open as long as what is returned lives: as many servers as clients as that takes.
pub(super) fn hold(world: &World, dial: Dial, open: usize) -> Result<Vec<Worker>> {
    let pairs = open.div_ceil(EACH);
    let ports = PORTS.len() / pairs;
    let mut workers = Vec::new();
    for pair in 0..pairs {
        let first = PORTS.start + u16::try_from(pair * ports)?;
        workers.push(world.server(first..first + u16::try_from(ports)?)?);
        let mut client = world.client()?;
        let targets = world.targets(dial)[pair * ports..(pair + 1) * ports].to_vec();
        client.ask(&Order::Hold { targets, count: (open - pair * EACH).min(EACH) })?;
        workers.push(client);
    }
    Ok(workers)
}

/// What some seconds in which no connection comes or goes cost.
pub(super) struct Cost {
    /// Progress records.
    pub(super) pulled: f64,
    /// Processor time of meshd, seconds.
    pub(super) cpu: f64,
}

/// Measures them.
pub(super) fn cost(meshd: &Meshd<'_>, seconds: u32) -> Result<Cost> {
    let (before, cpu) = (pulled(meshd)?, process::cpu(meshd.pid())?);
    machine::wait(Duration::from_secs(seconds.into()));
    let cpu = process::cpu(meshd.pid())? - cpu;
    Ok(Cost { pulled: pulled(meshd)? - before, cpu })
}

/// Returns the runs of programs a record, and their time, us.
fn programs(meshd: &Meshd<'_>, seconds: u32) -> Result<(f64, f64)> {
    let counting = Counting::begin()?;
    let (before, begin) = (pulled(meshd)?, counting.read(meshd.pid())?);
    machine::wait(Duration::from_secs(seconds.into()));
    let (programs, pulled) = (counting.read(meshd.pid())?.since(&begin), pulled(meshd)? - before);
    let (runs, ns): (u64, u64) = programs.iter().fold((0, 0), |sum, p| (sum.0 + p.runs, sum.1 + p.ns));
    Ok((runs as f64 / pulled, ns as f64 / 1e3 / pulled))
}

/// Returns how many records of open connections there were.
pub(super) fn pulled(meshd: &Meshd<'_>) -> Result<f64> {
    Ok(meshd.scrape()?.total("meshd_telemetry_records_total", &[("kind", "progress")]))
}
