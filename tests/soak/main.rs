//! Mixed traffic for a long time while the mesh changes: nothing is lost or in another order, every number is the truth at the end, and
//! the kernel has not complained.
//!
//! `MESHD_SOAK_SECONDS` says how long, `MESHD_SOAK_SEED` what is said and changed. A seed does not decide when the kernel runs whom.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a report of what was run, so that it can be run again")]

mod changes;
mod traffic;

use std::{env, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tests::{Meshd, Sandbox, kernel_log::KernelLog, retry::eventually};

use changes::Changes;
use traffic::Traffic;

const SECONDS: u64 = 60;
/// Connections that end as the soak does are told within this.
const SETTLE: Duration = Duration::from_secs(60);

const CLIENTS: [&str; 2] = ["web", "batch"];
const SERVERS: [&str; 2] = ["cart", "stock"];
/// A client that leaves management and comes back.
const GUEST: &str = "guest";

/// Everything on.
const FLAGS: [&str; 6] = [
    "--accelerate",
    "--monitoring",
    "--workload-metrics",
    "--connection-metrics",
    "--report-interval=500ms",
    "--long-connection-threshold=1s",
];

fn main() -> Result<()> {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().with_context(|| name.to_owned()));
    let seconds = number("MESHD_SOAK_SECONDS").transpose()?.unwrap_or(SECONDS);
    let seed = number("MESHD_SOAK_SEED").transpose()?.unwrap_or_else(|| fastrand::u64(..));
    println!("soak: MESHD_SOAK_SEED={seed} MESHD_SOAK_SECONDS={seconds}");
    run(seed, Duration::from_secs(seconds)).with_context(|| format!("soak with MESHD_SOAK_SEED={seed}"))
}

fn run(seed: u64, time: Duration) -> Result<()> {
    let mut log = KernelLog::begin()?;
    let sandbox = Sandbox::new("soak")?;
    let pods = |names: &[&str]| names.iter().map(|name| sandbox.pod(name)).collect::<Result<Vec<_>>>();
    let (clients, servers, guest) = (pods(&CLIENTS)?, pods(&SERVERS)?, sandbox.pod(GUEST)?);
    // Pods first: a namespace without a process is found once it has one, and until then it is not managed.
    let traffic = Traffic::prepare(&sandbox, &clients, &servers, &guest, seed)?;
    let pods: Vec<_> = clients.iter().chain(&servers).chain([&guest]).collect();
    let mut changes = Changes::new(&sandbox, &pods, seed);
    let meshd = Meshd::start(&sandbox, &changes.mesh(), &FLAGS)?;
    let traffic = traffic.start();
    changes.make(&meshd, &mut log, time)?;
    let truth = traffic.end()?;
    println!("soak: {changes}; {truth}");
    ensure!(changes.joined > 0.0 || !FLAGS.contains(&"--accelerate"), "nothing was redirected");
    let settled = eventually(SETTLE, || truth.is_shown_by(&meshd.scrape()?, &[GUEST]));
    let lost = settled.with_context(|| format!("meshd says\n{}", meshd.log()))?;
    ensure!(!lost.is_some(), "numbers are right{lost}, but nothing should be lost");
    drop(meshd);
    drop(sandbox);
    log.is_quiet()?;
    println!("soak: every byte came, every number is the truth, and the kernel is quiet");
    Ok(())
}
