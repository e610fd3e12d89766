//! Many ends of connections at once.

use abi::{Kind, Record, record::flags};

use super::{Report, failure};
use crate::{
    check::Totals,
    families::Traffic,
    labels::{Flag, Reporter},
    recorder::Kept,
    switches::Switch,
};

impl Report {
    /// Counts `count` connections that were opened (or adopted) and closed, or as many failed connects; the record has their sums.
    pub(in crate::recorder) fn summed(&mut self, record: &Record, kind: Kind, mut kept: Kept, count: u64) {
        if kept.ignored.is_some() {
            let (sent, received) = (record.sent, record.received);
            self.audit.ignored.add(match kind {
                Kind::Failed => Totals { failed: count, ..Totals::default() },
                _ => Totals { closed: count, failed: 0, sent, received },
            });
            return;
        }
        let now_ns = record.now_ns;
        let workloads = self.switches.get(Switch::WorkloadMetrics);
        if self.switches.get(Switch::AccessLog) {
            self.log.skip(count);
        }
        if kind == Kind::Failed {
            let (ends, flag) = (self.ends(record, &kept), failure(record));
            self.count_service(&ends, kept.reporter, flag, |service| service.all_failed(count, now_ns), now_ns);
            if workloads {
                self.count_workload(&ends, kept.reporter, flag, |workload| workload.all_failed(count, now_ns), now_ns);
            }
            return;
        }
        let is_adopted = record.flags & flags::ADOPTED != 0;
        if is_adopted {
            match kept.reporter {
                Reporter::Source => self.metrics.adopted_source.inc_by(count),
                Reporter::Destination => self.metrics.adopted_destination.inc_by(count),
            }
        }
        self.hold(record, &mut kept);
        let Record { sent, received, retransmits, lost, .. } = *record;
        let traffic = Traffic { sent, received, retransmits, lost };
        let is_reset = record.flags & flags::RESET != 0;
        let (opened, closed) = (if is_adopted { 0 } else { count }, if is_reset { 0 } else { count });
        if let Some(service) = &kept.service {
            service.opened_and_closed(opened, closed, now_ns);
            service.moved(&traffic, now_ns);
            self.families.counted_service(service);
        }
        if let Some(workload) = kept.workload.as_ref().filter(|_| workloads) {
            workload.opened_and_closed(opened, closed, now_ns);
            workload.moved(&traffic, now_ns);
            self.families.counted_workload(workload);
        }
        if is_reset {
            let ends = self.ends(record, &kept);
            let (reporter, flag) = (kept.reporter, Flag::Reset);
            self.count_service(&ends, reporter, flag, |service| service.opened_and_closed(0, count, now_ns), now_ns);
            if workloads {
                self.count_workload(&ends, reporter, flag, |w| w.opened_and_closed(0, count, now_ns), now_ns);
            }
        }
    }
}
