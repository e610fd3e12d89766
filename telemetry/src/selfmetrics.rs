//! The pipeline's measure of itself: how much it took in, what it lost and how late it is.

use prometheus::{
    Error, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};

/// The process's metrics about telemetry, each a held handle; made once and registered.
#[derive(Clone, Debug)]
pub struct SelfMetrics {
    /// Records taken in, by kind.
    pub records: Records,
    /// Records of unknown kind, size or content.
    pub malformed: IntCounter,
    /// Connections of which neither end is known to the mesh.
    pub unattributed: IntCounter,
    /// Records of which nothing came, by reason.
    pub discarded: Discarded,
    /// Connections not reported because both ends are the pod's own loopback.
    pub ignored_loopback: IntCounter,
    /// Connections not reported because the node itself opened them.
    pub ignored_node: IntCounter,
    /// What the kernel could not tell.
    pub lost: Lost,
    /// Records that came by way of the aside map.
    pub aside: IntCounter,
    /// Ends of connections that came added up.
    pub summed: IntCounter,
    /// Connections that the kernel counted, by event.
    pub kernel: Kernel,
    /// What part of ended connections is in metrics.
    pub accounted: Accounted,
    /// Self checks made.
    pub checks: IntCounter,
    /// Access-log lines written.
    pub log_lines: IntCounter,
    /// Access-log lines dropped, since the queue was full or the writer failed.
    pub log_dropped: IntCounter,
    /// Connections known to be open.
    pub connections: IntGauge,
    /// Connections for which the table of connections had no room.
    pub connections_overflow: IntCounter,
    /// Connections, series and texts for which there was no memory to save them.
    pub unsaved: IntCounter,
    /// Connections that were open before anyone watched them, opened here.
    pub adopted_source: IntCounter,
    /// Connections that were open before anyone watched them, accepted here.
    pub adopted_destination: IntCounter,
    /// Connections taken as closed since they were gone from a whole snapshot.
    pub vanished: IntCounter,
    /// Seconds from a record's making in the kernel to the counters it changed.
    pub lag: Histogram,
    /// Seconds that a scrape took to write.
    pub scrape: Histogram,
    map_entries: IntGaugeVec,
    map_capacity: IntGaugeVec,
}

/// Records taken in, by kind.
#[derive(Clone, Debug)]
pub struct Records {
    /// Established.
    pub established: IntCounter,
    /// Closed.
    pub closed: IntCounter,
    /// Failed.
    pub failed: IntCounter,
    /// Progress.
    pub progress: IntCounter,
    /// Open connections in which a pass found nothing new.
    pub quiet: IntCounter,
}

/// Records of which nothing came, since others told the same.
#[derive(Clone, Debug)]
pub struct Discarded {
    /// Established records of connections already known to be open.
    pub repeated: IntCounter,
    /// Records of connections that had ended, and of failures already told.
    pub late: IntCounter,
    /// Records with a total lower than one told before; what rose was taken.
    pub stale: IntCounter,
}

/// What found no room on its way from the kernel.
#[derive(Clone, Debug)]
pub struct Lost {
    /// Established records; the next snapshot or the close supplies what they told.
    pub established: IntCounter,
    /// Progress records; the next one supplies what they told.
    pub progress: IntCounter,
    /// Closes and failures, for good.
    pub connections: IntCounter,
    /// Payload bytes sent that are in no metric.
    pub sent_bytes: IntCounter,
    /// Payload bytes received that are in no metric.
    pub received_bytes: IntCounter,
    /// Sockets without storage, so never seen.
    pub no_storage: IntCounter,
}

/// What part of what the kernel said of ended connections is in metrics; 1 is all.
#[derive(Clone, Debug)]
pub struct Accounted {
    /// Closed connections.
    pub closed: Gauge,
    /// Failed connects.
    pub failed: Gauge,
    /// Payload bytes sent.
    pub sent_bytes: Gauge,
    /// Payload bytes received.
    pub received_bytes: Gauge,
}

/// What the kernel counted.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Established.
    pub established: IntCounter,
    /// Closed.
    pub closed: IntCounter,
    /// Failed.
    pub failed: IntCounter,
}

impl SelfMetrics {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    /// Where the registry has a metric of one of these names already.
    pub fn register(registry: &Registry) -> Result<Self, Error> {
        let make = Maker { registry };
        let [established, closed, failed, progress, quiet] = make.counters(
            "meshd_telemetry_records_total",
            "Records taken in from the kernel, by kind; quiet are open connections in which a pass found nothing new.",
            "kind",
            ["established", "closed", "failed", "progress", "quiet"],
        )?;
        let records = Records { established, closed, failed, progress, quiet };
        let [repeated, late, stale] = make.counters(
            "meshd_telemetry_discarded_total",
            "Records of which nothing came: others had told the same, or later.",
            "reason",
            ["repeated", "late", "stale"],
        )?;
        let discarded = Discarded { repeated, late, stale };
        let [ignored_loopback, ignored_node] = make.counters(
            "meshd_telemetry_ignored_total",
            "Connections that are not reported: a pod's own loopback, or its node's probes.",
            "reason",
            ["loopback", "node"],
        )?;
        let [established, closed, failed] = make.counters(
            "meshd_telemetry_kernel_connections_total",
            "Connections of managed pods as the kernel programs counted them, by event.",
            "event",
            ["established", "closed", "failed"],
        )?;
        let kernel = Kernel { established, closed, failed };
        let [adopted_source, adopted_destination] = make.counters(
            "meshd_connections_adopted_total",
            "Connections that were open before anyone watched them.",
            "reporter",
            ["source", "destination"],
        )?;
        Ok(Self {
            records,
            malformed: make.counter(
                "meshd_telemetry_malformed_total",
                "Records of unknown kind, size or content, which were skipped.",
            )?,
            unattributed: make.counter(
                "meshd_telemetry_unattributed_total",
                "Connections of which neither end is known to the mesh.",
            )?,
            discarded,
            ignored_loopback,
            ignored_node,
            lost: make.lost()?,
            aside: make.counter(
                "meshd_telemetry_aside_total",
                "Closes and failures that found the ring full and came by way of the aside map.",
            )?,
            summed: make.counter(
                "meshd_telemetry_summed_total",
                "Closes and failures that found no room of their own and came added up: they are in every metric, but have no log line.",
            )?,
            kernel,
            accounted: make.accounted()?,
            checks: make.counter("meshd_telemetry_checks_total", "Comparisons of metrics with the kernel's totals.")?,
            log_lines: make.counter("meshd_telemetry_log_lines_total", "Access-log lines written.")?,
            log_dropped: make.counter(
                "meshd_telemetry_log_lines_dropped_total",
                "Access-log lines dropped because the queue was full or the output failed.",
            )?,
            connections: make.gauge("meshd_telemetry_connections", "Connections known to be open.")?,
            connections_overflow: make.counter(
                "meshd_telemetry_connections_overflow_total",
                "Connections for which the table of connections had no room.",
            )?,
            unsaved: make.counter(
                "meshd_telemetry_unsaved_total",
                "Times that there was no memory to save something new: a restart forgets that series or label text; a connection is left out until it ends, and then has its whole totals.",
            )?,
            adopted_source,
            adopted_destination,
            vanished: make.counter(
                "meshd_telemetry_vanished_total",
                "Connections taken as closed because they were gone from a whole snapshot.",
            )?,
            lag: make.histogram(
                "meshd_telemetry_lag_seconds",
                "Time from a record's making in the kernel to the counters that it changed.",
                vec![0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0],
            )?,
            scrape: make.histogram(
                "meshd_telemetry_scrape_duration_seconds",
                "Time that a scrape took to encode and write.",
                vec![0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0],
            )?,
            map_entries: make.gauges("meshd_telemetry_map_entries", "Entries of a kernel map.", "map")?,
            map_capacity: make.gauges("meshd_telemetry_map_capacity", "Entries that a kernel map can hold.", "map")?,
        })
    }

    /// Iterates over the counters that go on across a restart, in the order in which they are saved.
    pub(crate) fn saved(&self) -> impl Iterator<Item = &IntCounter> {
        let (records, discarded, lost, kernel) = (&self.records, &self.discarded, &self.lost, &self.kernel);
        [
            [&records.established, &records.closed, &records.failed, &records.progress],
            [&discarded.repeated, &discarded.late, &discarded.stale, &self.malformed],
            [&lost.established, &lost.progress, &lost.connections, &lost.sent_bytes],
            [&lost.received_bytes, &lost.no_storage, &kernel.established, &kernel.closed],
            [&kernel.failed, &self.unattributed, &self.ignored_loopback, &self.ignored_node],
            [&self.aside, &self.log_lines, &self.log_dropped, &self.connections_overflow],
            [&self.adopted_source, &self.adopted_destination, &self.vanished, &self.summed],
        ]
        .into_iter()
        .flatten()
        .chain([&records.quiet])
    }

    /// Returns the gauges of a kernel map's entries and capacity; `map` is one of the names in [`abi::maps`].
    #[expect(clippy::disallowed_methods, reason = "one label of a closed set: no two values are hashed as one")]
    pub fn map(&self, map: &'static str) -> (IntGauge, IntGauge) {
        (self.map_entries.with_label_values(&[map]), self.map_capacity.with_label_values(&[map]))
    }
}

/// Makes metrics and registers them.
struct Maker<'a> {
    registry: &'a Registry,
}

impl Maker<'_> {
    fn add<C: Collector + Clone + 'static>(&self, metric: Result<C, Error>) -> Result<C, Error> {
        let metric = metric?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.add(IntCounter::new(name, help))
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.add(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, label: &str) -> Result<IntGaugeVec, Error> {
        self.add(IntGaugeVec::new(Opts::new(name, help), &[label]))
    }

    fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Result<Histogram, Error> {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
    }

    /// One counter for each value of a closed set.
    #[expect(clippy::disallowed_methods, reason = "one label of a closed set: no two values are hashed as one")]
    fn counters<const N: usize>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: [&str; N],
    ) -> Result<[IntCounter; N], Error> {
        let all = self.add(IntCounterVec::new(Opts::new(name, help), &[label]))?;
        Ok(values.map(|value| all.with_label_values(&[value])))
    }

    #[expect(clippy::disallowed_methods, reason = "one label of a closed set: no two values are hashed as one")]
    fn accounted(&self) -> Result<Accounted, Error> {
        let all = self.add(GaugeVec::new(
            Opts::new(
                "meshd_telemetry_accounted_ratio",
                "What part of the kernel's totals of ended connections is in metrics, known losses apart; 1 is all.",
            ),
            &["of"],
        ))?;
        let of = |value: &str| {
            let gauge = all.with_label_values(&[value]);
            gauge.set(1.0);
            gauge
        };
        Ok(Accounted {
            closed: of("closed"),
            failed: of("failed"),
            sent_bytes: of("sent_bytes"),
            received_bytes: of("received_bytes"),
        })
    }

    fn lost(&self) -> Result<Lost, Error> {
        let [established, progress, connections] = self.counters(
            "meshd_telemetry_lost_records_total",
            "Records that found no room on their way from the kernel; of established and progress ones later records tell the same.",
            "kind",
            ["established", "progress", "closed_or_failed"],
        )?;
        let [sent_bytes, received_bytes] = self.counters(
            "meshd_telemetry_lost_bytes_total",
            "Payload bytes of lost connections, which are in no other metric.",
            "direction",
            ["sent", "received"],
        )?;
        let no_storage = self.counter(
            "meshd_telemetry_no_storage_total",
            "Sockets for which the kernel had no storage, so that they were not observed.",
        )?;
        Ok(Lost { established, progress, connections, sent_bytes, received_bytes, no_storage })
    }
}
