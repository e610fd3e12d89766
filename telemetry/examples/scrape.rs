//! Measures a family of many series: memory a series, the record path's share, and a scrape's time and size.
//!
//! `cargo run --release -p telemetry --example scrape [label sets]`
#![expect(clippy::print_stdout, reason = "it is a command that prints")]

use std::{
    fs,
    hint::black_box,
    io::{self, Write},
    net::IpAddr,
    time::Instant,
};

use cache::{Cache, Node, Service, Workload};
use prometheus::Registry;
use telemetry::{
    Ends, Exposition, Families, Flag, Format, Reporter, SelfMetrics, Traffic,
    exposition::{Encoding, Negotiated},
};

const NAMESPACES: [&str; 5] = ["checkout", "inventory", "payments-prod", "recommendations", "istio-system"];

/// Swallows what is written and counts it.
struct Sink(u64);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += black_box(bytes).len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn main() {
    let sets: usize = std::env::args().nth(1).map_or(100_000, |n| n.parse().expect("a number of label sets"));
    let mut mesh = Mesh { families: Families::new(sets.max(1), "Kubernetes".into()), ends: Vec::new() };
    mesh.meet(sets);

    let before = resident();
    let begin = Instant::now();
    let handles: Vec<_> =
        mesh.ends.iter().map(|ends| mesh.families.service(ends, Reporter::Source, Flag::None, 1)).collect();
    let made = begin.elapsed();
    mesh.families.publish();
    let grown = resident() - before - (handles.len() * size_of_val(&handles[0])) as f64;
    println!(
        "service family, {sets} label sets: {:.0} B each, made in {:.0} ns each",
        grown / sets as f64,
        ns(made, sets)
    );

    let begin = Instant::now();
    for (n, handle) in handles.iter().enumerate() {
        handle.moved(&Traffic { received: n as u64 * 977, sent: 5 + n as u64, retransmits: 0, lost: 0 }, 2);
        handle.opened(2);
    }
    println!("all changed through held handles: {:.1} ns each", ns(begin.elapsed(), sets));
    let begin = Instant::now();
    for ends in &mesh.ends {
        black_box(mesh.families.service(ends, Reporter::Source, Flag::None, 3));
    }
    println!("found again: {:.1} ns each", ns(begin.elapsed(), sets));

    let before = resident();
    let workload: Vec<_> =
        mesh.ends.iter().map(|ends| mesh.families.workload(ends, Reporter::Source, Flag::None, 1)).collect();
    mesh.families.publish();
    let grown = resident() - before - (workload.len() * size_of_val(&workload[0])) as f64;
    println!("workload family, {sets} label sets: {:.0} B each", grown / sets as f64);
    drop(workload);
    mesh.families.maintain(700_000_000_000);
    drop(handles);

    // 100,000 lines: a quarter as many label sets, each with opened, closed, received and sent.
    let mut mesh = Mesh { families: Families::new(sets.max(1), "Kubernetes".into()), ends: Vec::new() };
    mesh.meet(sets / 4);
    for (n, ends) in mesh.ends.iter().enumerate() {
        let handle = mesh.families.service(ends, Reporter::Source, Flag::None, 1);
        handle.opened(2);
        handle.moved(&Traffic { received: n as u64 * 977, sent: n as u64 * 13, retransmits: 0, lost: 0 }, 2);
    }
    mesh.families.publish();
    let registry = Registry::new();
    let metrics = SelfMetrics::register(&registry).expect("the registry is new");
    let exposition = Exposition::new(mesh.families.reader(), registry, metrics.scrape);
    for format in [Format::Text, Format::OpenMetrics] {
        for encoding in [Encoding::Identity, Encoding::Gzip] {
            let before = resident();
            let mut runs = Vec::new();
            let mut sink = Sink(0);
            for _ in 0..7 {
                sink = Sink(0);
                let begin = Instant::now();
                exposition.scrape(Negotiated { format, encoding }, &mut sink).expect("a sink takes everything");
                runs.push(begin.elapsed());
            }
            runs.sort();
            println!(
                "{} series, {format:?} {encoding:?}: {:.1} MB in {:.1} ms (best {:.1}), resident {:+.0} KiB",
                mesh.ends.len() * 4,
                sink.0 as f64 / 1e6,
                runs[3].as_secs_f64() * 1e3,
                runs[0].as_secs_f64() * 1e3,
                (resident() - before) / 1024.0
            );
        }
    }
    if let Some(path) = std::env::args().nth(2) {
        let mut file = fs::File::create(path).expect("a file that can be made");
        exposition.encode(Format::Text, &mut file).expect("a file that can be written");
    }
}

struct Mesh {
    families: Families,
    ends: Vec<Ends>,
}

impl Mesh {
    /// Resolves as many pairs of 1,000 source workloads and some services with a workload each.
    fn meet(&mut self, sets: usize) {
        let others = sets.div_ceil(1000);
        let cache = Cache::new(Node::default());
        let destinations = (5000..).take(others);
        cache.replace((0..1000).chain(destinations.clone()).map(workload), (0..others).map(service));
        let snapshot = cache.load();
        let held = |n: usize| snapshot.workload(&workload(n).uid).expect("it was put there");
        let sources: Vec<_> = (0..1000).map(held).collect();
        for (n, other) in destinations.enumerate() {
            let destination = held(other);
            let service = snapshot.service(&service(n).key()).expect("it was put there");
            for source in sources.iter().take(sets - self.ends.len()) {
                let address = destination.addresses[0];
                self.ends.push(self.families.ends(Some(source), Some(destination), address, Some(service)));
            }
        }
        // Series come in no order: neighbours in a scrape share little.
        let ordered = std::mem::take(&mut self.ends);
        self.ends = (0..ordered.len()).map(|n| ordered[n * 7919 % ordered.len()].clone()).collect();
    }
}

fn workload(n: usize) -> Workload {
    let namespace = NAMESPACES[n % 5];
    let app = format!("{}-service-{}", ["frontend", "orders", "catalogue", "ledger"][n % 4], n % 300);
    let address = IpAddr::from([10, 244, (n / 250) as u8, (n % 250) as u8]);
    Workload {
        uid: arcstr::format!("cluster1//v1/Pod/{namespace}/{app}-7d4b9c6f5-{n:05}"),
        name: arcstr::format!("{app}-7d4b9c6f5-{n:05}"),
        namespace: namespace.into(),
        service_account: arcstr::format!("{app}-account"),
        trust_domain: "cluster.local".into(),
        cluster_id: "cluster1".into(),
        workload_name: arcstr::format!("{app}-{n}"),
        canonical_name: app.as_str().into(),
        canonical_revision: "v2".into(),
        addresses: Box::new([address]),
        ..Workload::default()
    }
}

fn service(n: usize) -> Service {
    let (namespace, name) = (NAMESPACES[n % 5], format!("productpage-{n}"));
    Service {
        name: name.as_str().into(),
        namespace: namespace.into(),
        hostname: arcstr::format!("{name}.{namespace}.svc.cluster.local"),
        ..Service::default()
    }
}

fn ns(took: std::time::Duration, n: usize) -> f64 {
    took.as_nanos() as f64 / n as f64
}

/// Bytes of this process in memory.
fn resident() -> f64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("a Linux process reads its statm");
    let pages: f64 = statm.split(' ').nth(1).and_then(|p| p.parse().ok()).expect("statm has a second number");
    pages * 4096.0
}
