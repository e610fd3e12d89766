//! What a live connection costs while it lives: pulling its totals.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
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

/// Measures the pull of `ends` live connections once a second over `seconds`: of those over which something goes, which are shown whole,
/// and of quiet ones. Both ends are in pods of this node, so each connection that the load keeps open is two to pull.
pub fn run(world: &World, ends: usize, seconds: u32, target: Target, figures: &mut Figures) -> Result<()> {
    let meshd = world.meshd(Mode::On, &FLAGS)?.context("a meshd in that mode")?;
    let open = ends / 2;
    let idle = cost(&meshd, seconds, rest)?;
    let mut held = hold(world, Dial::Vip, open)?;
    meshd.eventually(|s| s.shows("kmesh_tcp_connections_opened_total", &[], 2.0 * open as f64))?;
    let quiet = cost(&meshd, seconds, rest)?;
    let busy = cost(&meshd, seconds, || touch(&mut held))?;
    let (runs, us) = programs(&meshd, seconds, &mut held)?;
    let note = format!(
        "meshd's processor time, less that of an idle one: walks, program, ring, decoding, families; the program {} us in {} runs, counting included",
        Number(us),
        Number(runs)
    );
    // What of it was quiet takes its part.
    let each_quiet = (quiet.cpu - idle.cpu) * 1e6 / (quiet.shown + quiet.quiet);
    let each = ((busy.cpu - idle.cpu) * 1e6 - busy.quiet * each_quiet) / busy.shown;
    figures.add(&format!("pulling one of {ends} live connections that has something new"), target, each, "us", note);
    let note = "of them all, meanwhile; the first passes showed them whole";
    figures.add(&format!("one of {ends} that is quiet"), Target::None, each_quiet, "us", note);
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
    /// Records of connections that had something new.
    pub(super) shown: f64,
    /// How often a connection was quiet.
    pub(super) quiet: f64,
    /// Processor time of meshd, seconds.
    pub(super) cpu: f64,
}

/// Measures them, while `load` is called again and again.
pub(super) fn cost(meshd: &Meshd<'_>, seconds: u32, mut load: impl FnMut() -> Result<()>) -> Result<Cost> {
    let (before, cpu) = (pulled(meshd)?, process::cpu(meshd.pid())?);
    let end = Instant::now() + Duration::from_secs(seconds.into());
    while Instant::now() < end {
        load()?;
    }
    let (cpu, after) = (process::cpu(meshd.pid())? - cpu, pulled(meshd)?);
    Ok(Cost { shown: after.shown - before.shown, quiet: after.quiet - before.quiet, cpu })
}

/// No load.
pub(super) fn rest() -> Result<()> {
    machine::wait(Duration::from_millis(100));
    Ok(())
}

/// Has a byte sent over every connection that is held.
pub(super) fn touch(held: &mut [Worker]) -> Result<()> {
    for worker in held {
        worker.ask(&Order::Touch)?;
    }
    rest()
}

/// Returns the runs of programs for a record, and their time, us, while all connections are touched.
fn programs(meshd: &Meshd<'_>, seconds: u32, held: &mut [Worker]) -> Result<(f64, f64)> {
    let counting = Counting::begin()?;
    let begin = counting.read(meshd.pid())?;
    let Cost { shown, quiet, .. } = cost(meshd, seconds, || touch(held))?;
    let programs = counting.read(meshd.pid())?.since(&begin);
    let walk = programs.iter().filter(|p| p.name.starts_with("snapshot"));
    let (runs, ns): (u64, u64) = walk.fold((0, 0), |sum, p| (sum.0 + p.runs, sum.1 + p.ns));
    Ok((runs as f64 / (shown + quiet), ns as f64 / 1e3 / (shown + quiet)))
}

/// How often passes have come across connections.
pub(super) struct Pulled {
    /// Those that had something new.
    pub(super) shown: f64,
    /// Those that had not.
    pub(super) quiet: f64,
}

/// Returns it since `meshd` started.
pub(super) fn pulled(meshd: &Meshd<'_>) -> Result<Pulled> {
    let scrape = meshd.scrape()?;
    let of = |kind| scrape.total("meshd_telemetry_records_total", &[("kind", kind)]);
    Ok(Pulled { shown: of("progress"), quiet: of("quiet") })
}
