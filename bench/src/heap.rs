//! What is allocated, counted by the allocator of a benchmark that cares.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// The system's allocator, counting; a benchmark names it its global one.
pub static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Returns how many bytes are allocated now.
pub fn bytes() -> f64 {
    let stats = COUNTING.stats();
    stats.bytes_allocated as f64 - stats.bytes_deallocated as f64
}
