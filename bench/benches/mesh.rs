//! A large mesh: loading, finding, changing, and what it holds of memory.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::{alloc::System, hint::black_box, net::IpAddr, sync::Arc, time::Instant};

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
