//! What enrolment measures.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// The handles.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    /// Namespaces enrolled.
    pub(super) enrolled: IntGauge,
    /// Workloads of this node that no enrolled namespace holds.
    pub(super) missing: IntGauge,
    /// Processes whose namespace we may not see.
    pub(super) unseen: IntGauge,
    /// Times that the processes could not be listed.
    pub(super) proc: IntCounter,
    /// Times that a namespace could not be entered.
    pub(super) namespace: IntCounter,
    /// Times that the map of managed namespaces could not be written.
    pub(super) map: IntCounter,
    /// Times that a namespace could not be searched for older connections.
    pub(super) adoption: IntCounter,
}

impl Metrics {
    /// Makes and registers them.
    #[expect(clippy::disallowed_methods, reason = "the label's values are a closed set of our own")]
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        let failures = IntCounterVec::new(
            Opts::new(
                "meshd_enrol_failures_total",
                "What kept a namespace from being enrolled, taken out or searched for older connections, by reason.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(failures.clone()))?;
        Ok(Self {
            enrolled: gauge("meshd_enrol_namespaces", "Network namespaces of this node's workloads that are managed.")?,
            missing: gauge(
                "meshd_enrol_workloads_missing",
                "Workloads of this node whose network namespace was not found.",
            )?,
            unseen: gauge("meshd_enrol_processes_unseen", "Processes whose network namespace may not be looked at.")?,
            proc: failures.with_label_values(&["proc"]),
            namespace: failures.with_label_values(&["namespace"]),
            map: failures.with_label_values(&["map"]),
            adoption: failures.with_label_values(&["adoption"]),
        })
    }
}
