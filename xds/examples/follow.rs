//! Follows a control plane and prints what is held and what it costs: `follow ADDRESS [SECONDS] [ROOT-CA]`.
#![expect(clippy::print_stdout, reason = "printing is what it does")]

use std::{
    env, fs,
    sync::Arc,
    time::{Duration, Instant},
};

use cache::{Cache, Node};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use xds::{Config, Identity, Status, Timing};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut args = env::args().skip(1);
    let address = args.next().ok_or("usage: follow ADDRESS [SECONDS] [ROOT-CA]")?.parse()?;
    let seconds = args.next().map_or(Ok(u64::MAX), |text| text.parse())?;
    let config = Config {
        address,
        root_ca: args.next().unwrap_or_default().into(),
        token: None,
        identity: Identity {
            node: "node-1".to_owned(),
            cluster: "Kubernetes".to_owned(),
            network: String::new(),
            ip: [127, 0, 0, 1].into(),
            pod: "follow".to_owned(),
            namespace: "default".to_owned(),
        },
        timing: Timing::default(),
    };
    let cache = Arc::new(Cache::new(Node { name: "node-1".into(), network: "".into() }));
    let registry = Registry::new();
    let status = Arc::new(Status::register(&registry)?);
    let mut changes = cache.subscribe();
    changes.changed().await;
    let shutdown = CancellationToken::new();
    let client = xds::run(config, cache.clone(), status.clone(), shutdown.clone());
    let print = async {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        let (mut last, mut known) = (String::new(), Duration::ZERO);
        while start.elapsed().as_secs() < seconds {
            let change = tokio::select! {
                change = changes.changed() => Some(change),
                _ = second.tick() => None,
            };
            // As soon as meshd could begin to program it.
            if let Some(received) = change.as_ref().and_then(|change| change.received) {
                known = received.elapsed();
            }
            if change.as_ref().is_some_and(|change| change.full) {
                println!("{:8.3} s everything may have changed", start.elapsed().as_secs_f64());
            } else if change.is_some() {
                continue;
            }
            let now = format!("{}; the last change known after {} us", state(&cache, &registry), known.as_micros());
            if now != last {
                println!("{:8.3} s {now}", start.elapsed().as_secs_f64());
                last = now;
            }
        }
        shutdown.cancel();
    };
    tokio::join!(client, print);
    Ok(())
}

fn state(cache: &Cache, registry: &Registry) -> String {
    let now = cache.load();
    let metric = |name: &str| {
        let family = registry.gather().into_iter().find(|family| family.name() == name);
        family.iter().flat_map(|f| f.get_metric()).map(|m| m.get_counter().get_value()).sum::<f64>()
    };
    let apply = registry.gather().into_iter().find(|family| family.name() == "meshd_xds_apply_seconds");
    let apply = apply.iter().flat_map(|f| f.get_metric()).map(|m| m.get_histogram().get_sample_sum()).sum::<f64>();
    format!(
        "{} workloads, {} services, {} policies; {} messages, {} resources, {} removals, {} NACKs, {} bytes; applied in {:.6} s; {}",
        now.workload_count(),
        now.service_count(),
        now.policies().len(),
        metric("meshd_xds_messages_total"),
        metric("meshd_xds_resources_total"),
        metric("meshd_xds_removed_resources_total"),
        metric("meshd_xds_nacks_total"),
        metric("meshd_xds_received_bytes_total"),
        apply,
        cost(),
    )
}

/// Processor time and memory of this process.
fn cost() -> String {
    let memory = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = |name: &str| memory.lines().find(|line| line.starts_with(name)).unwrap_or_default().replace('\t', " ");
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = |at: usize| stat.split(' ').nth(at).and_then(|text| text.parse().ok()).unwrap_or(0.0) / 100.0;
    format!("CPU {:.2} user {:.2} system, {} {}", ticks(13), ticks(14), line("VmRSS"), line("VmHWM"))
}
