//! `meshd dump`: what the running daemon knows of the mesh.

mod answer;
mod table;

use std::{
    io::{self, BufReader, BufWriter, Read, Write},
    process::ExitCode,
};

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::{
    ask,
    cli::{
        Dump,
        dump::{Kind, Output},
    },
    sync::SERVICES,
};
use answer::{Considered, Interrupted, Port, Workload, read};
pub(crate) use table::Table;

/// What the daemon answers at.
const PATH: &str = "/debug/config_dump/dual-engine";

/// Asks the running daemon and prints what it says.
pub fn run(flags: &Dump) -> ExitCode {
    let path = if (flags.kind, flags.output) == (Kind::Services, Output::Table) { SERVICES } else { PATH };
    let printed = ask::get(flags.admin_address, path)
        .map_err(|error| format!("{error:#}"))
        .and_then(|answer| print(answer, flags, io::stdout().lock()));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            if !text.is_empty() {
                eprintln!("error: {text}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Fails with one line, which is empty where whoever reads `out` is gone.
fn print(answer: impl Read, flags: &Dump, out: impl Write) -> Result<(), String> {
    let (answer, mut out) = (BufReader::with_capacity(64 << 10, answer), BufWriter::with_capacity(64 << 10, out));
    let done = match (flags.kind, flags.output) {
        (kind, Output::Json) => json(answer, kind, &mut out),
        (Kind::Workloads, Output::Table) => workloads(answer, &mut out),
        (Kind::Services, Output::Table) => services(answer, &mut out),
    };
    done.and_then(|()| Ok(out.flush()?)).map_err(|error| match error {
        Interrupted::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => String::new(),
        Interrupted::Output(error) => format!("cannot write the dump: {error}"),
        Interrupted::Answer(error) => format!("meshd at {} gave no whole dump: {error}", flags.admin_address),
    })
}

/// A list, one element a line, as the daemon said it; no more than one element is held.
fn json(answer: impl Read, kind: Kind, out: &mut impl Write) -> Result<(), Interrupted> {
    let mut before = "[";
    let mut element = |element: Box<RawValue>| {
        write!(out, "{before}\n{element}")?;
        before = ",";
        Ok(())
    };
    match kind {
        Kind::Workloads => read(answer, &mut element, |_: IgnoredAny| Ok(())),
        Kind::Services => read(answer, |_: IgnoredAny| Ok(()), &mut element),
    }?;
    Ok(out.write_all(if before == "[" { b"[]\n" } else { b"\n]\n" })?)
}

fn workloads(answer: impl Read, out: &mut impl Write) -> Result<(), Interrupted> {
    let mut table = Table::new(&["NAMESPACE", "NAME", "ADDRESS", "NODE", "STATUS", "PROTOCOL", "WAYPOINT", "SERVICES"]);
    let row = |w: Workload| {
        let addresses = w.addresses.iter().map(|address| match w.network.as_str() {
            "" => address.to_string(),
            network => format!("{network}/{address}"),
        });
        let addresses = addresses.chain((!w.hostname.is_empty()).then(|| w.hostname.clone())).collect::<Vec<_>>();
        let services = w.services.keys().map(String::as_str).collect::<Vec<_>>();
        let waypoint = w.waypoint.as_ref().map_or("", |waypoint| shown(&waypoint.destination));
        let (addresses, services) = (addresses.join(","), services.join(","));
        table.row([&w.namespace, &w.name, &addresses, &w.node, &w.status, &w.protocol, waypoint, &services]);
        Ok(())
    };
    read(answer, row, |_: IgnoredAny| Ok(()))?;
    Ok(table.write(out)?)
}

/// What the kernel does with connects to each port of each service. An endpoint is an address and its weight, or a name and why it takes
/// nothing.
fn services(answer: impl Read, out: &mut impl Write) -> Result<(), Interrupted> {
    let ports: Vec<Port> = serde_json::from_reader(answer).map_err(Interrupted::Answer)?;
    let mut table = Table::new(&["SERVICE", "ADDRESS", "MODE", "GOES", "ENDPOINTS", "WAYPOINT", "WHY"]);
    for port in ports {
        let endpoint = |e: &Considered| match (&e.address, &e.excluded) {
            (Some(address), None) => format!("{address}*{}", e.weight),
            _ => [e.workload.as_deref(), e.excluded.as_deref()].map(Option::unwrap_or_default).join("!"),
        };
        let endpoints = port.endpoints.iter().map(endpoint).collect::<Vec<_>>().join(",");
        let [service, dialled, mode, waypoint] =
            [port.service, port.dialled, port.mode, port.waypoint].map(Option::unwrap_or_default);
        let why = port.why.replace(' ', "_");
        table.row([&service, &dialled, &mode, &port.verdict, &endpoints, &waypoint, &why]);
    }
    Ok(table.write(out)?)
}

/// `network/address` without the name of the default network, which is empty.
fn shown(address: &str) -> &str {
    address.strip_prefix('/').unwrap_or(address)
}

#[cfg(test)]
mod tests;
