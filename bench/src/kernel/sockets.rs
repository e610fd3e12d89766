//! What a managed socket takes: memory of the kernel and of `meshd`, and its part of a pass.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use aya::maps::{MapInfo, loaded_maps};
use tests::Meshd;

use super::{
    process, programs, pull,
    world::{Dial, Mode, World},
};
use crate::{
    figure::{Figures, Number, Target},
    machine,
};

/// Measures `ends` sockets, both ends of half as many connections. They are open before `meshd` starts, and are adopted: what memory grows
/// by from then on is what watching them takes, and not the sockets themselves.
///
/// The kernel's is its unreclaimable slab memory, where socket storage is; what saves connections across a restart lies in arrays of the
/// kernel's that `meshd` maps, and is memory of `meshd` as much as its own heap.
pub fn run(world: &World, ends: usize, seconds: u32, figures: &mut Figures) -> Result<()> {
    let idle = Memory::around(|| started(world))?;
    drop(idle.meshd);
    let mut held = pull::hold(world, Dial::Pod, ends / 2)?;
    settle();
    let full = Memory::around(|| {
        let meshd = started(world)?;
        meshd.eventually(|scrape| {
            scrape.shows("meshd_connections_adopted_total", &[], ends as f64)?;
            scrape.shows("meshd_telemetry_connections", &[], ends as f64)
        })?;
        // A pass has been at all of them.
        let before = pull::pulled(&meshd)?;
        meshd.eventually(|scrape| {
            let shown = scrape.total("meshd_telemetry_records_total", &[("kind", "progress")]) - before.shown;
            anyhow::ensure!(shown >= ends as f64, "{shown} records of open connections");
            // Nothing goes over them, and all are adopted by then.
            let quiet = scrape.total("meshd_telemetry_records_total", &[("kind", "quiet")]) - before.quiet;
            anyhow::ensure!(quiet >= 2.0 * ends as f64, "{quiet} of them were quiet");
            Ok(())
        })?;
        Ok(meshd)
    })?;
    let each = |full: f64, idle: f64| (full - idle) / ends as f64;
    let kernel = each(full.slab, idle.slab);
    let (heap, saved) = (each(full.heap, idle.heap), each(full.arrays, idle.arrays));
    let note = format!("heap of meshd {}, saved for the next one {}", Number(heap), Number(saved));
    let name = format!("memory of one of {ends} managed sockets");
    figures.add(&name, Target::AtMost(700.0), kernel + heap + saved, "B", note);
    figures.add(&format!("{name}, the kernel's"), Target::AtMost(400.0), kernel, "B", "growth of SUnreclaim");
    let value = storage(full.meshd.pid())?.value_size().into();
    figures.add("the value in it", Target::AtMost(120.0), value, "B", "the kernel adds the list that it is in, twice");

    let quiet = pull::cost(&full.meshd, seconds, pull::rest)?;
    let each_quiet = quiet.cpu / (quiet.shown + quiet.quiet);
    let note = format!("all of meshd's processor time, an idle one's included, over {seconds} s of a pass a second");
    let name = format!("a pass over {ends} sockets");
    figures.add(&name, Target::AtMost(200.0), each_quiet * 1e3 * ends as f64, "ms", note);
    let busy = pull::cost(&full.meshd, seconds, || pull::touch(&mut held))?;
    drop(held);
    let pass = (busy.cpu - busy.quiet * each_quiet) * 1e3 * ends as f64 / busy.shown;
    let note = format!("over {} passes by number", Number((busy.shown + busy.quiet) / ends as f64));
    figures.add(&format!("{name}, each with something new"), Target::None, pass, "ms", note);
    Ok(())
}

fn started(world: &World) -> Result<Meshd<'_>> {
    world.meshd(Mode::On, &pull::FLAGS)?.context("a meshd in that mode")
}

/// By how much memory grew, bytes.
struct Memory<'a> {
    slab: f64,
    arrays: f64,
    heap: f64,
    meshd: Meshd<'a>,
}

impl<'a> Memory<'a> {
    /// Starts a `meshd` and tells what it takes.
    fn around(start: impl FnOnce() -> Result<Meshd<'a>>) -> Result<Self> {
        let before = [kernel("SUnreclaim")?, kernel("VmallocUsed")?];
        let meshd = start()?;
        settle();
        let heap = process::mebibytes(meshd.pid(), "RssAnon")? * f64::from(1 << 20);
        Ok(Self { slab: kernel("SUnreclaim")? - before[0], arrays: kernel("VmallocUsed")? - before[1], heap, meshd })
    }
}

/// Lets the kernel free what is left of what went: it does so some time later, in workers of its own.
fn settle() {
    machine::wait(Duration::from_secs(3));
}

/// Returns a field of `/proc/meminfo`, bytes.
fn kernel(field: &str) -> Result<f64> {
    let text = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    Ok(kib.with_context(|| format!("{field} of /proc/meminfo"))? * 1024.0)
}

/// Returns the map of socket storage of a process.
pub(super) fn storage(pid: u32) -> Result<MapInfo> {
    let held = programs::held(pid, "map_id")?;
    let mut maps = loaded_maps().filter_map(Result::ok).filter(|map| held.contains(&map.id()));
    let storage = maps.find(|map| map.name_as_str() == Some(abi::maps::STORAGE));
    storage.with_context(|| format!("meshd has no map {}", abi::maps::STORAGE))
}
