//! Monotonic time to wall time.

use std::sync::atomic::{AtomicI64, Ordering};

use nix::time::{ClockId, clock_gettime};

/// How many times the two clocks are read; the tightest pair counts.
const SAMPLES: usize = 16;

/// The offset between the kernel's record times (`CLOCK_MONOTONIC`) and wall time (`CLOCK_REALTIME`), both in ns.
///
/// The wall clock may be set while the process runs, so the offset is re-measured from time to time; who shows a time
/// that must not move (`start_time`) converts once and keeps the result.
#[derive(Debug)]
pub struct Clock {
    offset_ns: AtomicI64,
}

impl Clock {
    /// Measures the offset of this machine.
    pub fn measure() -> Self {
        Self::with_offset(measured_offset_ns())
    }

    /// Makes a clock of a given offset: wall time less monotonic time, ns.
    pub const fn with_offset(offset_ns: i64) -> Self {
        Self { offset_ns: AtomicI64::new(offset_ns) }
    }

    /// Measures the offset again, so that a wall clock that was set is followed.
    pub fn remeasure(&self) {
        self.offset_ns.store(measured_offset_ns(), Ordering::Relaxed);
    }

    /// Converts a monotonic time, ns, to ns since the Unix epoch.
    #[inline]
    pub fn wall_ns(&self, monotonic_ns: u64) -> u64 {
        monotonic_ns.saturating_add_signed(self.offset_ns.load(Ordering::Relaxed))
    }

    /// Reads the monotonic clock that the kernel's records use, ns.
    pub fn monotonic_ns() -> u64 {
        read_ns(ClockId::CLOCK_MONOTONIC).unsigned_abs()
    }
}

/// Reads the wall clock between two reads of the monotonic one; of several such triples the tightest is off by at most
/// half the time its reads took, some tens of ns.
fn measured_offset_ns() -> i64 {
    let sample = || {
        let before = read_ns(ClockId::CLOCK_MONOTONIC);
        let wall = read_ns(ClockId::CLOCK_REALTIME);
        let after = read_ns(ClockId::CLOCK_MONOTONIC);
        (after - before, wall - (before + (after - before) / 2))
    };
    let (_, offset) = (0..SAMPLES).map(|_| sample()).min_by_key(|s| s.0).expect("SAMPLES is not zero");
    offset
}

fn read_ns(clock: ClockId) -> i64 {
    let time = clock_gettime(clock).expect("clock_gettime fails for unknown clocks only");
    time.tv_sec() * 1_000_000_000 + time.tv_nsec()
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::Clock;

    #[test]
    fn a_measured_clock_agrees_with_the_system() {
        let clock = Clock::with_offset(0);
        clock.remeasure();
        let system = || u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
        let before = system();
        let ours = clock.wall_ns(Clock::monotonic_ns());
        let after = system();
        assert!(before.saturating_sub(1_000_000) <= ours && ours <= after + 1_000_000, "{before} {ours} {after}");
    }

    #[test]
    fn two_measurements_differ_by_less_than_ten_microseconds() {
        let (a, b) = (Clock::measure(), Clock::measure());
        assert!(a.wall_ns(1 << 40).abs_diff(b.wall_ns(1 << 40)) < 10_000);
    }

    #[test]
    fn a_time_before_the_epoch_is_the_epoch() {
        assert_eq!(Clock::with_offset(-5).wall_ns(3), 0);
    }
}
