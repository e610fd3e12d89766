//! The record path with a mesh of the test's own, a clock that stands where the test puts it, and a log it can read.

use std::{
    io::{self, Write},
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use cache::{Cache, Node, Service, Str, Workload};
use telemetry::{AccessLog, Clock, Config, Exposition, Format, NodeAddresses, Recorder, Saved, Switch, Switches};

use crate::{connection::Raw, restart::Shared};

/// Wall time when the monotonic clock stands at 0: 2024-09-14 08:19:20 UTC, in ns since the Unix epoch.
const WALL_NS: i64 = 1_726_301_960_000_000_000;

/// Labels that a scrape line must have.
pub(crate) type Labels<'a> = [(&'a str, &'a str)];

pub(crate) struct Pipeline {
    pub(crate) recorder: Recorder,
    pub(crate) exposition: Arc<Exposition>,
    pub(crate) switches: Arc<Switches>,
    pub(crate) cache: Arc<Cache>,
    log: Sink,
}

/// Collects what is written to the access log.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pipeline {
    /// A pipeline over [`mesh`], with everything switched on.
    pub(crate) fn all_on(config: Config) -> Self {
        let pipeline = Self::new(config);
        Switches::ALL.iter().for_each(|switch| {
            pipeline.switches.set(*switch, true);
        });
        pipeline
    }

    /// A pipeline over [`mesh`], with monitoring alone.
    pub(crate) fn monitoring(config: Config) -> Self {
        let pipeline = Self::new(config);
        pipeline.switches.set(Switch::Monitoring, true);
        pipeline
    }

    /// A pipeline over [`mesh`], with everything off.
    pub(crate) fn new(config: Config) -> Self {
        let cache = Arc::new(Cache::new(Node { name: Str::from("node-a"), ..Node::default() }));
        let (workloads, services) = mesh();
        cache.replace(workloads, services);
        let node = Arc::new(NodeAddresses::default());
        node.set(["10.244.0.1".parse().expect("an address")]);
        let (switches, log) = (Arc::new(Switches::default()), Sink::default());
        let access_log = AccessLog::new(&config, log.clone()).expect("a thread starts");
        let clock = Arc::new(Clock::with_offset(WALL_NS));
        let (recorder, exposition) = telemetry::new(config, cache.clone(), switches.clone(), node, clock, access_log);
        Self { recorder, exposition, switches, cache, log }
    }

    /// A pipeline over [`mesh`] that goes on from what was saved, with everything switched on; the programs were attached all the while.
    pub(crate) fn resumed(config: Config, memory: Shared) -> Self {
        let Self { switches, cache, log, .. } = Self::new(config.clone());
        let (node, clock) = (Arc::new(NodeAddresses::default()), Arc::new(Clock::with_offset(WALL_NS)));
        let access_log = AccessLog::new(&config, log.clone()).expect("a thread starts");
        let saved = Saved::open(Box::new(memory)).expect("it is ours").watched(true);
        let (recorder, exposition) =
            telemetry::resume(config, cache.clone(), switches.clone(), node, clock, access_log, saved);
        Switches::ALL.iter().for_each(|switch| {
            switches.set(*switch, true);
        });
        Self { recorder, exposition, switches, cache, log }
    }

    pub(crate) fn feed<'a>(&mut self, records: impl IntoIterator<Item = &'a Raw>) {
        records.into_iter().for_each(|raw| self.recorder.record(raw));
    }

    /// Maintains at a time and scrapes.
    pub(crate) fn scrape_at(&mut self, now_ns: u64) -> String {
        self.recorder.maintain(now_ns);
        self.scrape()
    }

    pub(crate) fn scrape(&self) -> String {
        let mut out = Vec::new();
        self.exposition.encode(Format::Text, &mut out).expect("a vector takes every write");
        String::from_utf8(out).expect("a scrape is UTF-8")
    }

    /// The log so far, all of it.
    pub(crate) fn log(&mut self) -> String {
        assert!(self.recorder.flush(Duration::from_secs(20)), "the log is not written");
        String::from_utf8(self.log.0.lock().expect("no writer panics").clone()).expect("a log is UTF-8")
    }
}

/// Adds up the samples of a metric that have these labels.
pub(crate) fn sum(scrape: &str, metric: &str, labels: &Labels<'_>) -> u64 {
    samples(scrape, metric, labels).iter().map(|line| value(line)).sum()
}

/// Returns the samples of a metric that have these labels.
pub(crate) fn samples<'a>(scrape: &'a str, metric: &str, labels: &Labels<'_>) -> Vec<&'a str> {
    let of_metric = |line: &&str| {
        line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|(name, value)| {
                let label = format!("{name}=\"{value}\"");
                line.contains(&format!("{{{label}")) || line.contains(&format!(",{label}"))
            })
    };
    scrape.lines().filter(of_metric).collect()
}

/// Returns the value of a sample.
pub(crate) fn value(line: &str) -> u64 {
    line.rsplit_once(' ').and_then(|(_, v)| v.parse().ok()).unwrap_or_else(|| panic!("no count in {line}"))
}

/// A client, two servers of a service, a headless database with an IPv6 address, and a pod whose names are hostile.
pub(crate) fn mesh() -> (Vec<Workload>, Vec<Service>) {
    let cart = "shop/cart.shop.svc.cluster.local";
    let db = "data/db.data.svc.cluster.local";
    let workloads = vec![
        pod("client-0", "web", &["10.244.0.17"], None),
        pod("cart-a", "shop", &["10.244.0.13", "fd00::13"], Some((cart, 8080))),
        pod("cart-b", "shop", &["10.244.0.14"], Some((cart, 8080))),
        pod("db-0", "data", &["10.244.0.20", "fd00::20"], Some((db, 5432))),
        pod("evil\"} 1\nfake{x=\"y", "web, a=b", &["10.244.0.66"], None),
    ];
    (workloads, vec![service(cart, &["10.96.0.10", "fd00:96::10"], 80, 8080), service(db, &[], 5432, 5432)])
}

/// A pod of a deployment that is called as the pod up to its last `-`.
pub(crate) fn pod(name: &str, namespace: &str, addresses: &[&str], serves: Option<(&str, u16)>) -> Workload {
    let owner = name.rsplit_once('-').map_or(name, |n| n.0);
    Workload {
        uid: Str::from(format!("cluster1//v1/Pod/{namespace}/{name}")),
        name: Str::from(name),
        namespace: Str::from(namespace),
        service_account: Str::from(owner),
        trust_domain: Str::from("cluster.local"),
        workload_name: Str::from(owner),
        canonical_name: Str::from(owner),
        canonical_revision: Str::from("v1"),
        node: Str::from("node-a"),
        addresses: addresses.iter().map(|a| address(a)).collect(),
        services: serves.map(|(key, port)| (Str::from(key), [(port, port)].into())).into_iter().collect(),
        ..Workload::default()
    }
}

fn service(key: &str, vips: &[&str], port: u16, target: u16) -> Service {
    let (namespace, hostname) = key.split_once('/').expect("namespace/hostname");
    Service {
        name: Str::from(hostname.split('.').next().expect("split gives one")),
        namespace: Str::from(namespace),
        hostname: Str::from(hostname),
        vips: vips.iter().map(|v| (Str::new(), address(v))).collect(),
        ports: [(port, target)].into(),
        ..Service::default()
    }
}

fn address(address: &str) -> IpAddr {
    address.parse().expect("an address")
}
