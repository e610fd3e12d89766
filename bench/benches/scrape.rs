//! Scrapes of many series: how long, how much memory, and what the record path notices of them.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::{
    alloc::System,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use abi::{Direction, Kind, Record};
use anyhow::{Result, ensure};
use bench::{
    figure::{Figures, Number, Target, median},
    heap, machine, mesh, pipeline,
    records::Connection,
};
use nix::sys::resource::{UsageWho, getrusage};
use stats_alloc::StatsAlloc;
use telemetry::{
    Exposition, Format, Recorder, Switch,
    exposition::{Encoding, Negotiated},
};
use zerocopy::IntoBytes as _;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = heap::COUNTING;

/// Services, every one of which talks to every other: their labels, not their pods', tell series of the service family apart.
const SERVICES: usize = 400;
const SECOND: u64 = 1_000_000_000;

fn main() -> Result<()> {
    println!("{}\n", machine::describe("cargo bench -p bench --bench scrape"));
    let series = if machine::quick() { 2000 } else { 100_000 };
    let mut figures = Figures::default();
    let mesh = mesh::cache(SERVICES * mesh::REPLICAS);
    memory(&mesh, series, &mut figures)?;
    // A label set of the service family has four series from its first connection on: opened, closed, received, sent.
    let mut few = Series::new(&mesh, &[Switch::Monitoring], series / 4)?;
    let what = format!("{series} series of the 23 labels");
    encode(&mut few, &what, [Target::AtMost(30.0), Target::AtMost(300.0)], &mut figures)?;
    let mut many = Series::new(&mesh, &[Switch::Monitoring, Switch::WorkloadMetrics], series)?;
    let what = format!("both families with {series} label sets");
    encode(&mut many, &what, [Target::None; 2], &mut figures)?;
    waits(&mut many, &mut figures)?;
    println!("{figures}");
    let missed = figures.missed();
    ensure!(machine::quick() || missed.is_empty(), "missed: {}", missed.join("; "));
    Ok(())
}

/// A record path with so many label sets a family, each of one live connection.
struct Series {
    recorder: Recorder,
    exposition: Arc<Exposition>,
    records: Vec<Record>,
}

impl Series {
    fn new(mesh: &Arc<cache::Cache>, on: &[Switch], label_sets: usize) -> Result<Self> {
        let (recorder, exposition) = pipeline::build(mesh.clone(), on, io::sink())?;
        let mut series = Self { recorder, exposition, records: (0..label_sets).map(established).collect() };
        series.records.iter().for_each(|record| series.recorder.record(record.as_bytes()));
        series.moved(1);
        series.recorder.maintain(SECOND);
        Ok(series)
    }

    /// Changes every series once and returns how long each record took, ns.
    fn moved(&mut self, times: u64) -> Vec<u64> {
        let recorder = &mut self.recorder;
        let mut took = Vec::with_capacity(self.records.len());
        for record in &mut self.records {
            record.kind = Kind::Progress as u32;
            record.now_ns = record.start_ns + times * SECOND / 1000;
            record.sent += 1448;
            record.received += 1448;
            let begin = Instant::now();
            recorder.record(record.as_bytes());
            took.push(begin.elapsed().as_nanos() as u64);
        }
        took
    }
}

/// The connection of the `n`th pair of services.
fn established(n: usize) -> Record {
    let (source, destination) = (n % SERVICES * mesh::REPLICAS, (n / SERVICES + n) % SERVICES * mesh::REPLICAS);
    let direction = Direction::Outbound;
    let connection = Connection { source, destination, number: n as u64 + 1, direction, start_ns: SECOND };
    connection.record(Kind::Established, 40_000)
}

/// What a series holds of memory, fragments, index and what saves it for the next process included, connections not.
fn memory(mesh: &Arc<cache::Cache>, series: usize, figures: &mut Figures) -> Result<()> {
    let on = [Switch::Monitoring];
    let (mut recorder, _exposition) = pipeline::build(mesh.clone(), &on, io::sink())?;
    let mut opened_and_closed = |range: std::ops::Range<usize>| {
        for record in range.map(established) {
            recorder.record(record.as_bytes());
            recorder.record(Record { kind: Kind::Closed as u32, ..record }.as_bytes());
        }
        recorder.maintain(SECOND);
    };
    // What does not grow with series: ended connections that are remembered, names of workloads and services.
    opened_and_closed(0..series / 10);
    let before = heap::bytes();
    opened_and_closed(series / 10..series);
    let each = (heap::bytes() - before) / (series - series / 10) as f64;
    let note = format!("{} B a label set, which has four to six, 128 of them its place in what is saved", Number(each));
    figures.add("memory of a series", Target::AtMost(150.0), each / 4.0, "B", note);
    Ok(())
}

/// Counts what is written, and copies it once as a socket would.
struct Sink {
    buffer: Vec<u8>,
    written: u64,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let take = bytes.len().min(self.buffer.len());
        self.buffer[..take].copy_from_slice(&bytes[..take]);
        self.written += take as u64;
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Counts samples.
struct Lines(usize);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.iter().filter(|b| **b == b'\n').count();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn encode(series: &mut Series, what: &str, targets: [Target; 2], figures: &mut Figures) -> Result<()> {
    for (encoding, target) in [Encoding::Identity, Encoding::Gzip].into_iter().zip(targets) {
        let mut sink = Sink { buffer: vec![0; 64 << 10], written: 0 };
        let mut lines = Lines(0);
        series.exposition.encode(Format::Text, &mut lines)?;
        let rounds = if machine::quick() { 1 } else { 15 };
        let (before, peak) = (heap::bytes(), Peak::watch());
        let mut took = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            sink.written = 0;
            let begin = Instant::now();
            series.exposition.scrape(Negotiated { format: Format::Text, encoding }, &mut sink)?;
            took.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        let (after, peak) = (heap::bytes(), peak.end());
        let note = format!(
            "{} lines, {} MB; heap before {} KB, at most {} KB more, after {} KB more",
            lines.0,
            Number(sink.written as f64 / 1e6),
            Number(before / 1e3),
            Number((peak - before).max(0.0) / 1e3),
            Number((after - before).max(0.0) / 1e3)
        );
        figures.add(&format!("encoding {what}, {encoding:?}"), target, median(&took), "ms", note);
    }
    Ok(())
}

/// The most that was allocated, seen from another thread.
struct Peak {
    stop: Arc<AtomicBool>,
    most: thread::JoinHandle<f64>,
}

impl Peak {
    fn watch() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = stop.clone();
        let most = thread::spawn(move || {
            let mut most = heap::bytes();
            while !theirs.load(Relaxed) {
                most = most.max(heap::bytes());
                machine::wait(std::time::Duration::from_micros(200));
            }
            most
        });
        Self { stop, most }
    }

    fn end(self) -> f64 {
        self.stop.store(true, Relaxed);
        self.most.join().expect("it only reads counters")
    }
}

/// Every series changes, over and over, while scrapes run and while none does.
fn waits(series: &mut Series, figures: &mut Figures) -> Result<()> {
    let passes = if machine::quick() { 1 } else { 20 };
    let alone = updates(series, passes)?;
    let (stop, scrapes) = (AtomicBool::new(false), AtomicU64::new(0));
    let exposition = series.exposition.clone();
    let scraped = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                let scraped = exposition.encode(Format::Text, &mut io::sink());
                scraped.expect("a sink takes everything");
                scrapes.fetch_add(1, Relaxed);
            }
        });
        while scrapes.load(Relaxed) == 0 {
            thread::yield_now();
        }
        let scraped = updates(series, passes);
        stop.store(true, Relaxed);
        scraped
    })?;
    let what = format!("updating {} label sets", series.records.len());
    let note = format!(
        "times it slept, in {} records and {} scrapes",
        passes * series.records.len() as u64,
        scrapes.into_inner()
    );
    figures.add(
        &format!("{what}: what the record path waits for scrapes"),
        Target::AtMost(0.0),
        scraped.slept,
        "",
        note,
    );
    for (how, updates) in [("no scrape", alone), ("scrapes without end", scraped)] {
        let Updates { pass_ms, p50, p999, most, .. } = updates;
        let note =
            format!("a record: median {p50} ns, 99.9 % within {p999} ns, slowest {most} ns (preemption included)");
        figures.add(&format!("{what}, {how}"), Target::None, pass_ms, "ms", note);
    }
    Ok(())
}

struct Updates {
    slept: f64,
    pass_ms: f64,
    p50: u64,
    p999: u64,
    most: u64,
}

fn updates(series: &mut Series, passes: u64) -> Result<Updates> {
    let slept = || getrusage(UsageWho::RUSAGE_THREAD).map(|usage| usage.voluntary_context_switches());
    let before = slept()?;
    let (mut took, mut whole) = (Vec::new(), Vec::new());
    for pass in 0..passes {
        let begin = Instant::now();
        took.extend(series.moved(pass + 2));
        series.recorder.maintain((pass + 2) * SECOND);
        whole.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    let slept = (slept()? - before) as f64;
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    Ok(Updates { slept, pass_ms: median(&whole), p50: at(0.5), p999: at(0.999), most: at(1.0) })
}
