//! What is reported now, changed at run time.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The four switches. The finer three keep what they were set to while monitoring is off, and are effective only with it.
#[derive(Debug, Default)]
pub struct Switches {
    monitoring: AtomicBool,
    access_log: AtomicBool,
    workload_metrics: AtomicBool,
    connection_metrics: AtomicBool,
    monitored: AtomicU32,
}

/// Names one of the switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Switch {
    /// Telemetry as a whole, service metrics with it.
    Monitoring,
    /// The access log.
    AccessLog,
    /// The workload family.
    WorkloadMetrics,
    /// The long-connection family.
    ConnectionMetrics,
}

impl Switches {
    /// Every switch, in the order in which they are shown.
    pub const ALL: [Switch; 4] =
        [Switch::Monitoring, Switch::AccessLog, Switch::WorkloadMetrics, Switch::ConnectionMetrics];

    /// Returns what a switch was set to.
    pub fn get(&self, switch: Switch) -> bool {
        self.cell(switch).load(Ordering::Relaxed)
    }

    /// Sets a switch and returns what it was set to before.
    pub fn set(&self, switch: Switch, on: bool) -> bool {
        let before = self.cell(switch).swap(on, Ordering::Relaxed);
        if switch == Switch::Monitoring && on && !before {
            self.monitored.fetch_add(1, Ordering::Release);
        }
        before
    }

    /// Tells whether a switch is on and monitoring is too.
    #[inline]
    pub fn effective(&self, switch: Switch) -> bool {
        self.get(Switch::Monitoring) && self.get(switch)
    }

    /// Counts how often monitoring was turned on, so that an interruption is noticed however short it was.
    #[inline]
    pub(crate) fn times_monitored(&self) -> u32 {
        self.monitored.load(Ordering::Acquire)
    }

    fn cell(&self, switch: Switch) -> &AtomicBool {
        match switch {
            Switch::Monitoring => &self.monitoring,
            Switch::AccessLog => &self.access_log,
            Switch::WorkloadMetrics => &self.workload_metrics,
            Switch::ConnectionMetrics => &self.connection_metrics,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Switch, Switches};

    #[test]
    fn finer_switches_are_effective_only_with_monitoring_and_are_kept_without() {
        let switches = Switches::default();
        assert!(!switches.set(Switch::AccessLog, true));
        assert!(!switches.effective(Switch::AccessLog));
        switches.set(Switch::Monitoring, true);
        assert!(switches.effective(Switch::AccessLog) && !switches.effective(Switch::WorkloadMetrics));
        switches.set(Switch::Monitoring, false);
        assert!(switches.get(Switch::AccessLog) && !switches.effective(Switch::AccessLog));
    }

    #[test]
    fn turning_monitoring_off_and_on_is_noticed_and_on_twice_is_not() {
        let switches = Switches::default();
        switches.set(Switch::Monitoring, true);
        let once = switches.times_monitored();
        switches.set(Switch::Monitoring, true);
        assert_eq!(switches.times_monitored(), once);
        switches.set(Switch::Monitoring, false);
        switches.set(Switch::Monitoring, true);
        assert_ne!(switches.times_monitored(), once);
    }
}
