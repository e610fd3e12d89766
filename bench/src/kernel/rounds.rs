//! Rates, latency and throughput: off against on, interleaved, as ratios of medians.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use tests::Meshd;

use super::{
    least::Least,
    load::{MESSAGE, Order},
    process,
    worker::Worker,
    world::{Dial, Mode, PORTS, World},
};
use crate::{
    figure::{Figures, Number, Target, median},
    machine::{self, Busy},
};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds; in each, every mode once.
    pub rounds: usize,
    /// How long a rate is measured, ms.
    pub millis: u64,
    /// Round trips of a ping-pong.
    pub trips: u64,
}

const MODES: [Mode; 4] = [Mode::Off, Mode::Least, Mode::Steering, Mode::On];
const LEAST: usize = 1;
const STEERING: usize = 2;
const ON: usize = 3;

/// Measured values by what and in which mode.
type Samples = BTreeMap<(&'static str, usize), Vec<f64>>;

const RATE_1: &str = "connections a second, 1 client, a core each";
const RATE_8: &str = "connections a second, 8 clients, a core each";
const RATE_1_ONE_CORE: &str = "connections a second, 1 client, both on one core";
const CPU_1: &str = "CPU a connection, 1 client, a core each, us";
const CPU_8: &str = "CPU a connection, 8 clients, a core each, us";
const LOAD_8: &str = "of that client and server";
const MESHD_8: &str = "of that meshd";
const RTT_ONE_CORE: &str = "round trip of 64 B, both on one core, us";
const RTT: &str = "round trip of 64 B, a core each, us";
const BULK: &str = "bulk, a core each, Gbit/s";
const ROWS: [&str; 10] = [RATE_1, RATE_8, RATE_1_ONE_CORE, CPU_1, CPU_8, LOAD_8, MESHD_8, RTT_ONE_CORE, RTT, BULK];

/// Measures all of it and returns a table of medians by mode.
pub fn run(world: &World, plan: Plan, figures: &mut Figures) -> Result<String> {
    let mut samples = Samples::new();
    let mut server = world.server(PORTS)?;
    let mut client = world.client()?;
    for round in 0..=plan.rounds {
        // The order changes with the round, so that no mode always follows the same one.
        for turn in 0..MODES.len() {
            let mode = (round + turn) % MODES.len();
            let mut sample = BTreeMap::new();
            Turn { world, plan, client: &mut client, server: &mut server, made: 0 }
                .run(MODES[mode], &mut sample)
                .with_context(|| format!("round {round}, {:?}", MODES[mode]))?;
            // The first round warms up: frequencies, caches, tables that grow once.
            if round > 0 {
                sample.into_iter().for_each(|(what, value)| samples.entry((what, mode)).or_default().push(value));
            }
        }
    }
    report(&samples, figures);
    Ok(table(&samples))
}

struct Turn<'a> {
    world: &'a World,
    plan: Plan,
    client: &'a mut Worker,
    server: &'a mut Worker,
    made: u64,
}

struct Rate {
    a_second: f64,
    /// Processor time a connection, us: of everything, of client and server, of meshd.
    cpu: f64,
    load: f64,
    meshd: f64,
}

impl Turn<'_> {
    fn run(mut self, mode: Mode, sample: &mut BTreeMap<&'static str, f64>) -> Result<()> {
        let _least = (mode == Mode::Least).then(|| Least::attach(self.world.cgroup())).transpose()?;
        let meshd = self.world.meshd(mode, &[])?;
        let meshd = meshd.as_ref();
        let millis = self.plan.millis;
        self.pin(0, machine::processors() - 1)?;
        self.short(8, 200, None)?;
        let one = self.short(1, millis, meshd)?;
        let eight = self.short(8, millis, meshd)?;
        sample.extend([(RATE_1, one.a_second), (CPU_1, one.cpu), (RATE_8, eight.a_second)]);
        sample.extend([(CPU_8, eight.cpu), (LOAD_8, eight.load), (MESHD_8, eight.meshd)]);
        sample.insert(RTT, self.round_trip()?);
        let target = self.world.targets(Dial::Pod)[0];
        let bulk = self.client.ask(&Order::Bulk { target, millis })?;
        sample.insert(BULK, bulk.count as f64 * 8e-9 / bulk.seconds);
        self.pin(0, 0)?;
        sample.insert(RATE_1_ONE_CORE, self.short(1, millis, None)?.a_second);
        sample.insert(RTT_ONE_CORE, self.round_trip()?);
        self.made += 3;
        match (mode, meshd) {
            (Mode::On, Some(meshd)) => self.all_were_counted(meshd),
            _ => Ok(()),
        }
    }

    fn pin(&mut self, client: usize, server: usize) -> Result<()> {
        self.client.ask(&Order::Pin { processor: client })?;
        self.server.ask(&Order::Pin { processor: server })?;
        Ok(())
    }

    fn short(&mut self, clients: usize, millis: u64, meshd: Option<&Meshd<'_>>) -> Result<Rate> {
        let targets = self.world.targets(Dial::Pod);
        let meshd_cpu = || meshd.map_or(Ok(0.0), |m| process::cpu(m.pid()));
        let (load, of_meshd) = (self.client.cpu()? + self.server.cpu()?, meshd_cpu()?);
        let begin = Busy::now()?;
        let done = self.client.ask(&Order::Short { targets, clients, millis, bytes: MESSAGE })?;
        let busy = Busy::now()?.since(&begin);
        let (load, of_meshd) = (self.client.cpu()? + self.server.cpu()? - load, meshd_cpu()? - of_meshd);
        self.made += done.count;
        let each = |seconds: f64| seconds * 1e6 / done.count as f64;
        let a_second = done.count as f64 / done.seconds;
        Ok(Rate { a_second, cpu: each(busy.as_secs_f64()), load: each(load), meshd: each(of_meshd) })
    }

    fn round_trip(&mut self) -> Result<f64> {
        let target = self.world.targets(Dial::Pod)[0];
        let done = self.client.ask(&Order::PingPong { target, count: self.plan.trips })?;
        Ok(done.seconds * 1e6 / done.count as f64)
    }

    /// A rate counts only if every connection of it was counted, at both ends.
    fn all_were_counted(&self, meshd: &Meshd<'_>) -> Result<()> {
        meshd.eventually(|scrape| {
            for name in ["kmesh_tcp_connections_opened_total", "kmesh_tcp_workload_connections_closed_total"] {
                scrape.shows(name, &[("reporter", "source")], self.made as f64)?;
                scrape.shows(name, &[("reporter", "destination")], self.made as f64)?;
            }
            Ok(())
        })?;
        Ok(())
    }
}

fn ratio(samples: &Samples, what: &'static str, mode: usize) -> (f64, String) {
    let (off, on) = (&samples[&(what, 0)], &samples[&(what, mode)]);
    let mut pairs: Vec<_> = on.iter().zip(off).map(|(on, off)| on / off).collect();
    pairs.sort_by(f64::total_cmp);
    let note = format!(
        "{} / {}; single rounds {:.3} to {:.3}",
        Number(median(on)),
        Number(median(off)),
        pairs[0],
        pairs[pairs.len() - 1]
    );
    (median(on) / median(off), note)
}

fn report(samples: &Samples, figures: &mut Figures) {
    for (what, target) in [
        (RATE_1_ONE_CORE, Target::AtLeast(0.9)),
        (RATE_8, Target::AtLeast(0.9)),
        // Mostly the time that idle cores take to wake up.
        (RATE_1, Target::None),
        (CPU_1, Target::None),
        (CPU_8, Target::None),
        (RTT_ONE_CORE, Target::None),
        (RTT, Target::None),
        (BULK, Target::None),
    ] {
        let (value, note) = ratio(samples, what, ON);
        figures.add(&format!("{what}: on / off"), target, value, "", note);
        if matches!(target, Target::AtLeast(_)) {
            for (mode, name) in [(STEERING, "steering alone"), (LEAST, "programs that only return")] {
                let (value, note) = ratio(samples, what, mode);
                figures.add(&format!("{what}: {name} / off"), Target::None, value, "", note);
            }
        }
    }
}

fn table(samples: &Samples) -> String {
    let row = |what: &'static str| {
        let value = |mode| Number(median(&samples[&(what, mode)]));
        format!("| {what} | {} | {} | {} | {} |\n", value(0), value(LEAST), value(STEERING), value(ON))
    };
    let head =
        "| medians | off | programs that only return | steering alone | on |\n|---|---|---|---|---|\n".to_owned();
    ROWS.into_iter().fold(head, |table, what| table + &row(what))
}
