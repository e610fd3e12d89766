//! From what happened to a connection to series and lines.

mod sums;

use std::{sync::Arc, time::Duration};

use abi::Record;
use nix::errno::Errno;

use super::{audit::Audit, kept::Kept};
use crate::{
    accesslog::{
        AccessLog,
        line::{Event, Line},
        time_text,
    },
    check::Totals,
    clock::Clock,
    config::Config,
    connections::{Change, Connection, Connections},
    families::{Ends, Families, ServiceHandle, Traffic, WorkloadHandle},
    labels::{ConnectionLabels, Flag, Reporter},
    selfmetrics::SelfMetrics,
    store::Store,
    switches::{Switch, Switches},
};

/// Where everything that is reported goes.
#[derive(Debug)]
pub(super) struct Report {
    families: Families,
    log: AccessLog,
    clock: Arc<Clock>,
    switches: Arc<Switches>,
    metrics: SelfMetrics,
    long_ns: u64,
    pub(super) audit: Audit,
    /// Some connection may have a series of its own.
    has_own_series: bool,
    /// Lines written and dropped that are counted.
    lines: (u64, u64),
}

impl Report {
    pub(super) fn new(
        config: &Config,
        families: Families,
        switches: Arc<Switches>,
        clock: Arc<Clock>,
        log: AccessLog,
        metrics: SelfMetrics,
    ) -> Self {
        let long_ns = u64::try_from(config.long_threshold.as_nanos()).unwrap_or(u64::MAX);
        let audit = Audit::default();
        Self { families, log, clock, switches, metrics, long_ns, audit, has_own_series: false, lines: (0, 0) }
    }

    /// Counts what a record changed of a connection that was open until then.
    pub(super) fn moved(&mut self, last: &Record, kept: &mut Kept, change: &Change) {
        if change.stale {
            self.metrics.discarded.stale.inc();
        }
        if kept.ignored.is_some() {
            let (sent, received) = (change.by.sent, change.by.received);
            self.audit.ignored.add(Totals { sent, received, ..Totals::default() });
            return;
        }
        if change.adopted {
            kept.adopted = true;
            match kept.reporter {
                Reporter::Source => self.metrics.adopted_source.inc(),
                Reporter::Destination => self.metrics.adopted_destination.inc(),
            }
        }
        self.hold(last, kept);
        let (traffic, now_ns) = (&change.by, last.now_ns);
        let counts = change.opened || *traffic != Traffic::default();
        if let Some(service) = &kept.service {
            if change.opened {
                service.opened(now_ns);
            }
            service.moved(traffic, now_ns);
            if counts {
                self.families.counted_service(service);
            }
        }
        if let Some(workload) = kept.workload.as_ref().filter(|_| self.switches.get(Switch::WorkloadMetrics)) {
            if change.opened {
                workload.opened(now_ns);
            }
            workload.moved(traffic, now_ns);
            if counts {
                self.families.counted_workload(workload);
            }
        }
        if let Some(own) = &kept.connection {
            own.moved(traffic, now_ns);
            if counts {
                self.families.counted_connection(own);
            }
        }
    }

    /// Tells whether a connection of this age, found open, is to be shown, since it is long by now.
    pub(super) fn is_due(&self, age_ns: u64, kept: &Kept) -> bool {
        let long = age_ns >= self.long_ns && kept.ignored.is_none();
        long && (self.lacks_own_series(kept) || self.switches.get(Switch::AccessLog))
    }

    /// Shows a connection that was found open by a report, if it is due; tells whether it has a new series of its own.
    pub(super) fn progress(&mut self, connection: &mut Connection<&mut Kept>, change: &Change) -> bool {
        if !self.is_due(connection.last.now_ns.saturating_sub(connection.begun_ns), connection.data) {
            return false;
        }
        let own = self.lacks_own_series(connection.data);
        if own {
            self.open_own_series(connection);
        }
        if self.switches.get(Switch::AccessLog) && !change.stale {
            let names = connection.data.names.clone();
            let begun = (connection.begun_ns, connection.begun_wall_ns);
            let line = self.line(Event::Open, &connection.last, begun, connection.data.adopted);
            self.log.push(Line { names, ..line });
        }
        own
    }

    fn lacks_own_series(&self, kept: &Kept) -> bool {
        kept.connection.is_none() && self.switches.get(Switch::ConnectionMetrics)
    }

    /// Counts the end of a connection, noticed at `now_ns`.
    pub(super) fn ended(&mut self, mut connection: Connection<Kept>, now_ns: u64) {
        if connection.data.ignored.is_some() {
            self.audit.ignored.add(Totals { closed: 1, ..Totals::default() });
            return;
        }
        connection.last.now_ns = connection.last.now_ns.max(now_ns);
        let now_ns = connection.last.now_ns;
        let reset = connection.last.flags & abi::record::flags::RESET != 0;
        let (last, kept) = (&connection.last, &mut connection.data);
        self.hold(last, kept);
        let workloads = self.switches.get(Switch::WorkloadMetrics);
        if reset {
            let ends = self.ends(last, kept);
            self.count_service(&ends, kept.reporter, Flag::Reset, |service| service.closed(now_ns), now_ns);
            if workloads {
                self.count_workload(&ends, kept.reporter, Flag::Reset, |workload| workload.closed(now_ns), now_ns);
            }
        } else {
            if let Some(service) = &kept.service {
                service.closed(now_ns);
                self.families.counted_service(service);
            }
            if let Some(workload) = kept.workload.as_ref().filter(|_| workloads) {
                workload.closed(now_ns);
                self.families.counted_workload(workload);
            }
        }
        if let Some(own) = kept.connection.take() {
            own.leave(now_ns);
        }
        if self.switches.get(Switch::AccessLog) {
            let begun = (connection.begun_ns, connection.begun_wall_ns);
            let line = self.line(Event::Closed, &connection.last, begun, connection.data.adopted);
            self.log.push(Line { names: connection.data.names, ..line });
        }
    }

    /// Counts a failed connect.
    pub(super) fn failed(&mut self, record: &Record, kept: Kept) {
        if kept.ignored.is_some() {
            self.audit.ignored.add(Totals { failed: 1, ..Totals::default() });
            return;
        }
        let (ends, flag, now_ns) = (self.ends(record, &kept), failure(record), record.now_ns);
        self.count_service(&ends, kept.reporter, flag, |service| service.failed(now_ns), now_ns);
        if self.switches.get(Switch::WorkloadMetrics) {
            self.count_workload(&ends, kept.reporter, flag, |workload| workload.failed(now_ns), now_ns);
        }
        if self.switches.get(Switch::AccessLog) {
            let begun = (record.start_ns, self.clock.wall_ns(record.start_ns));
            let line = self.line(Event::Failed, record, begun, kept.adopted);
            self.log.push(Line { names: kept.names, ..line });
        }
    }

    /// Hands lines over, lets series of their own go where they were switched off, and publishes.
    pub(super) fn maintain(&mut self, connections: &mut Connections<Kept>, store: &Store, now_ns: u64) {
        if self.has_own_series && !self.switches.effective(Switch::ConnectionMetrics) {
            self.has_own_series = false;
            connections.change(store, |kept| {
                kept.connection.take().is_some_and(|own| {
                    own.leave(now_ns);
                    true
                })
            });
        }
        self.families.maintain(now_ns);
        self.log.hand_over();
        let lines = (self.log.written(), self.log.dropped());
        self.metrics.log_lines.inc_by(lines.0.saturating_sub(self.lines.0));
        self.metrics.log_dropped.inc_by(lines.1.saturating_sub(self.lines.1));
        self.lines = lines;
    }

    /// Returns what the series of services hold, and those that were retired.
    pub(super) fn totals(&self) -> Totals {
        self.families.totals()
    }

    /// Waits until queued lines are through, for at most `limit`.
    pub(super) fn flush(&mut self, limit: Duration) -> bool {
        self.log.flush(limit)
    }

    /// The series, for who saves them and puts them back.
    pub(super) fn families(&mut self) -> &mut Families {
        &mut self.families
    }

    /// Notes that a connection was put back.
    pub(super) fn found(&mut self, kept: &Kept) {
        self.has_own_series |= kept.connection.is_some();
    }

    fn count_service(
        &mut self,
        ends: &Ends,
        reporter: Reporter,
        flag: Flag,
        count: impl FnOnce(&ServiceHandle),
        now_ns: u64,
    ) {
        let service = self.families.service(ends, reporter, flag, now_ns);
        count(&service);
        self.families.counted_service(&service);
    }

    fn count_workload(
        &mut self,
        ends: &Ends,
        reporter: Reporter,
        flag: Flag,
        count: impl FnOnce(&WorkloadHandle),
        now_ns: u64,
    ) {
        let workload = self.families.workload(ends, reporter, flag, now_ns);
        count(&workload);
        self.families.counted_workload(&workload);
    }

    /// Takes hold of the series that a connection counts into and has no hold of yet.
    fn hold(&mut self, last: &Record, kept: &mut Kept) {
        let workloads = self.switches.get(Switch::WorkloadMetrics);
        if kept.service.is_some() && (kept.workload.is_some() || !workloads) {
            return;
        }
        let ends = self.ends(last, kept);
        let (families, reporter, now_ns) = (&mut self.families, kept.reporter, last.now_ns);
        kept.service.get_or_insert_with(|| families.service(&ends, reporter, Flag::None, now_ns));
        if workloads {
            kept.workload.get_or_insert_with(|| families.workload(&ends, reporter, Flag::None, now_ns));
        }
    }

    fn open_own_series(&mut self, connection: &mut Connection<&mut Kept>) {
        let (last, kept) = (&connection.last, &mut *connection.data);
        let ends = self.ends(last, kept);
        let (source, destination) = addresses(last, kept.reporter);
        let labels = ConnectionLabels {
            start_time: &time_text(connection.begun_wall_ns),
            source_address: source.into(),
            destination_address: destination.into(),
        };
        let own = self.families.connection(&ends, kept.reporter, labels, last.now_ns);
        let Record { sent, received, retransmits, lost, .. } = *last;
        own.moved(&Traffic { sent, received, retransmits, lost }, last.now_ns);
        self.families.counted_connection(&own);
        kept.connection = Some(own);
        self.has_own_series = true;
    }

    fn ends(&mut self, record: &Record, kept: &Kept) -> Ends {
        let names = &kept.names;
        let reached = addresses(record, kept.reporter).1.ip();
        self.families.ends(names.source.as_deref(), names.destination.as_deref(), reached, names.service.as_deref())
    }

    /// Makes a line without names, which the caller adds: a connection that ends gives its own away.
    fn line(&self, event: Event, record: &Record, (begun_ns, start_ns): (u64, u64), adopted: bool) -> Line {
        Line {
            event,
            record: *record,
            names: Default::default(),
            time_ns: self.clock.wall_ns(record.now_ns),
            start_ns,
            age_ns: record.now_ns.saturating_sub(begun_ns),
            adopted,
        }
    }
}

/// Returns who opened a connection and who accepted it.
fn addresses(record: &Record, reporter: Reporter) -> (abi::Endpoint, abi::Endpoint) {
    match reporter {
        Reporter::Source => (record.local, record.remote),
        Reporter::Destination => (record.remote, record.local),
    }
}

/// Says why a connect failed.
fn failure(record: &Record) -> Flag {
    if record.flags & abi::record::flags::NO_HEALTHY_ENDPOINT != 0 {
        return Flag::NoHealthyEndpoint;
    }
    if record.error == 0 {
        return Flag::ConnectAbandoned;
    }
    match Errno::from_raw(record.error.cast_signed()) {
        Errno::ECONNREFUSED => Flag::ConnectRefused,
        Errno::ETIMEDOUT => Flag::ConnectTimeout,
        Errno::EHOSTUNREACH | Errno::ENETUNREACH => Flag::ConnectUnreachable,
        _ => Flag::Connect,
    }
}
