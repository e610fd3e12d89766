//! The service, workload and long-connection families: which metrics they have and how a record reaches their series.

#[cfg(test)]
pub(crate) mod fixture;
mod metrics;
mod saved;
#[cfg(test)]
mod tests;
mod views;

pub(crate) use metrics::{CONNECTION, Metric, SERVICE, WORKLOAD};
pub(crate) use saved::Found;

use std::{net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use cache::{Held, Service, Str, Workload};

use crate::{
    check::Totals,
    fragment::Fragment,
    labels::{ConnectionLabels, Flag, LabelCache, OwnText, Reporter},
    series::{Handle, Published, Table},
    store::Texts,
};
use metrics::counter;
use views::{PairView, SingleView};

/// How long a service or workload series stays without live connection and without change.
const IDLE: Duration = Duration::from_secs(600);
/// How long a closed connection's own series stays.
const AFTER_CLOSE: Duration = Duration::from_secs(60);
/// How often labels and fragments that nobody uses are looked for.
const LABEL_SWEEP_NS: u64 = 60_000_000_000;

/// Who takes part in a connection, as label text; four pointers wide, cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    pub(crate) source: Fragment,
    pub(crate) destination: Fragment,
    pub(crate) pod: Fragment,
    pub(crate) service: Fragment,
}

/// The labels of a service or workload series: both workloads, and the service or the pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    pub(crate) source: Fragment,
    /// The service or the pod.
    pub(crate) middle: Fragment,
    pub(crate) destination: Fragment,
}

/// The labels of one long connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Single {
    pub(crate) own: OwnText,
    pub(crate) ends: Ends,
}

/// What a connection moved since it was last told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Payload bytes received.
    pub received: u64,
    /// Payload bytes sent.
    pub sent: u64,
    /// Segments retransmitted.
    pub retransmits: u64,
    /// Packets lost.
    pub lost: u64,
}

/// A hold on a series of the service family.
pub type ServiceHandle = Handle<Pair, { counter::SERVICE }>;
/// A hold on a series of the workload family.
pub type WorkloadHandle = Handle<Pair, { counter::WORKLOAD }>;
/// A hold on the series of one long connection.
pub type ConnectionHandle = Handle<Single, { counter::CONNECTION }>;

/// The families, owned by the record thread.
///
/// Times are nanoseconds of one monotonic clock, records' and caller's alike.
#[derive(Debug)]
pub struct Families {
    labels: LabelCache,
    service: Table<Pair, { counter::SERVICE }>,
    workload: Table<Pair, { counter::WORKLOAD }>,
    connection: Table<Single, { counter::CONNECTION }>,
    /// Where the texts of saved series are in the image.
    texts: Texts,
    labels_swept_ns: u64,
}

/// What a scrape loads, all of one moment as far as series are concerned.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(crate) service: Arc<ArcSwap<Published<Pair, { counter::SERVICE }>>>,
    pub(crate) workload: Arc<ArcSwap<Published<Pair, { counter::WORKLOAD }>>>,
    pub(crate) connection: Arc<ArcSwap<Published<Single, { counter::CONNECTION }>>>,
}

impl Reader {
    /// Loads what was last published; no wait for anyone.
    pub(crate) fn load(&self) -> Loaded {
        (self.service.load_full(), self.workload.load_full(), self.connection.load_full())
    }
}

/// The published rows of the three families.
pub(crate) type Loaded = (
    Arc<Published<Pair, { counter::SERVICE }>>,
    Arc<Published<Pair, { counter::WORKLOAD }>>,
    Arc<Published<Single, { counter::CONNECTION }>>,
);

impl Families {
    /// Makes empty families of at most `max_series` label sets each; `cluster_id` is the cluster of workloads without one.
    pub fn new(max_series: usize, cluster_id: Str) -> Self {
        let labels = LabelCache::new(cluster_id);
        let other = labels.other.clone();
        let pair = |middle: &Fragment| Pair {
            source: other.source.clone(),
            middle: middle.clone(),
            destination: other.destination.clone(),
        };
        let single = Single {
            own: OwnText::new("other", "other", "other"),
            ends: Ends {
                source: other.source.clone(),
                destination: other.destination.clone(),
                pod: other.pod.clone(),
                service: other.service.clone(),
            },
        };
        Self {
            service: Table::new(max_series, IDLE, pair(&other.service)),
            workload: Table::new(max_series, IDLE, pair(&other.pod)),
            connection: Table::new(max_series, AFTER_CLOSE, single),
            labels,
            texts: Texts::default(),
            labels_swept_ns: 0,
        }
    }

    /// Resolves who takes part: nobody is `-`. `address` is the one the connection reached; it is a label only where
    /// `destination` is somebody. Rendered once for each workload, service and address, then looked up by serial.
    pub fn ends(
        &mut self,
        source: Option<&Held<Workload>>,
        destination: Option<&Held<Workload>>,
        address: IpAddr,
        service: Option<&Held<Service>>,
    ) -> Ends {
        Ends {
            source: self.labels.source(source),
            destination: self.labels.destination(destination),
            pod: self.labels.pod(destination, address),
            service: self.labels.service(service),
        }
    }

    /// Returns the series of the service family. Hold that of [`Flag::None`] for the connection's life; ask for others
    /// when they are needed.
    pub fn service(&mut self, ends: &Ends, reporter: Reporter, flag: Flag, now_ns: u64) -> ServiceHandle {
        let Ends { source, destination, service, pod: _ } = ends;
        self.service.handle(&PairView { source, middle: service, destination }, reporter, flag, now_ns)
    }

    /// Returns the series of the workload family, as [`Families::service`] does.
    pub fn workload(&mut self, ends: &Ends, reporter: Reporter, flag: Flag, now_ns: u64) -> WorkloadHandle {
        let Ends { source, destination, pod, service: _ } = ends;
        self.workload.handle(&PairView { source, middle: pod, destination }, reporter, flag, now_ns)
    }

    /// Returns the series of one long connection; 60 s after [`Handle::leave`] it is gone.
    pub fn connection(
        &mut self,
        ends: &Ends,
        reporter: Reporter,
        labels: ConnectionLabels<'_>,
        now_ns: u64,
    ) -> ConnectionHandle {
        let own = labels.render();
        self.connection.handle(&SingleView { own: &own, ends }, reporter, Flag::None, now_ns)
    }

    /// Has a series of the service family that was added to be saved.
    #[inline]
    pub(crate) fn counted_service(&mut self, handle: &ServiceHandle) {
        self.service.counted(handle);
    }

    /// As [`Families::counted_service`], of the workload family.
    #[inline]
    pub(crate) fn counted_workload(&mut self, handle: &WorkloadHandle) {
        self.workload.counted(handle);
    }

    /// As [`Families::counted_service`], of one long connection.
    #[inline]
    pub(crate) fn counted_connection(&mut self, handle: &ConnectionHandle) {
        self.connection.counted(handle);
    }

    /// Retires what is idle, forgets labels out of use and publishes. To be called some ten times a second.
    pub fn maintain(&mut self, now_ns: u64) {
        self.service.retire(now_ns);
        self.workload.retire(now_ns);
        self.connection.retire(now_ns);
        if now_ns.saturating_sub(self.labels_swept_ns) >= LABEL_SWEEP_NS {
            self.labels_swept_ns = now_ns;
            self.labels.sweep();
        }
        self.publish();
    }

    /// Shows new series, and that some left, to readers; what is added to a published series they see at once.
    pub fn publish(&mut self) {
        self.service.publish();
        self.workload.publish();
        self.connection.publish();
    }

    /// Adds up the series of services and what was retired of them.
    pub(crate) fn totals(&self) -> Totals {
        let (counters, failed) = self.service.totals();
        Totals {
            closed: counters[counter::CLOSED],
            failed,
            sent: counters[counter::SENT],
            received: counters[counter::RECEIVED],
        }
    }

    /// Returns what an exposition reads.
    pub fn reader(&self) -> Reader {
        Reader {
            service: self.service.shared(),
            workload: self.workload.shared(),
            connection: self.connection.shared(),
        }
    }
}

impl<const N: usize> Handle<Pair, N> {
    /// Counts an opened connection.
    #[inline]
    pub fn opened(&self, now_ns: u64) {
        self.add(counter::OPENED, 1, now_ns);
    }

    /// Counts as many connections that were opened, unless they were adopted, and closed; on a handle of [`Flag::Reset`] they are closed
    /// alone.
    pub fn opened_and_closed(&self, opened: u64, closed: u64, now_ns: u64) {
        self.add(counter::OPENED, opened, now_ns);
        self.add(counter::CLOSED, closed, now_ns);
    }

    /// Counts as many failed connects, as [`Handle::failed`] counts one.
    pub fn all_failed(&self, count: u64, now_ns: u64) {
        self.add(counter::FAILED, count, now_ns);
    }

    /// Counts a closed connection; on a handle of [`Flag::Reset`] one that was reset.
    #[inline]
    pub fn closed(&self, now_ns: u64) {
        self.add(counter::CLOSED, 1, now_ns);
    }

    /// Counts a failed connect, on a handle of one of the flags that say why.
    #[inline]
    pub fn failed(&self, now_ns: u64) {
        self.add(counter::FAILED, 1, now_ns);
    }
}

impl ServiceHandle {
    /// Adds what a connection moved.
    #[inline]
    pub fn moved(&self, traffic: &Traffic, now_ns: u64) {
        let Traffic { received, sent, retransmits: _, lost: _ } = *traffic;
        if received | sent != 0 {
            self.add(counter::RECEIVED, received, now_ns);
            self.add(counter::SENT, sent, now_ns);
        }
    }
}

impl WorkloadHandle {
    /// Adds what a connection moved.
    #[inline]
    pub fn moved(&self, traffic: &Traffic, now_ns: u64) {
        let Traffic { received, sent, retransmits, lost } = *traffic;
        if received | sent | retransmits | lost != 0 {
            self.add(counter::RECEIVED, received, now_ns);
            self.add(counter::SENT, sent, now_ns);
            self.add(counter::RETRANSMITS, retransmits, now_ns);
            self.add(counter::LOST, lost, now_ns);
        }
    }
}

impl ConnectionHandle {
    /// Adds what the connection moved; the first time, what it moved since its beginning.
    #[inline]
    pub fn moved(&self, traffic: &Traffic, now_ns: u64) {
        let Traffic { received, sent, retransmits, lost } = *traffic;
        if received | sent | retransmits | lost != 0 {
            self.add(counter::own::RECEIVED, received, now_ns);
            self.add(counter::own::SENT, sent, now_ns);
            self.add(counter::own::RETRANSMITS, retransmits, now_ns);
            self.add(counter::own::LOST, lost, now_ns);
        }
    }
}
