//! The labels of the families: what they are called, what they are made of and how they are written.

mod cache;
mod render;

pub use cache::LabelCache;

use std::net::{IpAddr, SocketAddr};

use ::cache::{Service, Workload};

pub(crate) use render::Render;

/// Which end of a connection a series is seen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reporter {
    /// The end that opened it (OUTBOUND).
    Source,
    /// The end that accepted it (INBOUND).
    Destination,
}

impl Reporter {
    /// Both reporters, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Source, Self::Destination];

    /// Returns the label value.
    pub const fn value(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

impl From<abi::Direction> for Reporter {
    fn from(direction: abi::Direction) -> Self {
        match direction {
            abi::Direction::Outbound => Self::Source,
            abi::Direction::Inbound => Self::Destination,
        }
    }
}

/// The values of `response_flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Flag {
    /// `-`: opened, closed in order, bytes, retransmits, losses.
    None,
    /// Closed by a reset.
    Reset,
    /// A failed connect of no known reason.
    Connect,
    /// Refused by the peer.
    ConnectRefused,
    /// No answer in time.
    ConnectTimeout,
    /// No way to the peer.
    ConnectUnreachable,
    /// The program gave up first.
    ConnectAbandoned,
    /// Steering refused: no healthy endpoint.
    NoHealthyEndpoint,
}

impl Flag {
    /// Every flag.
    pub(crate) const ALL: [Self; 8] = [
        Self::None,
        Self::Reset,
        Self::Connect,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::ConnectUnreachable,
        Self::ConnectAbandoned,
        Self::NoHealthyEndpoint,
    ];

    /// Returns the label value.
    pub const fn value(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Reset => "RESET",
            Self::Connect => "CONNECT",
            Self::ConnectRefused => "CONNECT_REFUSED",
            Self::ConnectTimeout => "CONNECT_TIMEOUT",
            Self::ConnectUnreachable => "CONNECT_UNREACHABLE",
            Self::ConnectAbandoned => "CONNECT_ABANDONED",
            Self::NoHealthyEndpoint => "NO_HEALTHY_ENDPOINT",
        }
    }

    /// Returns the labels that every series ends with, without a comma before or after.
    pub(crate) const fn suffix(self) -> &'static str {
        macro_rules! suffix {
            ($flag:literal) => {
                concat!(
                    r#"request_protocol="tcp",response_flags=""#,
                    $flag,
                    r#"",connection_security_policy="unknown""#
                )
            };
        }
        match self {
            Self::None => suffix!("-"),
            Self::Reset => suffix!("RESET"),
            Self::Connect => suffix!("CONNECT"),
            Self::ConnectRefused => suffix!("CONNECT_REFUSED"),
            Self::ConnectTimeout => suffix!("CONNECT_TIMEOUT"),
            Self::ConnectUnreachable => suffix!("CONNECT_UNREACHABLE"),
            Self::ConnectAbandoned => suffix!("CONNECT_ABANDONED"),
            Self::NoHealthyEndpoint => suffix!("NO_HEALTHY_ENDPOINT"),
        }
    }
}

/// Which side of a connection a workload's labels describe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Destination,
}

/// The eight labels of a workload, `source_*` or `destination_*`. An empty value is written as `-`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkloadLabels<'a> {
    pub(crate) workload: &'a str,
    pub(crate) canonical_service: &'a str,
    pub(crate) canonical_revision: &'a str,
    pub(crate) workload_namespace: &'a str,
    pub(crate) principal: &'a str,
    pub(crate) app: &'a str,
    pub(crate) version: &'a str,
    pub(crate) cluster: &'a str,
}

impl<'a> WorkloadLabels<'a> {
    /// Every label of one value: `""` for unknown, `other` for the overflow series.
    pub(crate) fn all(value: &'a str) -> Self {
        Self {
            workload: value,
            canonical_service: value,
            canonical_revision: value,
            workload_namespace: value,
            principal: value,
            app: value,
            version: value,
            cluster: value,
        }
    }

    pub(crate) fn of(workload: &'a Workload, principal: &'a str, own_cluster: &'a str) -> Self {
        Self {
            workload: &workload.workload_name,
            canonical_service: &workload.canonical_name,
            canonical_revision: &workload.canonical_revision,
            workload_namespace: &workload.namespace,
            principal,
            app: &workload.canonical_name,
            version: &workload.canonical_revision,
            cluster: if workload.cluster_id.is_empty() { own_cluster } else { &workload.cluster_id },
        }
    }

    pub(crate) fn render(self, side: Side, out: &mut String) {
        let Self {
            workload,
            canonical_service,
            canonical_revision,
            workload_namespace,
            principal,
            app,
            version,
            cluster,
        } = self;
        let prefix = match side {
            Side::Source => "source_",
            Side::Destination => "destination_",
        };
        out.label(prefix, "workload", workload);
        out.label(prefix, "canonical_service", canonical_service);
        out.label(prefix, "canonical_revision", canonical_revision);
        out.label(prefix, "workload_namespace", workload_namespace);
        out.label(prefix, "principal", principal);
        out.label(prefix, "app", app);
        out.label(prefix, "version", version);
        out.label(prefix, "cluster", cluster);
    }
}

/// The three labels of the destination's pod. An empty value is written as `-`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PodLabels<'a> {
    pub(crate) address: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

impl<'a> PodLabels<'a> {
    pub(crate) fn all(value: &'a str) -> Self {
        Self { address: value, namespace: value, name: value }
    }

    pub(crate) fn render(self, out: &mut String) {
        let Self { address, namespace, name } = self;
        out.label("destination_pod_", "address", address);
        out.label("destination_pod_", "namespace", namespace);
        out.label("destination_pod_", "name", name);
    }
}

/// The three labels of the destination's service. An empty value is written as `-`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServiceLabels<'a> {
    pub(crate) hostname: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

impl<'a> ServiceLabels<'a> {
    pub(crate) fn all(value: &'a str) -> Self {
        Self { hostname: value, namespace: value, name: value }
    }

    pub(crate) fn of(service: &'a Service) -> Self {
        Self { hostname: &service.hostname, namespace: &service.namespace, name: &service.name }
    }

    pub(crate) fn render(self, out: &mut String) {
        let Self { hostname, namespace, name } = self;
        out.label("destination_", "service", hostname);
        out.label("destination_", "service_namespace", namespace);
        out.label("destination_", "service_name", name);
    }
}

/// The labels that only the series of one long connection have.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLabels<'a> {
    /// When it began, in the words of the access log.
    pub start_time: &'a str,
    /// Who opened it.
    pub source_address: SocketAddr,
    /// Whom it reached.
    pub destination_address: SocketAddr,
}

impl ConnectionLabels<'_> {
    /// Renders what stands before and what stands after the `source_*` labels.
    pub(crate) fn render(self) -> OwnText {
        let Self { start_time, source_address, destination_address } = self;
        let shown = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port()).to_string();
        OwnText::new(start_time, &shown(source_address), &shown(destination_address))
    }
}

/// The rendered labels of one long connection, in the two places where they stand.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OwnText {
    /// `start_time`, before the `source_*` labels.
    pub(crate) start: Box<str>,
    /// `source_address` and `destination_address`, after them.
    pub(crate) addresses: Box<str>,
}

impl OwnText {
    pub(crate) fn new(start_time: &str, source_address: &str, destination_address: &str) -> Self {
        let (mut start, mut addresses) = (String::with_capacity(64), String::with_capacity(96));
        start.label("", "start_time", start_time);
        addresses.label("source_", "address", source_address);
        addresses.label("destination_", "address", destination_address);
        Self { start: start.into(), addresses: addresses.into() }
    }
}

/// Returns an address as labels show it: an IPv4-mapped one as IPv4.
pub(crate) fn shown(address: IpAddr) -> String {
    address.to_canonical().to_string()
}
