//! The record path: one raw record in, counters and a log line out. Owned by the one record thread; nothing here waits.

mod audit;
mod kept;
mod report;
mod saved;
mod sums;

use std::{sync::Arc, time::Duration};

use abi::{Direction, Kind, Record, TcpState, maps::counter};
use cache::Cache;
use prometheus::Registry;
use zerocopy::FromBytes;

use crate::{
    accesslog::AccessLog,
    attribute::NodeAddresses,
    check::Check,
    clock::Clock,
    config::Config,
    connections::{Change, Connections, Left, Step},
    exposition::Exposition,
    families::Families,
    selfmetrics::SelfMetrics,
    store::{Heap, Saved, Store},
    switches::{Switch, Switches},
    view::ConnectionView,
};
pub(crate) use kept::Kept;
use kept::Naming;
use report::Report;

/// Of how many lifecycle records one has its lag measured; the first after each [`Recorder::maintain`] always has.
const LAG_SAMPLE: u32 = 64;
/// Rings there may be.
const POSITIONS: usize = abi::ring::MAX_RINGS as usize;
/// Connections that end together in what is saved.
const SAVED_AT_ONCE: usize = 256;

/// Takes records and keeps what they tell.
#[derive(Debug)]
pub struct Recorder {
    connections: Connections<Kept>,
    naming: Naming,
    clock: Arc<Clock>,
    report: Report,
    switches: Arc<Switches>,
    metrics: SelfMetrics,
    check: Check,
    kernel: [u64; counter::COUNT as usize],
    /// How often monitoring had been turned on when last looked at.
    watches: u32,
    /// When monitoring was last seen off.
    unwatched_ns: u64,
    lag_in: u32,
    now_ns: u64,
    store: Store,
    /// The image was made by a process before.
    found: bool,
    /// Where each ring goes on, as far as records were taken.
    positions: [u64; POSITIONS],
    /// The first time that monitoring is turned on goes on where a process before ended.
    resumes: bool,
    /// Connections that ended, as far as they are saved.
    ended: u64,
    /// What could not be saved, as far as it is counted.
    unsaved: u64,
}

/// Builds the record path and what scrapes read of it; nothing of it outlives the process.
pub fn new(
    config: Config,
    cache: Arc<Cache>,
    switches: Arc<Switches>,
    node: Arc<NodeAddresses>,
    clock: Arc<Clock>,
    log: AccessLog,
) -> (Recorder, Arc<Exposition>) {
    let saved = Saved::open(Box::new(Heap::default())).expect("memory of this process is there and empty");
    resume(config, cache, switches, node, clock, log, saved)
}

/// Builds the record path and goes on from what was saved. Switches are set after, as they are to be, before the first record.
pub fn resume(
    config: Config,
    cache: Arc<Cache>,
    switches: Arc<Switches>,
    node: Arc<NodeAddresses>,
    clock: Arc<Clock>,
    log: AccessLog,
    saved: Saved,
) -> (Recorder, Arc<Exposition>) {
    let Saved { store, found, before, watched, replaced } = saved;
    let registry = Registry::new();
    let metrics = SelfMetrics::register(&registry).expect("a new registry has none of these names");
    let families = Families::new(config.max_series, config.cluster_id.clone());
    let exposition = Arc::new(Exposition::new(families.reader(), registry, metrics.scrape.clone()));
    let mut recorder = Recorder {
        connections: Connections::new(config.max_connections).with_history(config.adopt_history),
        naming: Naming::new(cache, node, metrics.clone(), config.include_node_traffic),
        report: Report::new(&config, families, switches.clone(), clock.clone(), log, metrics.clone()),
        clock,
        watches: switches.times_monitored(),
        switches,
        metrics,
        check: Check::default(),
        kernel: [0; counter::COUNT as usize],
        unwatched_ns: 0,
        lag_in: 0,
        now_ns: 0,
        store,
        found: before && !replaced,
        positions: [0; POSITIONS],
        resumes: false,
        ended: 0,
        unsaved: 0,
    };
    recorder.restore(&found, watched, Clock::monotonic_ns());
    if replaced {
        recorder.kernel = Default::default();
    }
    (recorder, exposition)
}

impl Recorder {
    /// Takes one raw record, from the ring, the aside map or an iterator. What is no record is counted and skipped, and while
    /// monitoring is off nothing is taken at all.
    pub fn record(&mut self, bytes: &[u8]) {
        if !self.switches.get(Switch::Monitoring) {
            return;
        }
        let watches = self.switches.times_monitored();
        if watches != self.watches {
            // Turned on once and for the first time, it goes on where a process before ended.
            let goes_on = std::mem::take(&mut self.resumes) && watches == self.watches.wrapping_add(1);
            self.watches = watches;
            if !goes_on {
                self.connections.watch_again(self.unwatched_ns);
            }
        }
        match decode(bytes) {
            Some((kind, direction, record)) => self.take(kind, direction, &record),
            None => self.metrics.malformed.inc(),
        }
    }

    fn take(&mut self, kind: Kind, direction: Direction, record: &Record) {
        let records = &self.metrics.records;
        match kind {
            Kind::Established => records.established.inc(),
            Kind::Closed => records.closed.inc(),
            Kind::Failed => records.failed.inc(),
            Kind::Progress => records.progress.inc(),
        }
        if record.flags & abi::record::flags::ASIDE != 0 {
            self.metrics.aside.inc();
        }
        if kind == Kind::Failed {
            self.take_failed(direction, record);
        } else {
            self.observe(kind, direction, record);
        }
        if kind != Kind::Progress {
            self.sample_lag(record);
        }
    }

    fn take_failed(&mut self, direction: Direction, record: &Record) {
        if self.connections.observe_failed(record) {
            let record = &self.naming.located(record);
            let kept = self.naming.keep(record, direction);
            self.report.failed(record, kept);
        } else {
            self.metrics.discarded.late.inc();
        }
    }

    fn observe(&mut self, kind: Kind, direction: Direction, record: &Record) {
        let (naming, clock) = (&self.naming, &self.clock);
        let keep = |record: &Record, begun_ns: u64| (naming.keep(record, direction), clock.wall_ns(begun_ns));
        match self.connections.observe(&mut self.store, kind, record, keep) {
            Step::Live(mut connection, change) => {
                naming.name(record, connection.data);
                self.report.moved(&connection.last, connection.data, &change);
                if kind == Kind::Progress && self.report.progress(&mut connection, &change) {
                    self.connections.changed(&self.store, record.cookie);
                }
            }
            Step::Ended(mut connection, change) => {
                naming.name(record, &mut connection.data);
                self.report.moved(&connection.last, &mut connection.data, &change);
                self.report.ended(connection, record.now_ns);
            }
            Step::Replaced(connection) => {
                self.metrics.vanished.inc();
                self.report.audit.vanish(&connection.last);
                self.report.ended(connection, record.now_ns);
                self.observe(kind, direction, record);
            }
            Step::Nothing(Left::Repeated) => self.metrics.discarded.repeated.inc(),
            Step::Nothing(Left::Late) => self.metrics.discarded.late.inc(),
            Step::Nothing(Left::Full) => {
                if kind == Kind::Established {
                    self.metrics.connections_overflow.inc();
                }
            }
        }
    }

    /// Begins a pass over all live sockets; their Progress records follow.
    pub fn begin_pass(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        self.connections.begin_pass();
    }

    /// Takes the cookie of a connection that is live and in which the pass under way found nothing new since its newest record. Tells whether
    /// that is known; if it is not, a record of it is needed.
    pub fn quiet(&mut self, cookie: u64) -> bool {
        let Some(quiet) = self.connections.observe_quiet(cookie, self.now_ns) else { return false };
        self.metrics.records.quiet.inc();
        if (quiet.data.unnamed || self.report.is_due(quiet.age_ns, quiet.data))
            && let Some(mut connection) = self.connections.of_cookie(&self.store, cookie)
        {
            self.naming.name(&connection.last, connection.data);
            if self.report.progress(&mut connection, &Change::default()) {
                self.connections.changed(&self.store, cookie);
            }
        }
        true
    }

    /// Ends a pass. Only a complete one, which showed every socket and all of whose records were given, tells that what it did not show may
    /// be gone: tells whether some is. Once all was read that the kernel was about to say by then, [`Recorder::remove_missed`] is to follow.
    pub fn end_pass(&mut self, complete: bool) -> bool {
        self.connections.end_pass(complete)
    }

    /// Counts the end of the connections that passes missed, and of which nothing has come since.
    pub fn remove_missed(&mut self) {
        for some in self.connections.missed().chunks(SAVED_AT_ONCE) {
            for slot in some {
                let mut connection = self.connections.remove(&self.store, *slot);
                self.metrics.vanished.inc();
                self.report.audit.vanish(&connection.last);
                self.naming.name(&connection.last, &mut connection.data);
                self.report.ended(connection, self.now_ns);
            }
            self.save();
        }
    }

    /// Takes the kernel's own counters, each a total summed over CPUs.
    pub fn kernel_counters(&mut self, totals: &[u64; counter::COUNT as usize]) {
        let (lost, kernel) = (&self.metrics.lost, &self.metrics.kernel);
        for (slot, metric) in [
            (counter::LOST_ESTABLISHED, &lost.established),
            (counter::LOST_PROGRESS, &lost.progress),
            (counter::LOST_CONNECTIONS, &lost.connections),
            (counter::LOST_SENT, &lost.sent_bytes),
            (counter::LOST_RECEIVED, &lost.received_bytes),
            (counter::NO_STORAGE, &lost.no_storage),
            (counter::ESTABLISHED, &kernel.established),
            (counter::CLOSED, &kernel.closed),
            (counter::FAILED, &kernel.failed),
        ] {
            let (total, known) = (totals[slot as usize], &mut self.kernel[slot as usize]);
            metric.inc_by(total.saturating_sub(*known));
            *known = total.max(*known);
        }
    }

    /// Hands lines to the writer, retires series, shows scrapes what is new, and saves; to be called every 100 ms or so, after a commit.
    pub fn maintain(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        self.lag_in = 0;
        if !self.switches.get(Switch::Monitoring) {
            self.unwatched_ns = now_ns;
        }
        self.report.maintain(&mut self.connections, &self.store, now_ns);
        self.save();
        self.metrics.connections.set(i64::try_from(self.connections.live()).unwrap_or(i64::MAX));
    }

    /// Shows everything to scrapes and waits until every log line is written or given up, for at most `limit`; tells
    /// whether all lines were through by then.
    pub fn flush(&mut self, limit: Duration) -> bool {
        self.maintain(self.now_ns);
        let flushed = self.report.flush(limit);
        self.maintain(self.now_ns);
        flushed
    }

    /// Iterates over the live connections, as the admin port shows them.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionView> {
        self.connections_from(0).map(|(_, view)| view)
    }

    /// Iterates over the live connections from a slot on, each with its slot, so that they can be shown piece by piece.
    pub fn connections_from(&self, slot: usize) -> impl Iterator<Item = (usize, ConnectionView)> {
        self.connections.iter_from(&self.store, slot).map(|(slot, c)| (slot, ConnectionView::new(&c, self.now_ns)))
    }

    /// Returns the pipeline's measure of itself, of which the caller fills what only it knows (map use).
    pub fn metrics(&self) -> &SelfMetrics {
        &self.metrics
    }

    fn sample_lag(&mut self, record: &Record) {
        if self.lag_in == 0 {
            self.lag_in = LAG_SAMPLE;
            let lag = Duration::from_nanos(Clock::monotonic_ns().saturating_sub(record.now_ns));
            self.metrics.lag.observe(lag.as_secs_f64());
        }
        self.lag_in -= 1;
    }
}

/// Reads a record; nothing where the length is not a record's or a closed set has no such member.
fn decode(bytes: &[u8]) -> Option<(Kind, Direction, Record)> {
    let record = Record::read_from_bytes(bytes).ok()?;
    TcpState::try_from(record.state).ok()?;
    Some((record.kind.try_into().ok()?, record.direction.try_into().ok()?, record))
}
