//! A large mesh: loading, finding, changing, and what it holds of memory.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::{
    alloc::System,
    hint::black_box,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bench::{
    figure::{Figures, Number, Target, median},
    heap, machine, mesh,
};
use cache::{Cache, Delta, Health, Node, Str, Workload};
use stats_alloc::StatsAlloc;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = heap::COUNTING;

fn main() -> Result<()> {
    println!("{}\n", machine::describe("cargo bench -p bench --bench mesh"));
    let workloads = if machine::quick() { 1000 } else { 100_000 };
    let mut figures = Figures::default();
    let cache = load(workloads, &mut figures)?;
    find(&cache, workloads, &mut figures)?;
    change(&cache, workloads, &mut figures)?;
    find_while_changing(&cache, workloads, &mut figures)?;
    println!("{figures}");
    Ok(())
}

fn load(workloads: usize, figures: &mut Figures) -> Result<Arc<Cache>> {
    let before = heap::bytes();
    let cache = mesh::cache(workloads);
    let held = heap::bytes() - before;
    let what = format!("{workloads} workloads, {} services", workloads / mesh::REPLICAS);
    let note = format!("{} B a workload", Number(held / workloads as f64));
    figures.add(&format!("memory of {what}"), Target::None, held / 1e6, "MB", note);
    let whole = || {
        let services: Vec<_> = (0..workloads).step_by(mesh::REPLICAS).map(mesh::service).collect();
        ((0..workloads).map(mesh::workload).collect::<Vec<_>>(), services)
    };
    let (all, services) = whole();
    let fresh = Cache::new(Node { name: mesh::NODE.into(), network: Str::new() });
    let begin = Instant::now();
    ensure!(fresh.replace(all, services), "a first state is a change");
    figures.add(
        &format!("loading {what}"),
        Target::None,
        begin.elapsed().as_secs_f64() * 1e3,
        "ms",
        "decoding not included",
    );
    drop(fresh);
    let (all, services) = whole();
    let begin = Instant::now();
    ensure!(!cache.replace(all, services), "the same state is no change");
    figures.add(
        "loading the same again",
        Target::None,
        begin.elapsed().as_secs_f64() * 1e3,
        "ms",
        "nothing is swapped",
    );
    Ok(cache)
}

fn find(cache: &Cache, workloads: usize, figures: &mut Figures) -> Result<()> {
    let addresses: Vec<IpAddr> = (0..workloads).map(|n| mesh::address(n * 7919 % workloads).into()).collect();
    let passes = if machine::quick() { 1 } else { 15 };
    let mut took = Vec::new();
    for _ in 0..passes {
        let begin = Instant::now();
        for address in &addresses {
            ensure!(black_box(cache.load().workload_at("", *address)).is_some(), "{address} is nobody's");
        }
        took.push(begin.elapsed().as_secs_f64() * 1e9 / addresses.len() as f64);
    }
    figures.add(
        "finding a workload by address",
        Target::None,
        median(&took),
        "ns",
        "in no order, snapshot load included",
    );
    Ok(())
}

fn change(cache: &Cache, workloads: usize, figures: &mut Figures) -> Result<()> {
    let rounds = if machine::quick() { 10 } else { 2000 };
    let (mut took, before) = (Vec::new(), heap::bytes());
    for n in 0..rounds {
        let workload = mesh::workload(n * 7919 % workloads);
        let delta = Delta { workloads: vec![Workload { status: Health::Unhealthy, ..workload }], ..Delta::default() };
        let begin = Instant::now();
        ensure!(cache.apply(delta), "{n} was healthy");
        took.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    let note = format!("{} KB more after {rounds} of them", Number((heap::bytes() - before).max(0.0) / 1e3));
    figures.add("applying one changed workload", Target::None, median(&took), "us", note);
    Ok(())
}

/// Changes a second that are applied while look-ups are timed, one at a time.
const CHANGES: u32 = 1000;

/// Single look-ups with and without deltas beside them, by turns.
fn find_while_changing(cache: &Cache, workloads: usize, figures: &mut Figures) -> Result<()> {
    let (rounds, finds) = if machine::quick() { (1, 10_000) } else { (9, 1_000_000) };
    let (mut idle, mut busy) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        idle.push(slowest_of_100(cache, workloads, finds)?);
        let stop = AtomicBool::new(false);
        let while_busy = thread::scope(|scope| {
            scope.spawn(|| keep_changing(cache, workloads, round, &stop));
            let found = slowest_of_100(cache, workloads, finds);
            stop.store(true, Relaxed);
            found
        });
        busy.push(while_busy?);
    }
    let ratios: Vec<_> = busy.iter().zip(&idle).map(|(busy, idle)| busy / idle).collect();
    figures.add(
        "p99 of a look-up, 1,000 deltas a second applied / none",
        Target::AtMost(1.2),
        median(&ratios),
        "",
        format!("{} and {} ns, 25 of them the clock's", Number(median(&busy)), Number(median(&idle))),
    );
    Ok(())
}

/// Returns the time that 99 of 100 look-ups stay below, ns.
fn slowest_of_100(cache: &Cache, workloads: usize, finds: usize) -> Result<f64> {
    let mut took = Vec::with_capacity(finds);
    for n in 0..finds {
        let address = mesh::address(n * 7919 % workloads).into();
        let begin = Instant::now();
        let found = black_box(cache.load().workload_at("", address)).is_some();
        took.push(begin.elapsed().as_nanos() as f64);
        ensure!(found, "{address} is nobody's");
    }
    took.sort_by(f64::total_cmp);
    Ok(took[finds * 99 / 100])
}

#[expect(clippy::disallowed_methods, reason = "changes come at a pace")]
fn keep_changing(cache: &Cache, workloads: usize, round: usize, stop: &AtomicBool) {
    let begin = Instant::now();
    let mut n = 0;
    while !stop.load(Relaxed) {
        let workload = mesh::workload(n as usize * 7919 % workloads);
        let canonical_revision = arcstr::format!("v{round}-{n}");
        cache.apply(Delta { workloads: vec![Workload { canonical_revision, ..workload }], ..Delta::default() });
        n += 1;
        thread::sleep((begin + Duration::from_secs(1) / CHANGES * n).saturating_duration_since(Instant::now()));
    }
}
