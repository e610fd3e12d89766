//! The access log: lines are queued by the record thread and written by a thread of its own.
//!
//! The record thread never waits: it collects lines and hands them over in batches, and what a slow or broken sink leaves no
//! room for is dropped and counted. A sink that fails is tried again with the lines that come next.

mod escape;
mod json;
pub mod line;
#[cfg(test)]
mod tests;
mod text;
mod time;
mod writer;

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cache::Str;

use crate::config::{Config, LogFormat};
use line::Line;
pub use time::{rfc3339, text as time_text};

/// Lines that wake the writer; fewer wait for the next [`AccessLog::hand_over`].
const BATCH: usize = 256;

/// Lines that wait for the writer at most, some 4 MB.
pub const CAPACITY: usize = 1 << 14;

/// The record thread's end of the access log.
#[derive(Debug)]
pub struct AccessLog {
    pending: Vec<Line>,
    shared: Arc<Shared>,
}

/// How many lines were written and dropped.
#[derive(Debug, Default)]
pub struct LogCounts {
    written: AtomicU64,
    dropped: AtomicU64,
}

impl LogCounts {
    /// Returns how many lines the sink took whole.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Returns how many lines found no room or a sink that failed.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
    drained: Condvar,
    counts: LogCounts,
    format: LogFormat,
    cluster_id: Str,
}

#[derive(Debug, Default)]
struct Queue {
    lines: Vec<Line>,
    writing: bool,
    closed: bool,
}

impl AccessLog {
    /// Starts the writer over a sink, in the form that the settings name.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new(config: &Config, sink: impl io::Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            more: Condvar::new(),
            drained: Condvar::new(),
            counts: LogCounts::default(),
            format: config.log_format,
            cluster_id: config.cluster_id.clone(),
        });
        let theirs = shared.clone();
        std::thread::Builder::new().name("accesslog".into()).spawn(move || writer::run(&theirs, sink))?;
        Ok(Self { pending: Vec::new(), shared })
    }

    /// Queues a line; does not wait and, while there is room, does not drop.
    #[inline]
    pub fn push(&mut self, line: Line) {
        if self.pending.len() >= CAPACITY {
            self.shared.counts.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.pending.push(line);
        if self.pending.len().is_multiple_of(BATCH) {
            self.hand_over();
        }
    }

    /// Counts lines as dropped that could not be made.
    pub fn skip(&self, lines: u64) {
        self.shared.counts.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    /// Gives the writer what was queued, without waiting; to be called every 100 ms or so.
    pub fn hand_over(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let shared = self.shared.clone();
        let queue = match shared.queue.try_lock() {
            Ok(queue) => queue,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // The writer is just taking lines: the next call finds it done.
            Err(TryLockError::WouldBlock) => return,
        };
        self.append_to(queue);
    }

    /// Waits until every line that was queued is written or given up, for at most `limit`; tells whether that came true.
    pub fn flush(&mut self, limit: Duration) -> bool {
        let shared = self.shared.clone();
        self.append_to(shared.lock());
        let busy = |queue: &mut Queue| queue.writing || !queue.lines.is_empty();
        let waited = shared.drained.wait_timeout_while(shared.lock(), limit, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Returns how many lines were written so far.
    pub fn written(&self) -> u64 {
        self.shared.counts.written()
    }

    /// Returns how many lines were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.shared.counts.dropped()
    }

    fn append_to(&mut self, mut queue: MutexGuard<'_, Queue>) {
        let room = CAPACITY.saturating_sub(queue.lines.len());
        let excess = self.pending.len().saturating_sub(room);
        self.pending.truncate(room);
        queue.lines.append(&mut self.pending);
        drop(queue);
        self.shared.more.notify_one();
        self.shared.counts.dropped.fetch_add(excess as u64, Ordering::Relaxed);
    }
}

impl Drop for AccessLog {
    /// Lets the writer end once it has written what is queued; does not wait for it ([`AccessLog::flush`] does).
    fn drop(&mut self) {
        let shared = self.shared.clone();
        self.append_to(shared.lock());
        shared.lock().closed = true;
        shared.more.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a sink that is not ready be for as long as `pause`; false once the log is closed, when nobody waits for it.
    fn lingers(&self, pause: Duration) -> bool {
        let waited = self.more.wait_timeout_while(self.lock(), pause, |queue| !queue.closed);
        waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}
