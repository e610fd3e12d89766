//! What redirected sockets gain: the same conversations over TCP, redirected by `meshd`, and by the least program that redirects.

use anyhow::{Context as _, Result};
use tests::Meshd;

use super::{
    load::{MESSAGE, Order},
    long,
    samples::Samples,
    shortcut::Shortcut,
    worker::Worker,
    world::{Dial, Mode, PORTS, World},
};
use crate::{
    figure::{Figures, Target},
    machine,
};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds; in each, every way once.
    pub rounds: usize,
    /// How long short requests are made, ms.
    pub millis: u64,
    /// Round trips.
    pub trips: u64,
    /// Blocks of 128 KiB that go one way.
    pub blocks: u64,
}

/// How data goes from one pod to the other; `meshd` with all its telemetry runs in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Way {
    /// By TCP, over veth and bridge
    Off,
    /// Redirected by `meshd --accelerate`
    On,
    /// Redirected by the least program that can, beside a `meshd` that does not
    Floor,
}

/// Messages over a connection before it rests: enough for it to be redirected then.
pub const MESSAGES: u64 = 100;
/// Bytes of a message there and back, and of a short request.
pub const KIB: usize = 1024;
const BLOCK: usize = 128 << 10;

const RTT_ONE_CORE: &str = "round trip of 1 KiB, both ends on one core, us";
const RTT: &str = "round trip of 1 KiB, a core each, us";
const BULK_ONE_CORE: &str = "bulk, both ends on one core, ms a GiB";
const BULK: &str = "bulk, a core each, ms a GiB";
const SHORT: &str = "connect, 1 KiB, 1 KiB back, close, a core each, us";
const JOINED: &str = "sockets redirected meanwhile";

/// Measures all of it and returns a table of medians.
pub fn run(world: &World, ways: &[Way], plan: Plan, figures: &mut Figures) -> Result<String> {
    let mut samples = Samples::default();
    let (mut server, mut client) = (world.server(PORTS)?, world.client()?);
    for round in 0..=plan.rounds {
        // The order changes with the round, so that no way always follows the same one.
        for turn in 0..ways.len() {
            let way = ways[(round + turn) % ways.len()];
            let measured = Turn { world, plan, client: &mut client, server: &mut server, opened: 0, sent: 0 }
                .run(way)
                .with_context(|| format!("round {round}, {way:?}"))?;
            // The first round warms up.
            if round > 0 {
                measured.into_iter().for_each(|(what, value)| samples.push(what, way, value));
            }
        }
    }
    for (what, most) in [(RTT_ONE_CORE, 0.56), (RTT, 0.86), (BULK_ONE_CORE, 0.58), (BULK, 0.72), (SHORT, 1.03)] {
        samples.compare(figures, what, (Way::On, Way::Off), "on / off", Target::AtMost(most));
        samples.compare(figures, what, (Way::Floor, Way::Off), "the least program / off", Target::None);
    }
    Ok(samples.table(&[(Way::Off, "off"), (Way::On, "on"), (Way::Floor, "the least program")]))
}

struct Turn<'a> {
    world: &'a World,
    plan: Plan,
    client: &'a mut Worker,
    server: &'a mut Worker,
    /// Connections, and payload bytes from client to server.
    opened: u64,
    sent: u64,
}

impl Turn<'_> {
    fn run(mut self, way: Way) -> Result<Vec<(&'static str, f64)>> {
        let mode = if way == Way::On { Mode::Accelerated } else { Mode::On };
        let meshd = self.world.meshd(mode, &[])?.context("a meshd in that mode")?;
        let floor = (way == Way::Floor).then(|| Shortcut::attach(self.world.cgroup())).transpose()?;
        let last = machine::processors() - 1;
        self.pin(0, last)?;
        self.begin()?;
        if way == Way::On {
            meshd
                .eventually(|scrape| scrape.shows(JOINED_METRIC, &[], 2.0))
                .context("waiting for both ends to join")?;
        }
        let mut measured = vec![(RTT, self.round_trip()?), (BULK, self.bulk()?)];
        self.pin(0, 0)?;
        measured.extend([(RTT_ONE_CORE, self.round_trip()?), (BULK_ONE_CORE, self.bulk()?)]);
        measured.push((JOINED, joined(&meshd, floor.as_ref())?));
        self.client.ask(&Order::Release)?;
        self.pin(0, last)?;
        measured.push((SHORT, self.short()?));
        if floor.is_none() {
            self.all_was_counted(&meshd)?;
        }
        Ok(measured)
    }

    fn pin(&mut self, client: usize, server: usize) -> Result<()> {
        self.client.ask(&Order::Pin { processor: client })?;
        self.server.ask(&Order::Pin { processor: server })?;
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        let target = self.world.targets(Dial::Pod)[0];
        self.client.ask(&Order::Begin { target, messages: MESSAGES })?;
        self.opened += 1;
        self.sent += MESSAGE as u64 + long::sent(MESSAGE, MESSAGES);
        Ok(())
    }

    fn round_trip(&mut self) -> Result<f64> {
        let count = self.plan.trips;
        let done = self.client.ask(&Order::Trips { bytes: KIB, count })?;
        self.sent += long::sent(KIB, count);
        Ok(done.seconds * 1e6 / count as f64)
    }

    fn bulk(&mut self) -> Result<f64> {
        let count = self.plan.blocks;
        let done = self.client.ask(&Order::Flow { bytes: BLOCK, count })?;
        self.sent += long::sent(BLOCK, count);
        Ok(done.seconds * 1e3 * f64::from(1 << 30) / (BLOCK as f64 * count as f64))
    }

    fn short(&mut self) -> Result<f64> {
        let targets = self.world.targets(Dial::Pod);
        let done = self.client.ask(&Order::Short { targets, clients: 1, millis: self.plan.millis, bytes: KIB })?;
        self.opened += done.count;
        self.sent += done.count * KIB as u64;
        Ok(done.seconds * 1e6 / done.count as f64)
    }

    /// A time counts only if every connection and every byte of it was counted, at both ends. What the least program redirects nobody counts.
    fn all_was_counted(&self, meshd: &Meshd<'_>) -> Result<()> {
        meshd.eventually(|scrape| {
            for (reporter, bytes) in [("source", "sent"), ("destination", "received")] {
                let end = [("reporter", reporter)];
                scrape.shows("kmesh_tcp_workload_connections_closed_total", &end, self.opened as f64)?;
                scrape.shows(&format!("kmesh_tcp_workload_{bytes}_bytes_total"), &end, self.sent as f64)?;
            }
            Ok(())
        })?;
        Ok(())
    }
}

/// A gauge of `meshd`: sockets that are redirected now, two a pair.
const JOINED_METRIC: &str = "meshd_accelerate_joined";

/// Waits until both ends of the one connection that is open are redirected.
pub(super) fn wait_until_joined(meshd: &Meshd<'_>) -> Result<()> {
    meshd.eventually(|scrape| scrape.shows(JOINED_METRIC, &[], 2.0)).map(drop).context("waiting for both ends to join")
}

fn joined(meshd: &Meshd<'_>, floor: Option<&Shortcut>) -> Result<f64> {
    match floor {
        Some(floor) => Ok(floor.joined() as f64),
        None => Ok(meshd.scrape()?.total(JOINED_METRIC, &[])),
    }
}
