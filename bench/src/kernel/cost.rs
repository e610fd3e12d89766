//! Program time a connection and program runs a packet, as the kernel counts them.

use anyhow::{Context as _, Result};

use super::{
    load::Order,
    programs::{Counting, Table},
    world::{Dial, Mode, PORTS, World},
};
use crate::figure::{Figures, Target};

/// No pull of open connections falls into what is measured.
const NEVER: &str = "--report-interval=1h";

/// Measures the program time of short connections and returns the table of programs. Both ends are managed and steering is on the
/// way, so each connection is steered, established twice and closed twice.
pub fn connection(world: &World, dial: Dial, count: u64, figures: &mut Figures) -> Result<String> {
    let meshd = world.meshd(Mode::On, &[NEVER])?.context("a meshd in that mode")?;
    let (_server, mut client) = (world.server(PORTS)?, world.client()?);
    let order = |count| Order::ShortExactly { targets: world.targets(dial), count };
    client.ask(&order(count / 10))?;
    let counting = Counting::begin()?;
    let begin = counting.read(meshd.pid())?;
    client.ask(&order(count))?;
    let programs = counting.read(meshd.pid())?.since(&begin);
    let table = Table { programs: &programs, per: count as f64, unit: "connection" };
    let note = format!("{:.1} runs, {count} connections, dialled by {dial:?}", table.runs());
    figures.add("program time a short connection", Target::AtMost(3.5), table.ns() / 1000.0, "us", note);
    Ok(table.to_string())
}

/// Measures how many programs run a packet of an established connection: what more packets add, so that the connection's own begin
/// and end do not count.
pub fn packet(world: &World, mode: Mode, target: Target, figures: &mut Figures) -> Result<()> {
    let meshd = world.meshd(mode, &[NEVER])?.context("a meshd in that mode")?;
    let (_server, mut client) = (world.server(PORTS)?, world.client()?);
    let counting = Counting::begin()?;
    let mut runs = |count| {
        let begin = counting.read(meshd.pid())?;
        client.ask(&Order::PingPong { target: world.targets(Dial::Vip)[0], count })?;
        anyhow::Ok(counting.read(meshd.pid())?.since(&begin).iter().map(|p| p.runs as f64).sum::<f64>())
    };
    let (few, many) = (1000, 11_000);
    let more = runs(many)? - runs(few)?;
    // A packet each way; each carries the other's acknowledgement.
    let packets = 2.0 * (many - few) as f64;
    let how = if mode == Mode::Packet { "packet" } else { "snapshot" };
    let name = format!("programs run a packet, `--progress {how}`");
    figures.add(
        &name,
        target,
        (more / packets * 100.0).round() / 100.0,
        "",
        format!("{more} runs in {packets} packets"),
    );
    Ok(())
}
