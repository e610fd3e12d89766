//! The metrics of the families: name, help, unit and where the number is, each once.

use crate::series::Slot;

/// Counters of a row, by number.
pub(crate) mod counter {
    /// Opened connections.
    pub(crate) const OPENED: usize = 0;
    /// Closed connections.
    pub(crate) const CLOSED: usize = 1;
    /// Payload bytes received.
    pub(crate) const RECEIVED: usize = 2;
    /// Payload bytes sent.
    pub(crate) const SENT: usize = 3;
    /// Segments retransmitted.
    pub(crate) const RETRANSMITS: usize = 4;
    /// Packets lost.
    pub(crate) const LOST: usize = 5;
    /// Failed connects, in rows that have a reason for it.
    pub(crate) const FAILED: usize = 0;
    /// How many a row of the service family has.
    pub(crate) const SERVICE: usize = 4;
    /// How many a row of the workload family has.
    pub(crate) const WORKLOAD: usize = 6;
    /// How many a row of a long connection has.
    pub(crate) const CONNECTION: usize = 4;

    /// Counters of a long connection's row.
    pub(crate) mod own {
        /// Payload bytes sent.
        pub(crate) const SENT: usize = 0;
        /// Payload bytes received.
        pub(crate) const RECEIVED: usize = 1;
        /// Packets lost.
        pub(crate) const LOST: usize = 2;
        /// Segments retransmitted.
        pub(crate) const RETRANSMITS: usize = 3;
    }
}

/// One metric of a family; all of them are counters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    /// The name without `_total`, as OpenMetrics calls the family.
    pub(crate) name: &'static str,
    /// What it counts.
    pub(crate) help: &'static str,
    /// The unit its name ends with, or nothing.
    pub(crate) unit: &'static str,
    /// Where a row has the number.
    pub(crate) slot: Slot,
    /// Another name of the metric before: the same numbers, which retire once.
    pub(crate) alias: bool,
}

const fn metric(name: &'static str, help: &'static str, unit: &'static str, slot: Slot) -> Metric {
    Metric { name, help, unit, slot, alias: false }
}

const fn alias(name: &'static str, help: &'static str, slot: Slot) -> Metric {
    Metric { name, help, unit: "", slot, alias: true }
}

/// The metrics of the service family.
pub(crate) const SERVICE: &[Metric] = &[
    metric("kmesh_tcp_connections_opened", "TCP connections opened to a service.", "", Slot::Counter(counter::OPENED)),
    metric("kmesh_tcp_connections_closed", "TCP connections closed to a service.", "", Slot::Closed),
    metric(
        "kmesh_tcp_received_bytes",
        "Payload bytes that the reporting end received in TCP connections to a service.",
        "bytes",
        Slot::Counter(counter::RECEIVED),
    ),
    metric(
        "kmesh_tcp_sent_bytes",
        "Payload bytes that the reporting end sent, and its peer acknowledged, in TCP connections to a service.",
        "bytes",
        Slot::Counter(counter::SENT),
    ),
    metric("kmesh_tcp_connections_failed", "TCP connects to a service that failed.", "", Slot::Failed),
    alias(
        "kmesh_tcp_conntections_failed",
        "The same as kmesh_tcp_connections_failed_total, by its former name.",
        Slot::Failed,
    ),
];

/// The metrics of the workload family.
pub(crate) const WORKLOAD: &[Metric] = &[
    metric(
        "kmesh_tcp_workload_connections_opened",
        "TCP connections opened to a workload.",
        "",
        Slot::Counter(counter::OPENED),
    ),
    metric("kmesh_tcp_workload_connections_closed", "TCP connections closed to a workload.", "", Slot::Closed),
    metric(
        "kmesh_tcp_workload_received_bytes",
        "Payload bytes that the reporting end received in TCP connections to a workload.",
        "bytes",
        Slot::Counter(counter::RECEIVED),
    ),
    metric(
        "kmesh_tcp_workload_sent_bytes",
        "Payload bytes that the reporting end sent, and its peer acknowledged, in TCP connections to a workload.",
        "bytes",
        Slot::Counter(counter::SENT),
    ),
    metric("kmesh_tcp_workload_connections_failed", "TCP connects to a workload that failed.", "", Slot::Failed),
    alias(
        "kmesh_tcp_workload_conntections_failed",
        "The same as kmesh_tcp_workload_connections_failed_total, by its former name.",
        Slot::Failed,
    ),
    metric(
        "kmesh_tcp_retrans",
        "Segments that the reporting end sent again in TCP connections to a workload.",
        "",
        Slot::Counter(counter::RETRANSMITS),
    ),
    metric(
        "kmesh_tcp_packet_loss",
        "Packets of the reporting end that were lost in TCP connections to a workload.",
        "",
        Slot::Counter(counter::LOST),
    ),
];

/// The metrics of a long connection.
pub(crate) const CONNECTION: &[Metric] = &[
    metric(
        "kmesh_tcp_connection_sent_bytes",
        "Payload bytes that the reporting end sent, and its peer acknowledged, in one long TCP connection.",
        "bytes",
        Slot::Counter(counter::own::SENT),
    ),
    metric(
        "kmesh_tcp_connection_received_bytes",
        "Payload bytes that the reporting end received in one long TCP connection.",
        "bytes",
        Slot::Counter(counter::own::RECEIVED),
    ),
    metric(
        "kmesh_tcp_connection_packet_lost",
        "Packets of the reporting end that were lost in one long TCP connection.",
        "",
        Slot::Counter(counter::own::LOST),
    ),
    metric(
        "kmesh_tcp_connection_retrans",
        "Segments that the reporting end sent again in one long TCP connection.",
        "",
        Slot::Counter(counter::own::RETRANSMITS),
    ),
];
