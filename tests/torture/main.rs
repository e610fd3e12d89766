//! The daemon killed, stopped, ended and started anew at random moments under real traffic, and every number compared with the truth.
//!
//! `MESHD_TORTURE_SEED` (any number of them, `1,2,3`) and `MESHD_TORTURE_SECONDS` say what to run; as it is, one seed that never changes and
//! one that is new each time. A seed decides what is done to the daemon and what the clients do, not when the kernel runs whom.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a report of what was run, so that it can be run again")]

mod chaos;
mod traffic;

use std::{env, time::Duration};

use anyhow::{Context as _, Result};
use tests::{Mesh, Meshd, Pod, Sandbox, meshd::uninstall, retry::eventually};

use chaos::Chaos;
use traffic::{PORTS, Traffic};

const FIXED: u64 = 20_260_101;
const SECONDS: u64 = 40;
/// Connections that end as the torture does are told within this.
const SETTLE: Duration = Duration::from_secs(60);

const CLIENTS: [&str; 2] = ["web", "batch"];
const SERVERS: [&str; 2] = ["cart", "stock"];

/// Everything on, a small ring, and (see `chaos`) little room beside it: a second without the daemon fills both.
const FLAGS: [&str; 7] = [
    "--monitoring",
    "--workload-metrics",
    "--connection-metrics",
    "--report-interval=500ms",
    "--long-connection-threshold=1s",
    "--ring-slots=512",
    "--on-exit=keep",
];

fn main() -> Result<()> {
    let seeds = match env::var("MESHD_TORTURE_SEED") {
        Ok(list) => list
            .split(',')
            .map(|seed| seed.trim().parse())
            .collect::<Result<Vec<_>, _>>()
            .context("MESHD_TORTURE_SEED")?,
        Err(_) => vec![FIXED, fastrand::u64(..)],
    };
    let seconds = match env::var("MESHD_TORTURE_SECONDS") {
        Ok(number) => number.parse().context("MESHD_TORTURE_SECONDS")?,
        Err(_) => SECONDS,
    };
    for seed in seeds {
        println!("torture: MESHD_TORTURE_SEED={seed} MESHD_TORTURE_SECONDS={seconds}");
        run(seed, Duration::from_secs(seconds)).with_context(|| format!("torture with MESHD_TORTURE_SEED={seed}"))?;
    }
    Ok(())
}

fn run(seed: u64, time: Duration) -> Result<()> {
    let sandbox = Sandbox::new("torture")?;
    let pods = |names: [&str; 2]| names.iter().map(|name| sandbox.pod(name)).collect::<Result<Vec<_>>>();
    let (clients, servers) = (pods(CLIENTS)?, pods(SERVERS)?);
    // Pods first: a namespace without a process is found once it has one, and until then it is not managed.
    let traffic = Traffic::prepare(&sandbox, &clients, &servers, seed)?;
    let meshd = Meshd::start(
        &sandbox,
        &mesh(&sandbox, &clients, &servers),
        &[&FLAGS[..], &["--max-connections=256"]].concat(),
    )?;
    let traffic = traffic.start();
    let mut chaos = Chaos::new(&sandbox, meshd, seed);
    chaos.reign(time)?;
    let truth = traffic.end()?;
    let (mut meshd, blows) = chaos.end();
    meshd.ready()?;
    println!("torture: {blows}; {truth}");
    let settled = eventually(SETTLE, || truth.is_shown_by(&meshd.scrape()?, &[]));
    let lost = settled.with_context(|| format!("meshd says\n{}\nand counted\n{}", meshd.log(), counted(&meshd)))?;
    println!("torture: every number is the truth{lost}");
    meshd.kill()?;
    uninstall(&sandbox).map(drop)
}

/// All that tells where something went that is missing.
fn counted(meshd: &Meshd<'_>) -> String {
    let scrape = match meshd.scrape() {
        Ok(scrape) => scrape,
        Err(error) => return format!("nothing that can be read: {error:#}"),
    };
    let tells =
        |name: &str| name.starts_with("kmesh_tcp_workload") || name.starts_with("meshd_") && !name.ends_with("_bucket");
    let mut lines = String::new();
    for sample in scrape.samples().iter().filter(|sample| tells(&sample.name) && sample.value != 0.0) {
        let who = ["reporter", "source_workload", "destination_workload", "response_flags", "kind", "reason", "map"];
        let labels: Vec<_> = who.iter().filter_map(|label| sample.labels.get(*label)).map(String::as_str).collect();
        lines += &format!("{} {} {}\n", sample.name, labels.join(" "), sample.value);
    }
    lines
}

fn mesh(sandbox: &Sandbox, clients: &[Pod], servers: &[Pod]) -> Mesh {
    let mesh = clients.iter().chain(servers).fold(Mesh::new(), Mesh::pod);
    let ports: Vec<_> = PORTS.map(|port| (port, port)).collect();
    (1..).zip(servers).fold(mesh, |mesh, (number, server)| {
        mesh.service(&server.name, &[sandbox.vip(number).into()], &ports, &[&server.name])
    })
}
