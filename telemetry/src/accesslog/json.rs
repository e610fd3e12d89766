//! Lines as JSON objects.
//!
//! The fields of a text line under the same names, typed: `null` where unknown, `srtt`, `min_rtt` and `rttvar` in us,
//! `duration` in ms; and more.

use abi::Endpoint;
use cache::{Str, Workload};

use super::{
    escape::{address, json_string, milliseconds, number},
    line::Line,
    text::error_name,
    time::Times,
};

/// Writes JSON lines.
#[derive(Debug)]
pub(super) struct Json {
    now: Times,
    start: Times,
    cluster_id: Str,
}

impl Json {
    pub(super) fn new(cluster_id: Str) -> Self {
        Self { now: Times::rfc3339(), start: Times::rfc3339(), cluster_id }
    }

    /// Appends one line and its newline.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, line: &Line) {
        let record = &line.record;
        let (source, destination) = (line.source_workload(), line.destination_workload());
        out.extend_from_slice(b"{\"time\":\"");
        self.now.write(out, line.time_ns);
        out.extend_from_slice(b"\"");
        key(out, "src.addr");
        quoted(out, |out| address(out, line.source()));
        name(out, "src.workload", source.map(|w| &*w.name));
        name(out, "src.namespace", source.map(|w| &*w.namespace));
        key(out, "dst.addr");
        quoted(out, |out| address(out, line.destination()));
        name(out, "dst.service", Some(line.service()));
        name(out, "dst.workload", destination.map(|w| &*w.name));
        name(out, "dst.namespace", Some(line.destination_namespace()));
        key(out, "start_time");
        quoted(out, |out| self.start.write(out, line.start_ns));
        name(out, "direction", Some(line.direction()));
        name(out, "state", Some(line.state()));
        for (field, value) in [
            ("sent_bytes", record.sent),
            ("received_bytes", record.received),
            ("packet_loss", record.lost),
            ("retransmissions", record.retransmits),
            ("srtt", record.srtt_us.into()),
            ("min_rtt", record.min_rtt_us.into()),
        ] {
            key(out, field);
            number(out, value);
        }
        key(out, "duration");
        milliseconds(out, line.age_ns);
        key(out, "error");
        match record.error {
            0 => out.extend_from_slice(b"null"),
            error => quoted(out, |out| error_name(out, error)),
        }
        self.identity(out, "src", source);
        self.identity(out, "dst", destination);
        self.more(out, line);
        out.extend_from_slice(b"}\n");
    }

    fn identity(&self, out: &mut Vec<u8>, end: &str, workload: Option<&Workload>) {
        let cluster = workload.map(|w| if w.cluster_id.is_empty() { &*self.cluster_id } else { &*w.cluster_id });
        let principal = workload.map(Workload::principal);
        for (field, value) in [
            ("principal", principal.as_deref()),
            ("cluster", cluster),
            ("uid", workload.map(|w| &*w.uid)),
            ("owner", workload.map(|w| &*w.workload_name)),
        ] {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(end.as_bytes());
            out.push(b'.');
            out.extend_from_slice(field.as_bytes());
            out.extend_from_slice(b"\":");
            value_or_null(out, value);
        }
    }

    fn more(&self, out: &mut Vec<u8>, line: &Line) {
        let record = &line.record;
        key(out, "dst.original");
        endpoint(out, record.original);
        key(out, "waypoint");
        match (record.flags & abi::record::flags::WAYPOINT != 0, line.names.destination.as_deref()) {
            (false, _) => out.extend_from_slice(b"null"),
            (true, Some(waypoint)) => value_or_null(out, Some(&waypoint.name)),
            (true, None) => quoted(out, |out| address(out, line.destination())),
        }
        key(out, "reset");
        let reset = record.flags & abi::record::flags::RESET != 0;
        out.extend_from_slice(truth(reset));
        key(out, "adopted");
        out.extend_from_slice(truth(line.adopted));
        for (field, value) in [
            ("cookie", record.cookie),
            ("netns", record.netns),
            ("rttvar", record.rttvar_us.into()),
            ("cwnd", record.cwnd.into()),
            ("mss", record.mss.into()),
            ("segments_in", record.segments_in),
            ("segments_out", record.segments_out),
        ] {
            key(out, field);
            number(out, value);
        }
    }
}

fn truth(value: bool) -> &'static [u8] {
    if value { b"true" } else { b"false" }
}

fn key(out: &mut Vec<u8>, key: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
}

fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

fn name(out: &mut Vec<u8>, field: &str, value: Option<&str>) {
    key(out, field);
    value_or_null(out, value);
}

fn value_or_null(out: &mut Vec<u8>, value: Option<&str>) {
    match value {
        None | Some("") => out.extend_from_slice(b"null"),
        Some(value) => json_string(out, value),
    }
}

fn endpoint(out: &mut Vec<u8>, endpoint: Endpoint) {
    if endpoint.is_none() {
        out.extend_from_slice(b"null");
    } else {
        quoted(out, |out| address(out, endpoint.into()));
    }
}
