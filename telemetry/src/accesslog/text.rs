//! Lines as text.

use std::io::Write;

use nix::errno::Errno;

use super::{
    escape::{address, milliseconds, number, text_name},
    line::{Event, Line},
    time::Times,
};

/// Writes text lines.
#[derive(Debug)]
pub(super) struct Text {
    now: Times,
    start: Times,
}

impl Text {
    pub(super) fn new() -> Self {
        Self { now: Times::text(), start: Times::text() }
    }

    /// Appends one line and its newline.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, line: &Line) {
        let (source, destination) = (line.source_workload(), line.destination_workload());
        let record = &line.record;
        out.extend_from_slice(b"accesslog: ");
        self.now.write(out, line.time_ns);
        out.extend_from_slice(b" src.addr=");
        address(out, line.source());
        name(out, "src.workload", source.map_or("", |w| &w.name));
        name(out, "src.namespace", source.map_or("", |w| &w.namespace));
        field(out, "dst.addr");
        address(out, line.destination());
        name(out, "dst.service", line.service());
        name(out, "dst.workload", destination.map_or("", |w| &w.name));
        name(out, "dst.namespace", line.destination_namespace());
        field(out, "start_time");
        self.start.write(out, line.start_ns);
        field(out, "direction");
        out.extend_from_slice(line.direction().as_bytes());
        field(out, "state");
        out.extend_from_slice(line.state().as_bytes());
        total(out, "sent_bytes", record.sent);
        total(out, "received_bytes", record.received);
        total(out, "packet_loss", record.lost);
        total(out, "retransmissions", record.retransmits);
        total(out, "srtt", record.srtt_us.into());
        out.extend_from_slice(b"us");
        total(out, "min_rtt", record.min_rtt_us.into());
        out.extend_from_slice(b"us");
        field(out, "duration");
        milliseconds(out, line.age_ns);
        out.extend_from_slice(b"ms");
        if line.event == Event::Failed {
            field(out, "error");
            error_name(out, record.error);
        }
        out.push(b'\n');
    }
}

fn field(out: &mut Vec<u8>, key: &str) {
    out.extend_from_slice(b", ");
    out.extend_from_slice(key.as_bytes());
    out.push(b'=');
}

fn name(out: &mut Vec<u8>, key: &str, value: &str) {
    field(out, key);
    text_name(out, value);
}

fn total(out: &mut Vec<u8>, key: &str, value: u64) {
    field(out, key);
    number(out, value);
}

/// Appends an errno's name, the number of one that has none, and `-` for 0.
pub(super) fn error_name(out: &mut Vec<u8>, error: u32) {
    match Errno::from_raw(error.cast_signed()) {
        _ if error == 0 => out.push(b'-'),
        Errno::UnknownErrno => number(out, error.into()),
        known => write!(out, "{known:?}").expect("a vector takes every write"),
    }
}
