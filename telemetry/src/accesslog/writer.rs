//! The thread that writes lines.

use std::{io, sync::atomic::Ordering, time::Duration};

use super::{Queue, Shared, json::Json, line::Line, text::Text};
use crate::config::LogFormat;

/// Bytes that go to the sink at once, at most a line more.
const CHUNK: usize = 1 << 16;

/// How long a sink that is not ready (a pipe set non-blocking by someone else) is left alone.
const NOT_READY: Duration = Duration::from_millis(10);

/// Writes batches until the queue is closed and empty.
pub(super) fn run(shared: &Shared, sink: impl io::Write) {
    let mut format = match shared.format {
        LogFormat::Text => Format::Text(Text::new()),
        LogFormat::Json => Format::Json(Json::new(shared.cluster_id.clone())),
    };
    let mut sink = Sink { sink, buffer: Vec::new(), lines: 0, torn: false, failing: false };
    let mut batch = Vec::new();
    while take(shared, &mut batch) {
        for line in batch.drain(..) {
            format.write(&mut sink.buffer, &line);
            sink.lines += 1;
            if sink.buffer.len() >= CHUNK {
                sink.write_out(shared);
            }
        }
        sink.write_out(shared);
        let mut queue = shared.lock();
        queue.writing = false;
        if queue.lines.is_empty() {
            shared.drained.notify_all();
        }
    }
}

/// Waits for lines and takes all there are; false once the queue is closed and empty.
fn take(shared: &Shared, batch: &mut Vec<Line>) -> bool {
    let idle = |queue: &mut Queue| queue.lines.is_empty() && !queue.closed;
    let waited = shared.more.wait_while(shared.lock(), idle);
    let mut queue = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
    std::mem::swap(&mut queue.lines, batch);
    queue.writing = !batch.is_empty();
    queue.writing
}

enum Format {
    Text(Text),
    Json(Json),
}

impl Format {
    fn write(&mut self, out: &mut Vec<u8>, line: &Line) {
        match self {
            Self::Text(text) => text.write(out, line),
            Self::Json(json) => json.write(out, line),
        }
    }
}

/// The sink and what is on its way to it.
struct Sink<W> {
    sink: W,
    buffer: Vec<u8>,
    /// Lines in the buffer.
    lines: u64,
    /// The last write ended within a line: the next one begins with a newline.
    torn: bool,
    failing: bool,
}

impl<W: io::Write> Sink<W> {
    /// Writes the buffer and empties it; what the sink does not take is counted as dropped.
    fn write_out(&mut self, shared: &Shared) {
        if self.buffer.is_empty() {
            return;
        }
        let (taken, result) = self.write_buffer(shared);
        let lines = std::mem::take(&mut self.lines);
        let written = match taken == self.buffer.len() {
            true => lines,
            false => self.buffer[..taken].iter().filter(|b| **b == b'\n').count() as u64,
        };
        shared.counts.written.fetch_add(written, Ordering::Relaxed);
        shared.counts.dropped.fetch_add(lines - written, Ordering::Relaxed);
        if taken > 0 {
            self.torn = self.buffer[taken - 1] != b'\n';
        }
        let failing = result.is_err();
        match result {
            Err(error) if !self.failing => {
                tracing::warn!(%error, "the access log cannot be written, lines are dropped")
            }
            Ok(()) if self.failing => tracing::info!("the access log is written again"),
            _ => {}
        }
        self.failing = failing;
        self.buffer.clear();
    }

    /// Writes until all is taken or the sink fails; returns how many bytes of the buffer it took.
    fn write_buffer(&mut self, shared: &Shared) -> (usize, io::Result<()>) {
        if self.torn {
            if let Err(error) = self.write_some(shared, b"\n") {
                return (0, Err(error));
            }
            self.torn = false;
        }
        let buffer = std::mem::take(&mut self.buffer);
        let mut taken = 0;
        let mut result = Ok(());
        while taken < buffer.len() && result.is_ok() {
            match self.write_some(shared, &buffer[taken..]) {
                Ok(n) => taken += n,
                Err(error) => result = Err(error),
            }
        }
        self.buffer = buffer;
        (taken, result.and_then(|()| self.sink.flush()))
    }

    fn write_some(&mut self, shared: &Shared, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.sink.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && shared.lingers(NOT_READY) => {}
                done => return done,
            }
        }
    }
}
