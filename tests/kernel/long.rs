//! Connections that stay open stay visible.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    LogLine, Meshd,
    meshd::ALL,
    retry::{DEADLINE, eventually},
};

use crate::pair::{Pair, Truth};

#[test]
fn an_idle_connection_has_series_and_lines_of_its_own_until_after_its_end() -> Result<()> {
    let mut pair = Pair::new("idle")?;
    let (sandbox, service) = (&pair.sandbox, pair.service());
    let meshd = Meshd::start(sandbox, &pair.mesh(), ALL)?;
    let (client, server) = (&mut pair.client, &mut pair.server);

    let local = client.open("a", &service, "l", server)?.to_string();
    client.send("a", 1234, server)?;
    // Three lines from each end, with nothing sent meanwhile.
    let periodic = || -> Result<Vec<LogLine>> {
        let lines = meshd.access_log()?.iter().map(|l| LogLine::parse(l)).collect::<Result<Vec<_>>>()?;
        Ok(lines.into_iter().filter(|l| l.has(&[("state", "BPF_TCP_ESTABLISHED")])).collect())
    };
    let lines = eventually(DEADLINE, || {
        let lines = periodic()?;
        for direction in ["INBOUND", "OUTBOUND"] {
            ensure!(lines.iter().filter(|l| l.has(&[("direction", direction)])).count() >= 3, "{lines:#?}");
        }
        Ok(lines)
    })?;
    for line in &lines {
        let duration: f64 = line.field("duration").trim_end_matches("ms").parse()?;
        assert!(duration > 1000.0, "not long yet: {}", line.text);
    }
    let remote = format!("{}:8080", pair.server_pod.v4);
    let series = |bytes| {
        let (local, remote) = (local.clone(), remote.clone());
        move |s: &tests::Scrape| -> Result<()> {
            for (reporter, name) in [("source", "sent"), ("destination", "received")] {
                let ends = [("reporter", reporter), ("source_address", &local), ("destination_address", &remote)];
                let name = format!("kmesh_tcp_connection_{name}_bytes_total");
                let series = s.only(&name, &ends)?;
                ensure!(series.value == bytes && series.labels.len() == 29, "{series:?}");
            }
            Ok(())
        }
    };
    let scrape = meshd.eventually(series(1234.0))?;
    let start = &scrape.only("kmesh_tcp_connection_sent_bytes_total", &[("reporter", "source")])?.labels["start_time"];
    let outbound = [("direction", "OUTBOUND"), ("start_time", start)];
    ensure!(lines.iter().filter(|l| l.has(&[("direction", "OUTBOUND")])).all(|l| l.has(&outbound)), "{lines:#?}");

    let connections: Value = serde_json::from_str(&meshd.get(15200, "/debug/connections")?.body)?;
    assert_eq!(connections.as_array().map(Vec::len), Some(2), "{connections:#}");

    // It moves, ends, and its last values stay.
    client.send("a", 1, server)?;
    meshd.eventually(series(1235.0))?;
    client.send("a", 1, server)?;
    client.close("a", server)?;
    meshd.eventually(|s| Truth { opened: 1, closed: 1, there: 1236, back: 0 }.is_shown(s))?;
    meshd.eventually(series(1236.0))?;
    meshd.logs(&[("state", "BPF_TCP_CLOSE"), ("sent_bytes", "1236"), outbound[1]])?;
    Ok(())
}

#[test]
fn a_short_connection_never_has_series_of_its_own() -> Result<()> {
    let mut pair = Pair::new("short")?;
    let (sandbox, direct) = (&pair.sandbox, pair.direct());
    let flags = [&ALL[..4], &["--report-interval=200ms", "--long-connection-threshold=1h"]].concat();
    let meshd = Meshd::start(sandbox, &pair.mesh(), &flags)?;
    let (client, server) = (&mut pair.client, &mut pair.server);
    client.open("a", &direct, "l", server)?;
    client.send("a", 50, server)?;
    // Reports show it while it is open: not long, but counted.
    meshd.eventually(|s| Truth { opened: 1, closed: 0, there: 50, back: 0 }.is_shown(s))?;
    client.close("a", server)?;
    let scrape = meshd.eventually(|s| Truth { opened: 1, closed: 1, there: 50, back: 0 }.is_shown(s))?;
    assert_eq!(scrape.select("kmesh_tcp_connection_sent_bytes_total", &[]).count(), 0);
    meshd.logs(&[("direction", "INBOUND")])?;
    meshd.logs(&[("direction", "OUTBOUND")])?;
    assert_eq!(meshd.access_log()?.len(), 2);
    Ok(())
}

#[test]
fn progress_by_packets_reports_a_connection_that_is_used() -> Result<()> {
    let mut pair = Pair::new("packet")?;
    let (sandbox, service) = (&pair.sandbox, pair.service());
    let flags = [ALL, &["--progress=packet"]].concat();
    let meshd = Meshd::start(sandbox, &pair.mesh(), &flags)?;
    let (client, server) = (&mut pair.client, &mut pair.server);
    client.open("a", &service, "l", server)?;
    let mut there = 0;
    // Only packets make reports: keep some coming until both ends have shown the connection.
    eventually(DEADLINE, || {
        client.send("a", 10, server)?;
        server.send("a", 10, client)?;
        there += 10;
        let scrape = meshd.scrape()?;
        scrape.only("kmesh_tcp_connection_sent_bytes_total", &[("reporter", "source")])?;
        scrape.only("kmesh_tcp_connection_sent_bytes_total", &[("reporter", "destination")]).map(drop)
    })?;
    client.close("a", server)?;
    meshd.eventually(|s| Truth { opened: 1, closed: 1, there, back: there }.is_shown(s))?;
    meshd.logs(&[("state", "BPF_TCP_ESTABLISHED"), ("direction", "OUTBOUND")])?;
    meshd.logs(&[("state", "BPF_TCP_ESTABLISHED"), ("direction", "INBOUND")]).map(drop)
}

#[test]
fn a_connection_begins_when_it_did() -> Result<()> {
    /// The kernel's clock and the system's are compared to well below this, s.
    const APART: f64 = 0.02;
    const DAY: f64 = 86_400.0;
    let mut pair = Pair::new("begins")?;
    let service = pair.service();
    let meshd = Meshd::start(&pair.sandbox, &pair.mesh(), ALL)?;
    let (client, server) = (&mut pair.client, &mut pair.server);
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs_f64() % DAY);
    for n in 0..5 {
        let name = format!("c{n}");
        let before = now()?;
        client.open(&name, &service, "l", server)?;
        let after = now()?;
        client.send(&name, n + 1, server)?;
        client.close(&name, server)?;
        let sent = (n + 1).to_string();
        for direction in [("direction", "OUTBOUND", "sent_bytes"), ("direction", "INBOUND", "received_bytes")] {
            let line = meshd.logs(&[(direction.0, direction.1), (direction.2, &sent), ("state", "BPF_TCP_CLOSE")])?;
            let start = line.field("start_time");
            let time = start.split(' ').nth(1).with_context(|| format!("a time in `{start}`"))?;
            let parts = time.split(':').map(str::parse::<f64>).collect::<Result<Vec<_>, _>>()?;
            let begin = parts.iter().fold(0.0, |sum, part| sum * 60.0 + part);
            // It may be midnight in between.
            let since = (begin - before + APART).rem_euclid(DAY);
            ensure!(
                since <= (after - before).rem_euclid(DAY) + 2.0 * APART,
                "{start} is not between {before} and {after}"
            );
        }
    }
    Ok(())
}
