//! The whole record path: one raw record in, counters and perhaps a log line out.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::{
    fs::File,
    hint::black_box,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use abi::{Direction, Kind, Record};
use anyhow::{Context as _, Result, ensure};
use bench::{
    figure::{Figures, Number, Target, median},
    machine, mesh, pipeline,
    records::Connection,
};
use telemetry::{Recorder, Switch};
use zerocopy::IntoBytes as _;

const WORKLOADS: usize = 1000;
/// Connections of one batch; both ends of each tell, so four records each: what arrives in some 100 ms of a busy node.
const BATCH: u64 = 1000;
const FAMILIES: [Switch; 3] = [Switch::Monitoring, Switch::WorkloadMetrics, Switch::ConnectionMetrics];

fn main() -> Result<()> {
    println!("{}\n", machine::describe("cargo bench -p bench --bench record"));
    let batches = if machine::quick() { 3 } else { 200 };
    let mut figures = Figures::default();
    let mesh = mesh::cache(WORKLOADS);
    let service = short(&mesh, &[Switch::Monitoring], batches)?;
    figures.add("one record, service family alone", Target::None, service.wall, "us", "");
    let all = short(&mesh, &FAMILIES, batches)?;
    let note = format!("processor time {} us", Number(all.cpu));
    figures.add("one record, all families", Target::AtMost(0.4), all.wall, "us", note);
    let logged = short(&mesh, &[&FAMILIES[..], &[Switch::AccessLog]].concat(), batches)?;
    // Of two records, established and closed, one has a line.
    let line = 2.0 * (logged.cpu - all.cpu);
    let note = format!("processor time of all threads; the line alone {} us", Number(line));
    figures.add("one record with a text log line", Target::AtMost(1.2), all.cpu + line, "us", note);
    progress(&mesh, if machine::quick() { 1000 } else { 20_000 }, batches / 10 + 1, &mut figures)?;
    println!("{figures}");
    let missed = figures.missed();
    ensure!(machine::quick() || missed.is_empty(), "missed: {}", missed.join("; "));
    Ok(())
}

struct Cost {
    /// Of the record thread, us a record.
    wall: f64,
    /// Of all threads, us a record.
    cpu: f64,
}

/// Short connections between random workloads, each opened and closed, as both ends tell.
fn short(mesh: &Arc<cache::Cache>, on: &[Switch], batches: usize) -> Result<Cost> {
    let (mut recorder, exposition) = pipeline::build(mesh.clone(), on, sink()?)?;
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    for batch in 0..batches as u64 + 20 {
        let records = batch_of_short(batch);
        let (begin, cpu_begin) = (Instant::now(), machine::cpu()?);
        records.iter().for_each(|record| recorder.record(record.as_bytes()));
        recorder.maintain(now(batch + 1));
        let elapsed = begin.elapsed();
        ensure!(recorder.flush(Duration::from_secs(10)), "the log is not written");
        // The first batches make the series.
        if batch >= 20 {
            wall.push(elapsed.as_secs_f64() * 1e6 / records.len() as f64);
            cpu.push((machine::cpu()? - cpu_begin) * 1e6 / records.len() as f64);
        }
    }
    let made = (batches as u64 + 20) * BATCH * 2;
    ensure!(recorder.metrics().records.closed.get() == made, "not every record was taken");
    ensure!(recorder.metrics().log_dropped.get() == 0, "the log dropped lines");
    exposition.encode(telemetry::Format::Text, &mut io::sink())?;
    Ok(Cost { wall: median(&wall), cpu: median(&cpu) })
}

fn sink() -> Result<File> {
    File::options().write(true).open("/dev/null").context("opening /dev/null")
}

fn now(batch: u64) -> u64 {
    (batch + 1) * 100_000_000
}

fn batch_of_short(batch: u64) -> Vec<Record> {
    let mut records = Vec::new();
    for n in 0..BATCH {
        let number = batch * BATCH + n;
        // Some thousand pairs, in no order.
        let source = (number * 7919 % 100) as usize;
        let destination = (number * 104_729 % WORKLOADS as u64) as usize;
        let connection = |direction| Connection { source, destination, number, direction, start_ns: now(batch) + n };
        for kind in [Kind::Established, Kind::Closed] {
            let age = if kind == Kind::Closed { 2_700_000 } else { 40_000 };
            records.extend([Direction::Outbound, Direction::Inbound].map(|d| connection(d).record(kind, age)));
        }
    }
    records
}

/// Long connections: what one Progress record costs, moved and idle.
fn progress(mesh: &Arc<cache::Cache>, live: u64, passes: usize, figures: &mut Figures) -> Result<()> {
    let (mut recorder, _exposition) = pipeline::build(mesh.clone(), &FAMILIES, sink()?)?;
    let connection = |number: u64| {
        let (source, destination) = ((number % 1000) as usize, (number * 7919 % 1000) as usize);
        Connection { source, destination, number, direction: Direction::Outbound, start_ns: 1 }
    };
    let pass = |recorder: &mut Recorder, kind, age_ns| {
        let records: Vec<_> = (0..live).map(|n| connection(n).record(kind, age_ns)).collect();
        let begin = Instant::now();
        recorder.begin_pass(age_ns);
        records.iter().for_each(|record| recorder.record(black_box(record.as_bytes())));
        assert!(!recorder.end_pass(true), "every connection was shown");
        recorder.maintain(age_ns);
        begin.elapsed().as_secs_f64() * 1e6 / live as f64
    };
    let second = 1_000_000_000;
    pass(&mut recorder, Kind::Established, 0);
    pass(&mut recorder, Kind::Progress, 6 * second);
    let (mut moved, mut idle) = (Vec::new(), Vec::new());
    for n in 2..passes as u64 + 2 {
        moved.push(pass(&mut recorder, Kind::Progress, 5 * n * second));
        idle.push(pass(&mut recorder, Kind::Progress, 5 * n * second));
    }
    let note = format!("{live} long connections, all families, the whole pass");
    figures.add("one record of a long connection that moved", Target::AtMost(0.4), median(&moved), "us", note);
    figures.add("one record of a long connection that is idle", Target::None, median(&idle), "us", "");
    Ok(())
}
