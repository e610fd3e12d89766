//! One line, before it is text.

use std::net::SocketAddr;

use abi::{Direction, Record};
use cache::Workload;

use crate::attribute::Attribution;

/// What a line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A long connection is still open.
    Open,
    /// A connection ended.
    Closed,
    /// A connect failed.
    Failed,
}

/// One line of the access log: shares what the connection keeps, owns no text.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it tells.
    pub event: Event,
    /// The connection's totals.
    pub record: Record,
    /// Its names.
    pub names: Attribution,
    /// When the record was made, ns since the Unix epoch.
    pub time_ns: u64,
    /// When the connection began, ns since the Unix epoch.
    pub start_ns: u64,
    /// How long it has lasted, ns.
    pub age_ns: u64,
    /// It was open before anyone watched it: start and age are those of its adoption.
    pub adopted: bool,
}

impl Line {
    /// Tells whether the connection was opened here.
    pub(super) fn outbound(&self) -> bool {
        self.record.direction == Direction::Outbound as u8
    }

    /// Returns who opened the connection.
    pub(super) fn source(&self) -> SocketAddr {
        if self.outbound() { self.record.local } else { self.record.remote }.into()
    }

    /// Returns who accepted it, after steering.
    pub(super) fn destination(&self) -> SocketAddr {
        if self.outbound() { self.record.remote } else { self.record.local }.into()
    }

    pub(super) fn source_workload(&self) -> Option<&Workload> {
        self.names.source.as_deref().map(|w| &w.value)
    }

    pub(super) fn destination_workload(&self) -> Option<&Workload> {
        self.names.destination.as_deref().map(|w| &w.value)
    }

    /// Returns the service's hostname, empty where unknown.
    pub(super) fn service(&self) -> &str {
        self.names.service.as_deref().map_or("", |s| &s.hostname)
    }

    /// Returns the service's namespace, without one the workload's, empty where unknown.
    pub(super) fn destination_namespace(&self) -> &str {
        let workload = || self.destination_workload().map_or("", |w| &w.namespace);
        self.names.service.as_deref().map_or_else(workload, |s| &s.namespace)
    }

    pub(super) fn direction(&self) -> &'static str {
        if self.outbound() { "OUTBOUND" } else { "INBOUND" }
    }

    pub(super) fn state(&self) -> &'static str {
        match self.event {
            Event::Open => "BPF_TCP_ESTABLISHED",
            Event::Closed | Event::Failed => "BPF_TCP_CLOSE",
        }
    }
}
