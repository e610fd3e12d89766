//! A daemon that does not get to run: nothing is lost, and what could be is counted.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tests::{Meshd, Scrape, meshd::ALL};

use crate::pair::{Pair, Truth};

/// Connections that stay open while it is stopped, some of which end meanwhile.
const KNOWN: u32 = 12;
const ENDING: u32 = 8;

#[test]
fn what_happened_while_it_was_stopped_is_in_every_number_afterwards() -> Result<()> {
    const CHURNED: u32 = 2500;
    const BYTES: u64 = 300;
    let mut pair = Pair::new("stopped")?;
    let direct = pair.direct();
    pair.server.ask(format_args!("serve {}:9090", pair.server_pod.v4))?;
    // Rings and maps that so many connections fill many times over. Every connection whose begin is in a ring may need room for its end.
    let flags = [ALL, &["--ring-slots=16", "--max-connections=1024"]].concat();
    let meshd = Meshd::start(&pair.sandbox, &pair.mesh(), &flags)?;
    let (client, server) = (&mut pair.client, &mut pair.server);
    for n in 0..KNOWN {
        client.open(&format!("k{n}"), &direct, "l", server)?;
        client.send(&format!("k{n}"), 1000, server)?;
    }
    let there = u64::from(KNOWN) * 1000;
    meshd.eventually(|s| Truth { opened: KNOWN, closed: 0, there, back: 0 }.is_shown(s))?;

    meshd.signal(Signal::SIGSTOP)?;
    let reply = client.ask(format_args!("churn {}:9090 {CHURNED} {BYTES}", pair.server_pod.v4))?;
    assert_eq!(reply.connections, u64::from(CHURNED));
    for n in 0..KNOWN {
        client.send(&format!("k{n}"), 50, server)?;
    }
    for n in 0..ENDING {
        client.close(&format!("k{n}"), server)?;
    }
    meshd.signal(Signal::SIGCONT)?;

    let moved = u64::from(CHURNED) * BYTES;
    let truth = Truth {
        opened: KNOWN + CHURNED,
        closed: ENDING + CHURNED,
        there: there + u64::from(KNOWN) * 50 + moved,
        back: moved,
    };
    let scrape = meshd.eventually(|s| truth.is_shown(s))?;
    for name in
        ["meshd_telemetry_lost_bytes_total", "meshd_telemetry_vanished_total", "meshd_telemetry_malformed_total"]
    {
        scrape.shows(name, &[], 0.0)?;
    }
    scrape.shows("meshd_telemetry_lost_records_total", &[("kind", "closed_or_failed")], 0.0)?;
    ensure!(scrape.total("meshd_telemetry_summed_total", &[]) > 1000.0, "too few to need sums");
    // Each end of each closed connection has its line, or is known to have none.
    let ends = 2.0 * f64::from(ENDING + CHURNED);
    let told = |s: &Scrape| {
        let dropped = s.total("meshd_telemetry_log_lines_dropped_total", &[]);
        let lines = meshd.access_log()?.iter().filter(|l| l.contains("state=BPF_TCP_CLOSE")).count();
        ensure!(dropped + lines as f64 == ends, "{dropped} dropped and {lines} written, not {ends}");
        ensure!(dropped == s.total("meshd_telemetry_summed_total", &[]), "others than those added up have none");
        Ok(())
    };
    meshd.eventually(told)?;

    // The self check has compared all of it with the kernel's totals.
    let checks = meshd.scrape()?.total("meshd_telemetry_checks_total", &[]);
    meshd.eventually(|s| {
        ensure!(s.total("meshd_telemetry_checks_total", &[]) > checks, "no check since");
        for of in ["closed", "failed", "sent_bytes", "received_bytes"] {
            s.shows("meshd_telemetry_accounted_ratio", &[("of", of)], 1.0)?;
        }
        Ok(())
    })?;

    // It goes on as before.
    client.send("k11", 5, server)?;
    client.close("k11", server)?;
    let truth = Truth { closed: truth.closed + 1, there: truth.there + 5, ..truth };
    meshd.eventually(|s| truth.is_shown(s)).map(drop)
}
