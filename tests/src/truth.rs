//! What really happened under traffic of which an account is kept, and whether a scrape says so.

use std::{collections::BTreeMap, fmt};

use crate::scrape::Scrape;
use anyhow::{Result, ensure};

/// Connections from one client workload to one server workload, all of them closed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Connections that were established.
    pub opened: u64,
    /// Connects that failed.
    pub failed: u64,
    /// Payload bytes from client to server.
    pub there: u64,
    /// Payload bytes from server to client.
    pub back: u64,
}

/// All of it, by client and server.
#[derive(Clone, Debug, Default)]
pub struct Truth(BTreeMap<(String, String), Tally>);

/// What the daemon says it lost.
#[derive(Clone, Copy, Debug)]
pub struct Lost {
    ends: f64,
    bytes: f64,
}

impl Truth {
    /// Returns the account of a pair.
    pub fn of(&mut self, client: &str, server: &str) -> &mut Tally {
        self.0.entry((client.to_owned(), server.to_owned())).or_default()
    }

    /// Adds up all pairs.
    pub fn total(&self) -> Tally {
        self.0.values().fold(Tally::default(), |sum, tally| Tally {
            opened: sum.opened + tally.opened,
            failed: sum.failed + tally.failed,
            there: sum.there + tally.there,
            back: sum.back + tally.back,
        })
    }

    /// Adds another account.
    pub fn add(&mut self, other: Self) {
        for ((client, server), tally) in other.0 {
            let sum = self.of(&client, &server);
            sum.opened += tally.opened;
            sum.failed += tally.failed;
            sum.there += tally.there;
            sum.back += tally.back;
        }
    }

    /// Says whether a scrape shows exactly this, in the workload metrics and in the service metrics, or less by exactly what it says was
    /// lost. Of `guests`, clients that were not managed all the time, what their own ends report is not compared.
    pub fn is_shown_by(&self, scrape: &Scrape, guests: &[&str]) -> Result<Lost> {
        let lost = Lost {
            ends: scrape.total("meshd_telemetry_lost_records_total", &[("kind", "closed_or_failed")]),
            bytes: scrape.total("meshd_telemetry_lost_bytes_total", &[]),
        };
        for prefix in ["kmesh_tcp_workload", "kmesh_tcp"] {
            let (mut ends, mut bytes) = (0.0, 0.0);
            for ((client, server), tally) in &self.0 {
                for (reporter, failed, sent, received) in
                    [("source", tally.failed, tally.there, tally.back), ("destination", 0, tally.back, tally.there)]
                {
                    if reporter == "source" && guests.contains(&client.as_str()) {
                        continue;
                    }
                    let pair = [("reporter", reporter), ("source_workload", client), ("destination_workload", server)];
                    let missing = |what: &str, truth: u64| -> Result<f64> {
                        let name = format!("{prefix}_{what}_total");
                        let shown = scrape.total(&name, &pair);
                        ensure!(
                            shown <= truth as f64 && (lost.is_some() || shown == truth as f64),
                            "{name}{pair:?} is {shown}, the truth {truth}, {lost:?}"
                        );
                        Ok(truth as f64 - shown)
                    };
                    // A lost end may have been an opened one that no one ever heard of.
                    missing("connections_opened", tally.opened)?;
                    ends += missing("connections_closed", tally.opened)? + missing("connections_failed", failed)?;
                    bytes += missing("sent_bytes", sent)? + missing("received_bytes", received)?;
                }
            }
            ensure!(ends <= lost.ends, "{prefix}: {ends} ends are missing, {lost:?}");
            ensure!(bytes == lost.bytes, "{prefix}: {bytes} bytes are missing, {lost:?}");
        }
        // Guests are adopted when they come back.
        let adopted: &[&str] = if guests.is_empty() { &["source", "destination"] } else { &["destination"] };
        for reporter in adopted {
            scrape.shows("meshd_connections_adopted_total", &[("reporter", reporter)], 0.0)?;
        }
        scrape.shows("meshd_telemetry_malformed_total", &[], 0.0)?;
        Ok(lost)
    }
}

impl Lost {
    /// Tells whether anything was.
    pub fn is_some(self) -> bool {
        self.ends > 0.0 || self.bytes > 0.0
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_some() {
            write!(f, ", less {} ends and {} bytes known as lost", self.ends, self.bytes)
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for Truth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { opened, failed, there, back } = self.total();
        write!(f, "{opened} connections, {failed} failed ones, {} bytes", there + back)
    }
}
