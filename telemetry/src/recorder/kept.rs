//! What is kept with a connection, and how it gets its names.

use std::sync::Arc;

use abi::{Direction, Record};
use cache::{Cache, Str};

use crate::{
    attribute::{Attribution, Ignored, NodeAddresses, attribute, ignored},
    families::{ConnectionHandle, ServiceHandle, WorkloadHandle},
    labels::Reporter,
    selfmetrics::SelfMetrics,
};

/// What the record path keeps with a connection from its first record to its end.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Who takes part, as the mesh was when the connection was first seen.
    pub(crate) names: Attribution,
    pub(crate) reporter: Reporter,
    /// It was found open.
    pub(crate) adopted: bool,
    /// Why it is not reported, if so.
    pub(crate) ignored: Option<Ignored>,
    /// Holds on its series, taken when the family first counts it.
    pub(super) service: Option<ServiceHandle>,
    pub(super) workload: Option<WorkloadHandle>,
    pub(super) connection: Option<ConnectionHandle>,
    /// It was put back from the image, and its names wait for what is known of it next.
    pub(super) unnamed: bool,
}

/// What names connections.
#[derive(Debug)]
pub(super) struct Naming {
    cache: Arc<Cache>,
    network: Str,
    node: Arc<NodeAddresses>,
    metrics: SelfMetrics,
    include_node: bool,
}

impl Naming {
    pub(super) fn new(cache: Arc<Cache>, node: Arc<NodeAddresses>, metrics: SelfMetrics, include_node: bool) -> Self {
        let network = cache.node().network.clone();
        Self { cache, network, node, metrics, include_node }
    }

    /// Returns the record of a failed connect with an address of its own, where the pod's is known.
    pub(super) fn located(&self, record: &Record) -> Record {
        self.node.located(record)
    }

    /// Names a connection, and counts it where it is ignored or nobody is known.
    pub(super) fn keep(&self, record: &Record, direction: Direction) -> Kept {
        self.keep_all(record, direction, 1)
    }

    /// Names `count` connections that have everything in common.
    pub(super) fn keep_all(&self, record: &Record, direction: Direction, count: u64) -> Kept {
        let ignored = ignored(record, direction, &self.node, self.include_node);
        let names = match ignored {
            None => attribute(record, direction, &self.cache.load(), &self.network),
            Some(_) => Attribution::default(),
        };
        match ignored {
            Some(Ignored::Loopback) => self.metrics.ignored_loopback.inc_by(count),
            Some(Ignored::Node) => self.metrics.ignored_node.inc_by(count),
            None if names.source.is_none() && names.destination.is_none() => self.metrics.unattributed.inc_by(count),
            None => {}
        }
        Kept {
            names,
            reporter: direction.into(),
            adopted: false,
            ignored,
            service: None,
            workload: None,
            connection: None,
            unnamed: false,
        }
    }

    /// Names a connection that was put back from the image.
    pub(super) fn name(&self, record: &Record, kept: &mut Kept) {
        if std::mem::take(&mut kept.unnamed) && kept.ignored.is_none() {
            kept.names = attribute(record, direction(kept.reporter), &self.cache.load(), &self.network);
        }
    }
}

/// Returns the direction of connections that a reporter tells of.
pub(super) fn direction(reporter: Reporter) -> Direction {
    match reporter {
        Reporter::Source => Direction::Outbound,
        Reporter::Destination => Direction::Inbound,
    }
}
