//! `meshd explain`: which way a connection would go, as the running daemon says.

use std::{
    io::{self, Read, Write},
    process::ExitCode,
};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    ask,
    cli::{Explain, dump::Output},
    dump::Table,
    sync::EXPLAIN,
};

/// What is read of an answer.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    source: Option<String>,
    service: Option<String>,
    workload: Option<String>,
    mode: Option<String>,
    #[serde(default, rename = "routingPreference")]
    routing_preference: Vec<String>,
    waypoint: Option<String>,
    endpoints: Vec<Endpoint>,
    verdict: String,
    why: String,
}

/// An endpoint that was considered.
#[derive(Debug, Deserialize)]
struct Endpoint {
    workload: Option<String>,
    address: Option<String>,
    weight: u32,
    excluded: Option<String>,
}

/// Asks the running daemon and prints what it says.
pub fn run(flags: &Explain) -> ExitCode {
    let dst = flags.destination.to_string();
    let path = format!("{EXPLAIN}?src={}&dst={dst}", flags.source);
    let printed = ask::get(flags.admin_address, &path)
        .map_err(|error| format!("{error:#}"))
        .and_then(|answer| print(answer, flags, io::stdout().lock()).map_err(|error| error.to_string()));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("error: {text}");
            ExitCode::FAILURE
        }
    }
}

fn print(answer: impl Read, flags: &Explain, mut out: impl Write) -> anyhow::Result<()> {
    let answer: Value = serde_json::from_reader(answer)?;
    if flags.output == Output::Json {
        return Ok(writeln!(out, "{answer:#}")?);
    }
    let Answer { source, service, workload, mode, routing_preference, waypoint, endpoints, verdict, why } =
        serde_json::from_value(answer)?;
    let source = source.unwrap_or_default();
    let mut table = Table::new(&["SOURCE", &source]);
    table.row(["DIALLED", &flags.destination.to_string()]);
    for (of, name) in [("SERVICE", service), ("WORKLOAD", workload), ("MODE", mode), ("WAYPOINT", waypoint)] {
        table.row([of, &name.unwrap_or_default()]);
    }
    table.row(["PREFERENCE", &routing_preference.join(",")]);
    table.row(["VERDICT", &verdict]);
    table.write(&mut out)?;
    writeln!(out, "{}", why.escape_debug())?;
    if !endpoints.is_empty() {
        writeln!(out)?;
        let mut table = Table::new(&["WORKLOAD", "ADDRESS", "WEIGHT", "EXCLUDED"]);
        for e in endpoints {
            let [workload, address, excluded] = [e.workload, e.address, e.excluded].map(Option::unwrap_or_default);
            table.row([&workload, &address, &e.weight.to_string(), &excluded]);
        }
        table.write(&mut out)?;
    }
    Ok(())
}
