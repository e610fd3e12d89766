//! How the connection to the control plane fares, as metrics and for the readiness of the process.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Instant, SystemTime},
};

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry, Result as Registered, core::Collector,
};

use crate::session::{ADDRESS, AUTHORIZATION};

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Workloads and services.
    Address,
    /// Authorization policies.
    Authorization,
    /// A type that was not asked for.
    Other,
}

impl Kind {
    pub(crate) fn of(type_url: &str) -> Self {
        match type_url {
            ADDRESS => Self::Address,
            AUTHORIZATION => Self::Authorization,
            _ => Self::Other,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Authorization => "authorization",
            Self::Other => "other",
        }
    }
}

/// How the connection to the control plane fares.
#[derive(Debug)]
pub struct Status {
    connected: IntGauge,
    connects: IntCounter,
    failures: IntCounter,
    messages: ByKind,
    resources: ByKind,
    removed: ByKind,
    rejected: ByKind,
    nacks: ByKind,
    bytes: IntCounter,
    last_update: Gauge,
    applied: Histogram,
    propagation: Histogram,
    synced: AtomicBool,
    last_error: Mutex<Option<String>>,
}

impl Status {
    /// Makes the metrics `meshd_xds_*` and registers them.
    ///
    /// # Errors
    /// If the registry has metrics of these names already.
    pub fn register(registry: &Registry) -> Registered<Self> {
        let add = Add(registry);
        Ok(Self {
            connected: add
                .to(IntGauge::new("meshd_xds_connected", "1 while a stream to the control plane is open.")?)?,
            connects: add.to(IntCounter::new("meshd_xds_connects_total", "Streams opened to the control plane.")?)?,
            failures: add.to(IntCounter::new(
                "meshd_xds_failures_total",
                "Streams to the control plane that ended, and attempts that opened none.",
            )?)?,
            messages: add.by_kind("meshd_xds_messages_total", "Responses received.")?,
            resources: add.by_kind("meshd_xds_resources_total", "Resources received, usable or not.")?,
            removed: add.by_kind("meshd_xds_removed_resources_total", "Removals received.")?,
            rejected: add.by_kind("meshd_xds_rejected_resources_total", "Resources received that cannot be used.")?,
            nacks: add.by_kind("meshd_xds_nacks_total", "Responses answered with a complaint.")?,
            bytes: add.to(IntCounter::new("meshd_xds_received_bytes_total", "Bytes of all responses.")?)?,
            last_update: add.to(Gauge::new(
                "meshd_xds_last_update_timestamp_seconds",
                "When a response last changed the mesh state, in seconds since 1970.",
            )?)?,
            applied: add.histogram("meshd_xds_apply_seconds", "From a response received to the mesh state swapped.")?,
            propagation: add.histogram(
                "meshd_xds_propagation_seconds",
                "From a response received to its changes programmed into the kernel's maps.",
            )?,
            synced: AtomicBool::new(false),
            last_error: Mutex::new(None),
        })
    }

    /// Tells whether a stream is open.
    pub fn is_connected(&self) -> bool {
        self.connected.get() != 0
    }

    /// Tells whether the whole state has ever been received.
    pub fn is_synced(&self) -> bool {
        self.synced.load(Relaxed)
    }

    /// Returns why the last stream ended or could not be opened; `None` while one is open.
    pub fn last_error(&self) -> Option<String> {
        self.error().clone()
    }

    /// Notes that what came at `received` ([`cache::Change::received`]) is now in the kernel's maps.
    pub fn programmed(&self, received: Instant) {
        self.propagation.observe(received.elapsed().as_secs_f64());
    }

    pub(crate) fn opened(&self) {
        self.connected.set(1);
        self.connects.inc();
        *self.error() = None;
    }

    pub(crate) fn ended(&self, why: String) {
        self.connected.set(0);
        self.failures.inc();
        *self.error() = Some(why);
    }

    pub(crate) fn stopped(&self) {
        self.connected.set(0);
    }

    pub(crate) fn synced(&self) {
        self.synced.store(true, Relaxed);
    }

    pub(crate) fn message(&self, kind: Kind, bytes: usize, resources: usize, removed: usize, rejected: usize) {
        self.bytes.inc_by(bytes as u64);
        self.messages.of(kind).inc();
        self.resources.of(kind).inc_by(resources as u64);
        self.removed.of(kind).inc_by(removed as u64);
        self.rejected.of(kind).inc_by(rejected as u64);
    }

    pub(crate) fn nack(&self, kind: Kind) {
        self.nacks.of(kind).inc();
    }

    pub(crate) fn applied(&self, received: Instant) {
        self.applied.observe(received.elapsed().as_secs_f64());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.last_update.set(now.as_secs_f64());
    }

    fn error(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A counter for each kind of message.
#[derive(Debug)]
struct ByKind([IntCounter; 3]);

impl ByKind {
    fn of(&self, kind: Kind) -> &IntCounter {
        &self.0[kind as usize]
    }
}

struct Add<'a>(&'a Registry);

impl Add<'_> {
    fn to<C: Collector + Clone + 'static>(&self, metric: C) -> Registered<C> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn by_kind(&self, name: &str, help: &str) -> Registered<ByKind> {
        let of = |kind: Kind| {
            let opts = Opts::new(name, help).const_label("type", kind.label());
            self.to(IntCounter::with_opts(opts)?)
        };
        Ok(ByKind([of(Kind::Address)?, of(Kind::Authorization)?, of(Kind::Other)?]))
    }

    /// Adds a histogram from 25 us to 3 s.
    fn histogram(&self, name: &str, help: &str) -> Registered<Histogram> {
        let buckets = prometheus::exponential_buckets(25e-6, 2.0, 18)?;
        self.to(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_takes_the_metrics_once() {
        let registry = Registry::new();
        assert!(Status::register(&registry).is_ok());
        assert!(Status::register(&registry).is_err());
    }
}
