//! Measures the whole data plane on this machine's kernel, off against on. Needs root and an otherwise idle machine.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bench::{
    figure::{Figures, Target},
    kernel::{
        cost, load, minute, process, pull, redirect,
        rounds::{self, Plan},
        sidecar, sockets, steering,
        world::{Dial, Mode, World},
    },
    machine,
};
use clap::{Parser, Subcommand, ValueEnum};

#[derive(Parser)]
#[command(about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    /// The data plane [default: `meshd` beside this program]
    #[arg(long, value_name = "FILE")]
    meshd: Option<PathBuf>,
    /// What to measure; all if none is named
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Rounds; in each, every mode once
    #[arg(long, value_name = "N", default_value_t = 15)]
    rounds: usize,
    /// How long one rate is measured, ms
    #[arg(long, value_name = "N", default_value_t = 1000)]
    millis: u64,
    /// Live connections to pull; half as many are opened, since both their ends are this node's
    #[arg(long, value_name = "N", default_values_t = [20_000, 40_000])]
    live: Vec<usize>,
    /// Managed sockets, of which half are clients'
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    sockets: usize,
    /// Which address short connections dial where program time is measured
    #[arg(long, value_enum, default_value = "vip")]
    dial: Dial,
    /// How data goes where redirected sockets are measured, in turns
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WAY,...", default_values = ["off", "on", "floor"])]
    ways: Vec<redirect::Way>,
    /// Seconds instead of minutes, to see that everything runs; its numbers mean little
    #[arg(long)]
    quick: bool,
}

#[derive(Subcommand)]
enum Role {
    /// Runs in a pod (this program starts itself so)
    #[command(hide = true)]
    Load { netns: PathBuf, cgroup: PathBuf },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Rates, processor time, latency and throughput, off, steering alone and on
    Rounds,
    /// Program time a connection
    Programs,
    /// Programs run a packet
    Packets,
    /// Pulling live connections
    Pull,
    /// Memory of an idle meshd
    Memory,
    /// Memory of managed sockets, and a pass over all of them
    Sockets,
    /// A minute of connections, as many as can be dialled: each is counted
    Minute,
    /// Steering of 10,000 services of 20 endpoints: memory of the maps, one endpoint's change
    Steering,
    /// Redirected sockets: latency, throughput and short requests, off, on and the least program
    Redirect,
    /// Whole requests and round trips, against a sidecar in each pod
    Sidecar,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    match &cli.role {
        Some(Role::Load { netns, cgroup }) => load::run(netns, cgroup),
        None => measure(&cli),
    }
}

fn measure(cli: &Cli) -> Result<()> {
    let meshd = match &cli.meshd {
        Some(path) => path.clone(),
        None => std::env::current_exe().context("finding this program")?.with_file_name("meshd"),
    };
    ensure!(meshd.exists(), "{} is missing: cargo build --release --package dataplane", meshd.display());
    tests::artifacts::use_meshd(meshd);
    let flags: Vec<_> = std::env::args().skip(1).collect();
    println!("{}\n", machine::describe(&format!("cargo run --release -p bench -- {}", flags.join(" "))));
    let world = World::new()?;
    let background = machine::background(Duration::from_secs(1))?;
    println!("In use by others before the run: {:.1} % of all processors\n", background * 100.0);
    let mut figures = Figures::default();
    let part = |part| cli.parts.is_empty() || cli.parts.contains(&part);
    let (millis, live, seconds) = if cli.quick { (200, vec![1000], 2) } else { (3000, cli.live.clone(), 10) };
    if part(Part::Programs) {
        println!("{}", cost::connection(&world, cli.dial, millis, &mut figures)?);
    }
    if part(Part::Packets) {
        cost::packet(&world, Mode::On, Target::AtMost(0.0), &mut figures)?;
        cost::packet(&world, Mode::Packet, Target::None, &mut figures)?;
    }
    if part(Part::Pull) {
        for (n, ends) in live.into_iter().enumerate() {
            let target = if n == 0 { Target::AtMost(1.0) } else { Target::None };
            pull::run(&world, ends, seconds, target, &mut figures)?;
        }
    }
    if part(Part::Memory) {
        memory(&world, seconds, &mut figures)?;
    }
    if part(Part::Sockets) {
        sockets::run(&world, if cli.quick { 1000 } else { cli.sockets }, seconds, &mut figures)?;
    }
    if part(Part::Minute) {
        minute::run(&world, if cli.quick { 1000 } else { 60_000 }, &mut figures)?;
    }
    if part(Part::Rounds) {
        let plan = Plan { rounds: cli.rounds, millis: cli.millis, trips: 20_000 };
        let plan = if cli.quick { Plan { rounds: 1, millis: 200, trips: 1000 } } else { plan };
        println!("{}", rounds::run(&world, plan, &mut figures)?);
    }
    if part(Part::Steering) {
        let plan = steering::Plan { services: 10_000, changes: 200 };
        let quick = steering::Plan { services: 100, changes: 4 };
        steering::run(&world, if cli.quick { quick } else { plan }, &mut figures)?;
    }
    let plan = redirect::Plan { rounds: cli.rounds, millis: cli.millis, trips: 20_000, blocks: 8192 };
    let quick = redirect::Plan { rounds: 1, millis: 200, trips: 1000, blocks: 512 };
    let plan = if cli.quick { quick } else { plan };
    if part(Part::Redirect) {
        println!("{}", redirect::run(&world, &cli.ways, plan, &mut figures)?);
    }
    if part(Part::Sidecar) {
        println!("{}", sidecar::run(&world, &cli.ways, plan, &mut figures)?);
    }
    println!("{figures}");
    let missed = figures.missed();
    ensure!(cli.quick || missed.is_empty(), "missed: {}", missed.join("; "));
    Ok(())
}

fn memory(world: &World, seconds: u32, figures: &mut Figures) -> Result<()> {
    let meshd = world.meshd(Mode::On, &[])?.context("a meshd in that mode")?;
    // Idle is not just started.
    machine::wait(Duration::from_secs(seconds.into()));
    let rss = process::mebibytes(meshd.pid(), "VmRSS")?;
    let own = process::mebibytes(meshd.pid(), "RssAnon")?;
    let note = format!("{own:.1} MiB of it anonymous, the rest the program's own pages");
    figures.add("resident memory, idle", Target::AtMost(20.0), rss, "MiB", note);
    Ok(())
}
