//! What the record path says of itself for the self check.

use abi::{Record, maps::counter::COUNT};

use super::Recorder;
use crate::check::Totals;

/// Ends, or bytes, that are in the series of nobody, or in series without an end.
#[derive(Debug, Default)]
pub(super) struct Audit {
    /// Connections that are not reported.
    pub(super) ignored: Totals,
    /// Connections that ended without the kernel's word.
    pub(super) vanished: Totals,
}

impl Audit {
    /// Notes a connection that ended without the kernel's word.
    pub(super) fn vanish(&mut self, last: &Record) {
        self.vanished.add(Totals { closed: 1, sent: last.sent, received: last.received, failed: 0 });
    }
}

impl Recorder {
    /// Compares metrics with the kernel's counters, read before the records were that have been given so far, and after. Tells whether
    /// all is accounted for; the first call only tells where to count from.
    pub fn check(&mut self, before: &[u64; COUNT as usize], after: &[u64; COUNT as usize]) -> bool {
        let mut metrics = self.report.totals();
        metrics.add(self.report.audit.ignored);
        metrics.add(self.connections.uncounted());
        let mut open = self.report.audit.vanished;
        open.add(self.connections.totals(&self.store));
        let (before, after) = (Totals::handed_over(before), Totals::handed_over(after));
        let Some(ratios) = self.check.look(before, after, metrics.less(open)) else { return true };
        let accounted = &self.metrics.accounted;
        accounted.closed.set(ratios.closed);
        accounted.failed.set(ratios.failed);
        accounted.sent_bytes.set(ratios.sent);
        accounted.received_bytes.set(ratios.received);
        self.metrics.checks.inc();
        [ratios.closed, ratios.failed, ratios.sent, ratios.received].iter().all(|ratio| *ratio == 1.0)
    }
}
