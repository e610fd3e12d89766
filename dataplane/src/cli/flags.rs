//! Flags of `meshd run`; each is an environment variable too.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum, builder::NonEmptyStringValueParser};

use super::value::{Level, duration, go_bool};

/// Flags of `meshd run`.
#[derive(Args, Clone, Debug)]
pub struct Run {
    /// Mesh state from this file, read again when it changes
    #[arg(long, value_name = "FILE", env = "MESHD_MESH_CONFIG", help_heading = "Mesh state")]
    pub mesh_config: Option<PathBuf>,
    /// Mesh state from istiod: http://, https:// or host:port, which means https
    #[arg(long, value_name = "ADDR", env = "XDS_ADDRESS", help_heading = "Mesh state")]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub xds_address: Option<String>,
    /// Root certificates that istiod's certificate is checked with
    #[arg(long, value_name = "FILE", env = "MESHD_XDS_ROOT_CA", help_heading = "Mesh state")]
    #[arg(default_value = "/var/run/secrets/istio/root-cert.pem")]
    pub xds_root_ca: PathBuf,
    /// Service account token that is shown to istiod
    #[arg(long, value_name = "FILE", env = "MESHD_XDS_TOKEN", help_heading = "Mesh state")]
    #[arg(default_value = "/var/run/secrets/tokens/istio-token")]
    pub xds_token: PathBuf,

    /// Name of this node: workloads that name it are this node's, so managed [default: the host name]
    #[arg(long, value_name = "NAME", env = "NODE_NAME", help_heading = "Who we are")]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub node_name: Option<String>,
    /// Cluster of workloads that name none
    #[arg(long, value_name = "NAME", env = "CLUSTER_ID", help_heading = "Who we are", default_value = "Kubernetes")]
    pub cluster_id: String,
    /// Network of this node; empty is the default network
    #[arg(long, value_name = "NAME", env = "ISTIO_META_NETWORK", help_heading = "Who we are", default_value = "")]
    #[arg(hide_default_value = true)]
    pub network: String,
    /// Address of this pod, told to istiod [default: found]
    #[arg(long, value_name = "IP", env = "INSTANCE_IP", help_heading = "Who we are")]
    pub pod_ip: Option<std::net::IpAddr>,
    /// Name of this pod, told to istiod [default: the host name]
    #[arg(long, value_name = "NAME", env = "POD_NAME", help_heading = "Who we are")]
    pub pod_name: Option<String>,
    /// Namespace of this pod, told to istiod
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", help_heading = "Who we are")]
    #[arg(default_value = "kmesh-system")]
    pub pod_namespace: String,

    /// The cgroup v2 directory that programs attach to [default: the cgroup v2 root, found]
    #[arg(long, alias = "cgroup2-path", value_name = "PATH", env = "MESHD_CGROUP", help_heading = "Kernel")]
    pub cgroup: Option<PathBuf>,
    /// Where programs, maps, saved counters and switches are pinned; mounted if it is not
    #[arg(long, alias = "bpf-fs-path", value_name = "PATH", env = "MESHD_BPF_FS", help_heading = "Kernel")]
    #[arg(default_value = "/sys/fs/bpf")]
    pub bpf_fs: PathBuf,
    /// What SIGTERM and ^C leave in the kernel
    #[arg(long, value_enum, value_name = "WHAT", env = "MESHD_ON_EXIT", help_heading = "Kernel")]
    #[arg(default_value = "detach")]
    pub on_exit: OnExit,
    /// Where the host's processes are seen
    #[arg(long, value_name = "PATH", env = "MESHD_PROC", help_heading = "Kernel", default_value = "/proc")]
    pub proc: PathBuf,
    /// What makes a network namespace managed
    #[arg(long, value_enum, value_name = "BY", env = "MESHD_MANAGE", help_heading = "Kernel", default_value = "mesh")]
    pub manage: Manage,
    /// Live connections that telemetry tells apart. (Room in the kernel for ends that wait keeps its size where another meshd is replaced)
    #[arg(long, value_name = "N", env = "MESHD_MAX_CONNECTIONS", help_heading = "Kernel", default_value_t = 200_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub max_connections: u32,
    /// Records that can wait for each processor, a power of two; where another meshd is replaced, as many as that had [default: fewer
    /// the more processors there are, 4 MiB in all]
    #[arg(long, value_name = "N", env = "MESHD_RING_SLOTS", help_heading = "Kernel")]
    #[arg(value_parser = clap::value_parser!(u32).range(16..=1 << 20))]
    pub ring_slots: Option<u32>,
    /// Service addresses and ports that steering has room for
    #[arg(long, value_name = "N", env = "MESHD_MAX_SERVICES", help_heading = "Kernel", default_value_t = 65_536)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub max_services: u32,
    /// Endpoints that steering has room for, one for each port of each service
    #[arg(long, value_name = "N", env = "MESHD_MAX_ENDPOINTS", help_heading = "Kernel", default_value_t = 524_288)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    pub max_endpoints: u32,

    /// Have connections between two managed sockets of this node go beside TCP once they have proved long (needs --monitoring)
    #[arg(long, value_name = "BOOL", env = "MESHD_ACCELERATE", help_heading = "Kernel")]
    #[arg(value_parser = go_bool, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(default_value = "false", hide_default_value = true, action = clap::ArgAction::Set)]
    pub accelerate: bool,
    /// Segments, both ways together, after which a connection has proved long
    #[arg(long, value_name = "N", env = "MESHD_ACCELERATE_AFTER", help_heading = "Kernel", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub accelerate_after: u32,
    /// What a waypoint is told before the first byte of a connection; servers that speak first need none
    #[arg(long, value_enum, value_name = "FORM", env = "MESHD_WAYPOINT_METADATA", help_heading = "Kernel")]
    #[arg(default_value = "none")]
    pub waypoint_metadata: Metadata,

    /// Telemetry as a whole, with the service metrics; without it no telemetry program is loaded
    #[arg(long, value_name = "BOOL", env = "MESHD_MONITORING", help_heading = "Telemetry")]
    #[arg(value_parser = go_bool, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(default_value = "false", hide_default_value = true, action = clap::ArgAction::Set)]
    pub monitoring: bool,
    /// Metrics of workloads (needs --monitoring)
    #[arg(long, value_name = "BOOL", env = "MESHD_WORKLOAD_METRICS", help_heading = "Telemetry")]
    #[arg(value_parser = go_bool, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(default_value = "false", hide_default_value = true, action = clap::ArgAction::Set)]
    pub workload_metrics: bool,
    /// Metrics of single long connections (needs --monitoring)
    #[arg(long, value_name = "BOOL", env = "MESHD_CONNECTION_METRICS", help_heading = "Telemetry")]
    #[arg(value_parser = go_bool, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(default_value = "false", hide_default_value = true, action = clap::ArgAction::Set)]
    pub connection_metrics: bool,
    /// Access log on standard output (needs --monitoring)
    #[arg(long, value_name = "BOOL", env = "MESHD_ACCESS_LOG", help_heading = "Telemetry")]
    #[arg(value_parser = go_bool, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(default_value = "false", hide_default_value = true, action = clap::ArgAction::Set)]
    pub access_log: bool,
    /// Form of access-log lines
    #[arg(long, value_enum, value_name = "FORM", env = "MESHD_ACCESS_LOG_FORMAT", help_heading = "Telemetry")]
    #[arg(default_value = "text")]
    pub access_log_format: Format,
    /// How open connections report: pulled every interval, or by a program that runs on their packets
    #[arg(long, value_enum, value_name = "HOW", env = "MESHD_PROGRESS", help_heading = "Telemetry")]
    #[arg(default_value = "snapshot")]
    pub progress: Progress,
    /// How often open connections report
    #[arg(long, value_name = "TIME", env = "MESHD_REPORT_INTERVAL", help_heading = "Telemetry", default_value = "5s")]
    #[arg(value_parser = duration)]
    pub report_interval: Duration,
    /// Age from which on a connection is long
    #[arg(long, value_name = "TIME", env = "MESHD_LONG_CONNECTION_THRESHOLD", help_heading = "Telemetry")]
    #[arg(default_value = "5s", value_parser = duration)]
    pub long_connection_threshold: Duration,
    /// Series that one family may hold; what is new beyond counts into the series `other`
    #[arg(long, value_name = "N", env = "MESHD_MAX_SERIES", help_heading = "Telemetry", default_value_t = 100_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub max_series: u32,
    /// Report what the node itself opens to its pods (kubelet probes) too
    #[arg(long, value_name = "BOOL", env = "MESHD_INCLUDE_NODE_TRAFFIC", help_heading = "Telemetry")]
    #[arg(value_parser = go_bool, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(default_value = "false", hide_default_value = true, action = clap::ArgAction::Set)]
    pub include_node_traffic: bool,
    /// Count connections that are older than meshd with all that they have moved, not from now on
    #[arg(long, value_name = "BOOL", env = "MESHD_ADOPT_HISTORY", help_heading = "Telemetry")]
    #[arg(value_parser = go_bool, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(default_value = "false", hide_default_value = true, action = clap::ArgAction::Set)]
    pub adopt_history: bool,

    /// Where metrics are served; [::] is IPv4 too
    #[arg(
        long,
        value_name = "ADDR",
        env = "MESHD_METRICS_ADDRESS",
        help_heading = "Ports",
        default_value = "[::]:15020"
    )]
    pub metrics_address: SocketAddr,
    /// Where readiness is served; [::] is IPv4 too
    #[arg(
        long,
        value_name = "ADDR",
        env = "MESHD_READY_ADDRESS",
        help_heading = "Ports",
        default_value = "[::]:15021"
    )]
    pub ready_address: SocketAddr,
    /// Where switches and debug output are served
    #[arg(long, value_name = "ADDR", env = "MESHD_ADMIN_ADDRESS", help_heading = "Ports")]
    #[arg(default_value = "127.0.0.1:15200")]
    pub admin_address: SocketAddr,

    /// Level of the process's own log, on standard error
    #[arg(
        long,
        value_enum,
        value_name = "LEVEL",
        env = "MESHD_LOG_LEVEL",
        help_heading = "Log",
        default_value = "info"
    )]
    pub log_level: Level,
    /// Form of the process's own log
    #[arg(
        long,
        value_enum,
        value_name = "FORM",
        env = "MESHD_LOG_FORMAT",
        help_heading = "Log",
        default_value = "text"
    )]
    pub log_format: Format,
}

/// What makes a network namespace managed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Manage {
    /// Mesh state names a workload of this node in it, or the CNI signal enrolled it
    Mesh,
    /// The CNI signal alone
    Signal,
    /// Every namespace under the cgroup is
    All,
}

/// What the end of the process leaves. (One that is killed leaves everything.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnExit {
    /// Nothing
    Detach,
    /// Everything attached, for the next start to take over
    Keep,
}

/// What a waypoint is told of what was dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Metadata {
    /// Nothing
    None,
    /// Who connects and what was dialled, by PROXY protocol version 2
    Proxy,
    /// What was dialled, in Kmesh's form
    Tlv,
}

/// How open connections report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// Pulled from the socket storage every report interval
    Snapshot,
    /// Sent by a program that runs on packets
    Packet,
}

/// The form of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines to read
    Text,
    /// One JSON object a line
    Json,
}

impl From<Progress> for crate::kernel::Progress {
    fn from(progress: Progress) -> Self {
        match progress {
            Progress::Snapshot => Self::Snapshot,
            Progress::Packet => Self::Packet,
        }
    }
}

impl From<Metadata> for crate::kernel::Metadata {
    fn from(metadata: Metadata) -> Self {
        match metadata {
            Metadata::None => Self::None,
            Metadata::Proxy => Self::Proxy,
            Metadata::Tlv => Self::Tlv,
        }
    }
}

impl From<Format> for telemetry::LogFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Text => Self::Text,
            Format::Json => Self::Json,
        }
    }
}

/// Bounds of the report interval.
const REPORT_INTERVAL: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

impl Run {
    /// Refuses what makes no sense together, by the names of the flags.
    ///
    /// # Errors
    /// One sentence for the user.
    pub fn check(&self) -> Result<(), String> {
        match (&self.mesh_config, &self.xds_address) {
            (Some(_), Some(_)) => return Err("--mesh-config and --xds-address exclude each other: give one".into()),
            (None, None) if self.manage != Manage::All => {
                return Err("mesh state is missing: give --mesh-config or --xds-address, or --manage all".into());
            }
            _ => {}
        }
        let finer = [
            (self.workload_metrics, "--workload-metrics"),
            (self.connection_metrics, "--connection-metrics"),
            (self.access_log, "--access-log"),
            // Only sockets that telemetry has given storage are found.
            (self.accelerate, "--accelerate"),
        ];
        if let Some((_, name)) = finer.iter().find(|(on, _)| *on && !self.monitoring) {
            return Err(format!("{name} needs --monitoring"));
        }
        if self.ring_slots.is_some_and(|slots| !slots.is_power_of_two()) {
            return Err("--ring-slots must be a power of two".into());
        }
        if !REPORT_INTERVAL.contains(&self.report_interval) {
            return Err("--report-interval must be from 100ms to 1h".into());
        }
        if self.long_connection_threshold > Duration::from_secs(86_400) {
            return Err("--long-connection-threshold must be at most 1d".into());
        }
        Ok(())
    }
}
