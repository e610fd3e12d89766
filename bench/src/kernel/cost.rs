//! Program time a connection and program runs a packet, as the kernel counts them.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use super::{
    least::{KEEPER, Least},
    load::{MESSAGE, Order},
    programs::{Counting, Program, Table},
    world::{Dial, Mode, PORTS, World},
};
use crate::{
    figure::{Figures, Target},
    machine,
};

/// No pull of open connections falls into what is measured.
const NEVER: &str = "--report-interval=1h";

/// Measures the program time of short connections, one client's on one core and eight clients' on a core each, and returns the tables
/// of programs. Both ends are managed and steering is on the way, so each connection is steered, established twice and closed twice.
/// Between its runs the same hooks run programs that only return.
pub fn connection(world: &World, dial: Dial, millis: u64, figures: &mut Figures) -> Result<String> {
    let (mut server, mut client) = (world.server(PORTS)?, world.client()?);
    let counting = Counting::begin()?;
    let mut tables = String::new();
    let last = machine::processors() - 1;
    for (how, clients, processor) in [("1 client, both ends on one core", 1, 0), ("8 clients, a core each", 8, last)] {
        client.ask(&Order::Pin { processor: 0 })?;
        server.ask(&Order::Pin { processor })?;
        let mut measure = |pid, dial| -> Result<Measured> {
            let order = |millis| Order::Short { targets: world.targets(dial), clients, millis, bytes: MESSAGE };
            client.ask(&order(millis / 10))?;
            let begin = counting.read(pid)?;
            let count = client.ask(&order(millis))?.count;
            Ok(Measured { programs: counting.read(pid)?.since(&begin), count })
        };
        let least = Least::attach(world.cgroup())?;
        // No one replaces a service's address now.
        let floor = measure(std::process::id(), Dial::Pod)?;
        drop(least);
        let meshd = world.meshd(Mode::Steering, &[])?.context("a meshd in that mode")?;
        let keeper = Least::attach_keeper(world.cgroup(), meshd.pid())?;
        let kept = measure(std::process::id(), Dial::Pod)?;
        drop((keeper, meshd));
        let meshd = world.meshd(Mode::On, &[NEVER])?.context("a meshd in that mode")?;
        let measured = measure(meshd.pid(), dial)?;
        drop(meshd);
        for (what, target, Measured { programs, count }) in
            [("", Target::AtMost(3.5), measured), ("programs that only return, ", Target::None, floor)]
        {
            let table = Table { programs: &programs, per: count as f64, unit: "connection" };
            let note = format!("{:.1} runs, {count} connections, dialled by {dial:?}", table.runs());
            let name = format!("program time a short connection, {what}{how}");
            figures.add(&name, target, table.ns() / 1000.0, "us", note);
            write!(tables, "{what}{how}:\n\n{table}\n")?;
            if let (Dial::Vip, Some(connect)) = (dial, programs.iter().find(|program| program.name == "connect4")) {
                let each = connect.ns as f64 / connect.runs as f64;
                let name = format!("connect4, a service's address dialled, storage included, {how}");
                // With eight clients most of it is waiting for what the other processor has.
                let target = if clients == 1 { Target::AtMost(400.0) } else { Target::None };
                figures.add(&name, target, each, "ns", format!("{} runs", connect.runs));
            }
        }
        let keeper = kept.programs.iter().find(|program| program.name == KEEPER).context("a program that ran")?;
        let name = format!("a program there that only makes the storage, {how}");
        figures.add(&name, Target::None, keeper.ns as f64 / keeper.runs as f64, "ns", format!("{} runs", keeper.runs));
    }
    Ok(tables)
}

struct Measured {
    programs: Vec<Program>,
    count: u64,
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
