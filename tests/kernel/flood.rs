//! One pod floods the node; what is told of the others is as exact and nearly as prompt as ever. `make flood` does it for ten minutes.

use std::{
    env, fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::{Meshd, Peer, Scrape};

use crate::pair::{Pair, Truth, talk};

/// How long the flood goes on, at least.
fn duration() -> Result<Duration> {
    let seconds = env::var("MESHD_FLOOD_SECONDS").map_or(Ok(6), |text| text.parse());
    Ok(Duration::from_secs(seconds.context("MESHD_FLOOD_SECONDS")?))
}

/// Telemetry without lines: a flood would have one of each of its connects.
const FLAGS: [&str; 4] = ["--monitoring", "--workload-metrics", "--connection-metrics", "--report-interval=500ms"];

/// Attempts of one command to the flooding peer.
const BATCH: u32 = 4000;
/// Addresses that nobody has: four million of them.
const STRANGE: (Ipv4Addr, u32) = (Ipv4Addr::new(100, 64, 0, 0), 1 << 22);
/// Services that have no endpoint, and refuse.
const SERVICES: (Ipv4Addr, u32) = (Ipv4Addr::new(172, 16, 0, 0), 10_000);
/// Label sets that a family may have.
const SERIES: usize = 500;
/// What a connection of others may take to show; the rest of a second is for a machine that is busy with the flood itself.
const PROMPT: Duration = Duration::from_secs(3);
/// Memory of the process that no flood may exceed.
const MOST_KIB: u64 = 96 << 10;

#[test]
fn a_flood_from_one_pod_changes_nothing_for_the_others() -> Result<()> {
    let mut pair = Pair::new("flood")?;
    let service = pair.service();
    let noisy_pod = pair.sandbox.pod("noisy")?;
    let mut noisy = noisy_pod.peer()?;
    // The server's namespace answers for four million addresses, with a reset.
    pair.server_pod.namespace().ip("route add local 100.64.0.0/10 dev lo")?;
    noisy_pod.namespace().ip(&format!("route add 100.64.0.0/10 via {}", pair.server_pod.v4))?;
    pair.server.ask(format_args!("serve {}:9090", pair.server_pod.v4))?;
    let series = format!("--max-series={SERIES}");
    let flags = [&FLAGS[..], &[&series, "--ring-slots=1024"]].concat();
    let service_at = |n| Ipv4Addr::from_bits(SERVICES.0.to_bits() + n).into();
    let mesh = (0..SERVICES.1).fold(pair.mesh().pod(&noisy_pod), |mesh, n| {
        mesh.service(&format!("idle-{n}"), &[service_at(n)], &[(80, 80)], &[])
    });
    // Without an endpoint only a strict one refuses.
    let strict = json!({"loadBalancer": {"routingPreferences": [], "mode": "Strict", "healthPolicy": "OnlyHealthy"}});
    let meshd = Meshd::start(&pair.sandbox, &mesh.with_services(&strict), &flags)?;

    let (mut failed, mut served, mut truth, mut slowest) = (0, 0, Truth::default(), Duration::ZERO);
    let end = Instant::now() + duration()?;
    for round in 0_u32.. {
        // A scan of ports of one pod, of addresses that nobody has and of services; and connections as fast as they can be made.
        let kind = round % 4;
        let from = |(first, count): (Ipv4Addr, u32)| {
            Ipv4Addr::from_bits(first.to_bits() + round / 4 * BATCH % (count - count % BATCH))
        };
        match kind {
            0 => noisy.begin(format_args!("scan {}:10000 {BATCH}", pair.server_pod.v4))?,
            1 => noisy.begin(format_args!("roam {}:80 {BATCH}", from(STRANGE)))?,
            2 => noisy.begin(format_args!("roam {}:80 {BATCH}", from(SERVICES)))?,
            _ => noisy.begin(format_args!("churn {}:9090 {} 10", pair.server_pod.v4, BATCH / 4))?,
        }
        truth = quiet(&mut pair.client, &mut pair.server, &service, &meshd, truth, &mut slowest)?;
        let reply = noisy.finish()?;
        match kind {
            3 => served += reply.connections,
            _ => failed += reply.connections,
        }
        if Instant::now() >= end && round >= 7 {
            break;
        }
    }
    println!("{failed} refused, {served} served; others' connections were shown within {slowest:?}");

    let source = [("reporter", "source"), ("source_workload", "noisy")];
    let scrape = meshd.eventually(|s| {
        s.shows("kmesh_tcp_workload_connections_failed_total", &source, failed as f64)?;
        // What came when the family was full has nobody's name.
        let named = s.total("kmesh_tcp_connections_failed_total", &source);
        let others = [("reporter", "source"), ("source_workload", "other")];
        s.shows("kmesh_tcp_connections_failed_total", &others, failed as f64 - named)?;
        s.shows("kmesh_tcp_workload_connections_closed_total", &source, served as f64)?;
        s.shows("kmesh_tcp_workload_sent_bytes_total", &source, served as f64 * 10.0)
    })?;
    truth.is_shown(&scrape)?;
    scrape.shows("meshd_telemetry_lost_bytes_total", &[], 0.0)?;
    scrape.shows("meshd_telemetry_lost_records_total", &[("kind", "closed_or_failed")], 0.0)?;
    for name in ["kmesh_tcp_workload_connections_failed_total", "kmesh_tcp_connections_failed_total"] {
        // Those of all others, one for each reason and end, come on top.
        let series = scrape.select(name, &[]).count();
        ensure!(series <= SERIES + 16, "{series} series of {name}");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", meshd.pid()))?;
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let peak = peak.context("a process has a peak of memory")?;
    ensure!(peak <= MOST_KIB, "{peak} KiB of memory");
    Ok(())
}

/// One connection of others, and whether it shows soon.
fn quiet(
    client: &mut Peer,
    server: &mut Peer,
    service: &str,
    meshd: &Meshd<'_>,
    before: Truth,
    slowest: &mut Duration,
) -> Result<Truth> {
    talk(client, server, service, 77)?;
    let truth = Truth { opened: before.opened + 1, closed: before.closed + 1, there: before.there + 77, back: 0 };
    let begin = Instant::now();
    meshd.eventually(|s: &Scrape| truth.is_shown(s))?;
    *slowest = begin.elapsed().max(*slowest);
    ensure!(*slowest <= PROMPT, "a connection was shown after {slowest:?}");
    Ok(truth)
}
