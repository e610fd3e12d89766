//! What is decided at start.

use std::time::Duration;

use cache::Str;

/// The form of access-log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LogFormat {
    /// `accesslog: <time> src.addr=..., ...`.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Settings of the record path that stay as they are while the process runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// How often open connections report.
    pub report_interval: Duration,
    /// Age from which on a connection is long.
    pub long_threshold: Duration,
    /// Series that one family may hold.
    pub max_series: usize,
    /// Live connections that are told apart.
    pub max_connections: usize,
    /// Reports what the pod's own node opens (kubelet probes) too.
    pub include_node_traffic: bool,
    /// What connections had moved before anyone watched them counts too.
    pub adopt_history: bool,
    /// Cluster of workloads that name none.
    pub cluster_id: Str,
    /// Form of access-log lines.
    pub log_format: LogFormat,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            report_interval: Duration::from_secs(5),
            long_threshold: Duration::from_secs(5),
            max_series: 100_000,
            max_connections: 200_000,
            include_node_traffic: false,
            adopt_history: false,
            cluster_id: Str::from("Kubernetes"),
            log_format: LogFormat::Text,
        }
    }
}
