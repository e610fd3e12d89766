//! Metrics about the families themselves, of the same moment as their rows, so that exposed and retired add up.

use std::io;

use crate::{
    encode::{Encoder, Kind},
    families::{CONNECTION, Metric, SERVICE, WORKLOAD},
    series::{Slot, Standing},
};

/// Writes how full the families are and what left them.
pub(super) fn encode<const S: usize, const W: usize, const C: usize>(
    encoder: &mut Encoder<'_>,
    service: &Standing<S>,
    workload: &Standing<W>,
    connection: &Standing<C>,
) -> io::Result<()> {
    let families = [
        ("service", service.series, service.budget, service.overflowed),
        ("workload", workload.series, workload.budget, workload.overflowed),
        ("connection", connection.series, connection.budget, connection.overflowed),
    ];
    encoder.head("meshd_telemetry_series", "Label sets that a family has.", "", Kind::Gauge)?;
    for (family, series, ..) in families {
        encoder.sample("meshd_telemetry_series", "family", family, series as u64)?;
    }
    encoder.head(
        "meshd_telemetry_series_budget",
        "Label sets that a family may have before new ones count as other.",
        "",
        Kind::Gauge,
    )?;
    for (family, _, budget, _) in families {
        encoder.sample("meshd_telemetry_series_budget", "family", family, budget as u64)?;
    }
    encoder.head(
        "meshd_telemetry_overflow",
        "Connections and failures that count as other since their family was full.",
        "",
        Kind::Counter,
    )?;
    for (family, .., overflowed) in families {
        encoder.sample("meshd_telemetry_overflow_total", "family", family, overflowed)?;
    }
    encoder.head(
        "meshd_telemetry_retired",
        "What series held when they left, by the metric that they were of.",
        "",
        Kind::Counter,
    )?;
    retired(encoder, SERVICE, service)?;
    retired(encoder, WORKLOAD, workload)?;
    retired(encoder, CONNECTION, connection)
}

fn retired<const N: usize>(encoder: &mut Encoder<'_>, metrics: &[Metric], standing: &Standing<N>) -> io::Result<()> {
    for metric in metrics.iter().filter(|metric| !metric.alias) {
        let value = match metric.slot {
            Slot::Counter(n) => standing.retired[n],
            Slot::Closed => standing.retired[Slot::CLOSED],
            Slot::Failed => standing.retired_failed,
        };
        encoder.sample("meshd_telemetry_retired_total", "family", &format!("{}_total", metric.name), value)?;
    }
    Ok(())
}
