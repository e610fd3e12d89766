//! What a live connection costs while it lives: pulling its totals.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::Meshd;

use super::{
    load::Order,
    process,
    programs::Counting,
    world::{Dial, Mode, PORTS, World},
};
use crate::{
    figure::{Figures, Target},
    machine,
};

/// Connections that one process keeps: it may have 20,000 files open.
const EACH: usize = 16_000;

/// Measures the pull of `count` live connections, both ends managed, once a second over `seconds`.
pub fn run(world: &World, count: usize, seconds: u32, figures: &mut Figures) -> Result<()> {
    let meshd = world.meshd(Mode::On, &["--report-interval=1s"])?.context("a meshd in that mode")?;
    let pairs = count.div_ceil(EACH);
    let ports = PORTS.len() / pairs;
    let counting = Counting::begin()?;
    let idle = cost(&counting, &meshd, seconds)?;
    let mut workers = Vec::new();
    for pair in 0..pairs {
        let first = PORTS.start + u16::try_from(pair * ports)?;
        let server = world.server(first..first + u16::try_from(ports)?)?;
        let mut client = world.client()?;
        let targets = world.targets(Dial::Vip)[pair * ports..(pair + 1) * ports].to_vec();
        client.ask(&Order::Hold { targets, count: (count - pair * EACH).min(EACH) })?;
        workers.push((server, client));
    }
    meshd.eventually(|s| s.shows("kmesh_tcp_connections_opened_total", &[], 2.0 * count as f64))?;
    let held = cost(&counting, &meshd, seconds)?;
    let runs = held.runs as f64;
    ensure!(runs >= 2.0 * count as f64, "a pass over {count} connections ran its program {runs} times");
    let note = format!("{} ends, {:.1} passes", 2 * count, runs / (2.0 * count as f64));
    figures.add("pulling one live connection: the program", Target::None, held.ns as f64 / runs * 1e-3, "us", note);
    let all = (held.cpu - idle.cpu) * 1e6 / runs;
    let note = "meshd's processor time: read, program, decoding, attribution, families, bpf_stats";
    figures.add("pulling one live connection: all of it", Target::None, all, "us", note);
    Ok(())
}

struct Cost {
    runs: u64,
    ns: u64,
    cpu: f64,
}

/// What meshd and its programs use in some seconds in which no connection comes or goes.
fn cost(counting: &Counting, meshd: &Meshd<'_>, seconds: u32) -> Result<Cost> {
    let (begin, cpu) = (counting.read(meshd.pid())?, process::cpu(meshd.pid())?);
    machine::wait(Duration::from_secs(seconds.into()));
    let programs = counting.read(meshd.pid())?.since(&begin);
    let cpu = process::cpu(meshd.pid())? - cpu;
    Ok(Cost { runs: programs.iter().map(|p| p.runs).sum(), ns: programs.iter().map(|p| p.ns).sum(), cpu })
}
