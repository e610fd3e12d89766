//! Ends of connections that the kernel added up, since it had no room for each.

use std::hash::BuildHasher as _;

use abi::sum::{Sum, SumKey};
use rustc_hash::FxBuildHasher;
use zerocopy::IntoBytes as _;

use super::Recorder;
use crate::{clock::Clock, switches::Switch};

impl Recorder {
    /// Takes a sum of closes or of failures. Metrics lack nothing by it; what one connection alone would have shown (lines, series of its
    /// own) they had no time to show.
    pub fn sum(&mut self, key: &SumKey, sum: &Sum) {
        if !self.switches.get(Switch::Monitoring) {
            return;
        }
        self.connections.remember(identity(key));
        let record = key.record(sum, Clock::monotonic_ns());
        let (Ok(direction), Ok(kind)) = (record.direction.try_into(), record.kind.try_into()) else {
            self.metrics.malformed.inc();
            return;
        };
        let record = if kind == abi::Kind::Failed { self.naming.located(&record) } else { record };
        let kept = self.naming.keep_all(&record, direction, sum.connections);
        self.metrics.summed.inc_by(sum.connections);
        self.report.summed(&record, kind, kept, sum.connections);
    }

    /// Tells whether a sum was taken before: it can be found again if the process ends before it is removed.
    pub fn is_summed(&self, key: &SumKey) -> bool {
        self.connections.remembers(identity(key))
    }
}

/// A sum among the connections that ended: keys are never used twice, since they have an epoch.
fn identity(key: &SumKey) -> (u64, u64) {
    let half = |seed: u64| FxBuildHasher.hash_one((seed, key.as_bytes()));
    (half(1), half(2))
}
