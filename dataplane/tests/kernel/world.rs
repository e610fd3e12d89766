//! The programs, loaded for one test's namespace, and what they said.

use std::{
    fs::File,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use abi::{Direction, Kind, Record, maps::counter};
use dataplane::kernel::{Kernel, Options, Source, netns_cookie};
use zerocopy::FromBytes as _;

use crate::sandbox::DEADLINE;

/// Loaded programs with telemetry attached, this thread's namespace managed.
pub(crate) struct World {
    pub(crate) kernel: Kernel,
    pub(crate) source: Source,
    pub(crate) seen: Vec<Record>,
}

/// Options for a test's cgroup.
pub(crate) fn options(cgroup: &Path) -> Options {
    Options { cgroup: cgroup.to_owned(), ..Options::default() }
}

/// The cookie of this thread's namespace.
pub(crate) fn own_cookie() -> u64 {
    netns_cookie(&File::open("/proc/thread-self/ns/net").expect("proc is mounted")).expect("root may enter it")
}

impl World {
    pub(crate) fn new(cgroup: &Path) -> Self {
        Self::with(&options(cgroup))
    }

    pub(crate) fn with(options: &Options) -> Self {
        let mut kernel = Kernel::load(options).unwrap_or_else(|error| panic!("{error:#}"));
        kernel.attach_telemetry().unwrap_or_else(|error| panic!("{error:#}"));
        kernel.manager().enrol(own_cookie()).expect("there is room");
        let source = kernel.take_source();
        Self { kernel, source, seen: Vec::new() }
    }

    /// Reads what the ring holds and returns all records so far.
    pub(crate) fn drain(&mut self) -> &[Record] {
        self.source
            .drain_ring(&mut |bytes| self.seen.push(Record::read_from_bytes(bytes).expect("records have one size")));
        &self.seen
    }

    /// Waits until a record fits.
    pub(crate) fn wait_for(&mut self, what: &str, fits: impl Fn(&Record) -> bool) -> Record {
        self.wait_for_all(what, 1, fits)[0]
    }

    /// Waits until so many records fit, and returns all that do.
    pub(crate) fn wait_for_all(&mut self, what: &str, count: usize, fits: impl Fn(&Record) -> bool) -> Vec<Record> {
        let begin = Instant::now();
        loop {
            let found: Vec<_> = self.drain().iter().filter(|record| fits(record)).copied().collect();
            if found.len() >= count {
                return found;
            }
            assert!(
                begin.elapsed() < DEADLINE,
                "{} of {count} records of {what}; there are {:#?}",
                found.len(),
                self.seen
            );
            self.source.wait(Duration::from_millis(20)).expect("the ring can be waited for");
        }
    }

    /// Waits for the end of the connection that has this local address.
    pub(crate) fn end_of(&mut self, local: SocketAddr) -> Record {
        self.wait_for("an end", |record| is_end(record) && SocketAddr::from(record.local) == local)
    }

    /// Waits for a failed connect to this address.
    pub(crate) fn failure(&mut self, remote: SocketAddr) -> Record {
        self.wait_for("a failure", |record| {
            record.kind == Kind::Failed as u32 && SocketAddr::from(record.remote) == remote
        })
    }

    /// Makes a pass over all connections and returns what it showed.
    pub(crate) fn pass(&mut self) -> Vec<Record> {
        self.source.show_all();
        let (shown, quiet) = self.pass_over_what_is_new();
        assert_eq!(quiet, [0; 0]);
        shown
    }

    /// Makes a pass and returns what it showed, and the cookies of connections in which it found nothing new.
    pub(crate) fn pass_over_what_is_new(&mut self) -> (Vec<Record>, Vec<u64>) {
        let mut quiet = Vec::new();
        let mut pass = self.source.snapshot().expect("the kernel iterates").expect("an iterator is attached");
        loop {
            let more = pass.go_on().expect("the kernel goes on");
            self.drain();
            self.source.quiet(&mut |cookie| quiet.push(cookie)).expect("settings can be changed");
            if !more {
                break;
            }
        }
        assert!(pass.is_complete());
        (self.seen.extract_if(.., |record| record.kind == Kind::Progress as u32).collect(), quiet)
    }

    pub(crate) fn counter(&self, slot: u32) -> u64 {
        self.source.counters().expect("counters can be read")[slot as usize]
    }

    /// Waits until the kernel has counted this, as [`World::counted`] tells it.
    pub(crate) fn wait_for_counts(&self, counts: [u64; 3]) {
        let begin = Instant::now();
        while self.counted() != counts {
            assert!(begin.elapsed() < DEADLINE, "{:?} counted, not {counts:?}", self.counted());
            std::thread::yield_now();
        }
    }

    /// What the kernel counted: established, closed, failed.
    pub(crate) fn counted(&self) -> [u64; 3] {
        [counter::ESTABLISHED, counter::CLOSED, counter::FAILED].map(|slot| self.counter(slot))
    }
}

pub(crate) fn is_end(record: &Record) -> bool {
    record.kind == Kind::Closed as u32
}

pub(crate) fn is_outbound(record: &Record) -> bool {
    record.direction == Direction::Outbound as u8
}
