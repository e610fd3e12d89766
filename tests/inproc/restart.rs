//! A process that ends anywhere, and the next one that goes on from what it saved: what is shown is what one process would have shown.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, atomic::AtomicU64},
};

use telemetry::{Config, Memory, SEGMENT, Switch};

use crate::{
    connection::{Connection, MS, Raw, SECOND},
    pipeline::{Pipeline, sum},
};

/// Memory that outlives a pipeline.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared(Arc<Mutex<Vec<&'static [AtomicU64]>>>);

impl Memory for Shared {
    fn segments(&self) -> usize {
        self.0.lock().expect("no one panics").len()
    }

    fn segment(&self, number: usize) -> &[AtomicU64] {
        self.0.lock().expect("no one panics")[number]
    }

    fn grow(&mut self) -> io::Result<()> {
        let words: Box<[AtomicU64]> = (0..SEGMENT).map(|_| AtomicU64::new(0)).collect();
        self.0.lock().expect("no one panics").push(Box::leak(words));
        Ok(())
    }
}

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// What happens: records in the order of the ring, one a millisecond.
fn history(random: &mut Random, records: usize) -> Vec<Raw> {
    let peers = ["10.244.0.13:8080", "10.244.0.14:8080", "10.244.0.20:5432", "10.244.0.66:1", "192.0.2.9:443"];
    let mut live: Vec<(Connection, u64, u64)> = Vec::new();
    let mut all = Vec::new();
    for n in 0..records as u64 {
        let now_ns = SECOND + n * 10 * MS;
        let pick = random.below(10);
        if pick < 3 || live.is_empty() {
            let (local, remote) = ("10.244.0.17:40000", peers[random.below(peers.len() as u64) as usize]);
            let made = match random.below(4) {
                0 => Connection::inbound(n + 1, now_ns, remote, local),
                1 if remote.ends_with(":8080") => {
                    Connection::outbound(n + 1, now_ns, local, remote).dialled("10.96.0.10:80")
                }
                _ => Connection::outbound(n + 1, now_ns, local, remote),
            };
            if random.below(6) == 0 {
                all.push(made.failed(now_ns + MS, 111));
            } else {
                all.push(made.established());
                live.push((made, 0, 0));
            }
            continue;
        }
        let at = random.below(live.len() as u64) as usize;
        let (connection, sent, received) = &mut live[at];
        (*sent, *received) = (*sent + random.below(1000), *received + random.below(100_000));
        let moved = connection.moved(*sent, *received).troubled(*sent / 50, *sent / 100);
        match pick {
            3..6 => all.push(moved.progress(now_ns)),
            9 => all.push(moved.reset(now_ns)),
            _ => all.push(moved.closed(now_ns)),
        }
        if pick >= 6 {
            let gone = live.swap_remove(at).0;
            if random.below(4) == 0 {
                // The iterator was a moment late.
                all.push(gone.progress(now_ns));
            }
        }
    }
    all
}

/// The counters of a scrape, but for those of time.
fn counters(scrape: &str) -> BTreeSet<&str> {
    let not = ["#", "meshd_telemetry_lag", "meshd_telemetry_scrape", "meshd_telemetry_log_lines"];
    scrape.lines().filter(|line| !not.iter().any(|begin| line.starts_with(begin))).collect()
}

/// Feeds a history in batches to process after process, each ended between two records wherever `random` says, and returns the scrape.
fn told(records: &[Raw], config: &Config, random: &mut Random, lives: u64) -> String {
    let memory = Shared::default();
    let mut pipeline = Pipeline::resumed(config.clone(), memory.clone());
    let mut left = lives;
    loop {
        let begin = pipeline.recorder.positions().map_or(0, |positions| positions[0]) as usize;
        let end =
            if left > 0 { begin + random.below(records.len() as u64 / lives * 2) as usize } else { records.len() };
        let end = end.min(records.len());
        let mut at = begin;
        while at < end {
            let batch = 1 + random.below(256) as usize;
            let until = (at + batch).min(end);
            pipeline.feed(&records[at..until]);
            at = until;
            // The last batch is taken, perhaps shown, and not saved.
            if at < end || left == 0 {
                pipeline.recorder.commit(&[at as u64]);
            }
            if random.below(8) == 0 && at < end {
                pipeline.recorder.maintain(SECOND + at as u64 * 10 * MS);
            }
        }
        if left == 0 {
            return pipeline.scrape_at(SECOND + records.len() as u64 * 10 * MS);
        }
        left -= 1;
        drop(pipeline);
        pipeline = Pipeline::resumed(config.clone(), memory.clone());
    }
}

#[test]
fn a_process_that_ends_anywhere_loses_nothing_and_counts_nothing_twice() {
    let config = Config { max_series: 6, ..Config::default() };
    for seed in 1..=12 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let records = history(&mut random, 6000);
        let whole = told(&records, &config, &mut random, 0);
        assert!(sum(&whole, "kmesh_tcp_workload_connections_closed_total", &[]) > 1000, "{whole}");
        for lives in [1, 7, 40] {
            let cut = told(&records, &config, &mut random, lives);
            let (whole, cut) = (counters(&whole), counters(&cut));
            let differ: Vec<_> = whole.symmetric_difference(&cut).collect();
            assert!(differ.is_empty(), "seed {seed}, {lives} times: {differ:#?}");
        }
    }
}

#[test]
fn what_moved_while_no_program_was_attached_is_not_counted_after_a_restart_either() {
    let memory = Shared::default();
    let connection = Connection::outbound(1, SECOND, "10.244.0.17:40000", "10.244.0.13:8080");
    let mut before = Pipeline::resumed(Config::default(), memory.clone());
    before.feed([&connection.established(), &connection.moved(10, 0).progress(2 * SECOND)]);
    before.recorder.commit(&[2]);
    drop(before);

    let mut after = Pipeline::resumed(Config::default(), memory);
    after.switches.set(Switch::Monitoring, false);
    after.recorder.maintain(10 * SECOND);
    after.switches.set(Switch::Monitoring, true);
    after.feed([&connection.moved(500, 0).progress(11 * SECOND), &connection.moved(503, 0).progress(12 * SECOND)]);
    let scrape = after.scrape_at(12 * SECOND);
    assert_eq!(sum(&scrape, "kmesh_tcp_workload_sent_bytes_total", &[]), 13);
    assert_eq!(sum(&scrape, "kmesh_tcp_workload_connections_opened_total", &[]), 1);
}

#[test]
fn labels_of_many_series_are_saved_whatever_they_are() {
    let memory = Shared::default();
    let names: Vec<String> = (0..3000).map(|n| format!("n{n}-{}", "long\"name\n".repeat(n % 40))).collect();
    let feed = |pipeline: &mut Pipeline, from: usize| {
        let pods = names.iter().enumerate().map(|(n, name)| {
            let address = format!("10.{}.{}.1", 1 + n / 250, n % 250);
            crate::pipeline::pod(name, "shop", &[&address], None)
        });
        pipeline.cache.replace(pods, []);
        for n in from..names.len() {
            let remote = format!("10.{}.{}.1:80", 1 + n / 250, n % 250);
            let connection = Connection::outbound(n as u64 + 1, SECOND, "10.244.0.17:40000", &remote);
            pipeline.feed([&connection.established(), &connection.moved(n as u64, 1).progress(9 * SECOND)]);
            if n % 100 == 0 {
                pipeline.recorder.commit(&[n as u64 + 1]);
            }
        }
    };
    let mut before = Pipeline::resumed(Config::default(), memory.clone());
    feed(&mut before, 0);
    before.recorder.commit(&[names.len() as u64]);
    let shown = before.scrape_at(9 * SECOND);
    assert_eq!(sum(&shown, "kmesh_tcp_connection_sent_bytes_total", &[]), 2999 * 1500);
    drop(before);
    let mut after = Pipeline::resumed(Config::default(), memory);
    let again = after.scrape_at(9 * SECOND);
    assert_eq!(counters(&again), counters(&shown));
}
