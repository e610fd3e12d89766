//! One label set and its counters.

use std::{
    hash::{BuildHasher, Hash},
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
};

use hashbrown::Equivalent;
use rustc_hash::FxBuildHasher;

use crate::labels::{Flag, Reporter};

/// Where in a row a metric's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The counter of this number; in rows without a flag only.
    Counter(usize),
    /// Counter 1, closed connections, in rows without a flag and in those of resets.
    Closed,
    /// Counter 0 of the rows of failed connects.
    Failed,
}

impl Slot {
    /// The number of the counter that [`Slot::Closed`] reads.
    pub(crate) const CLOSED: usize = 1;
}

/// One label set and the counters of every metric that has it.
///
/// Only the record thread writes, so a counter is loaded and stored, not added to atomically.
#[derive(Debug)]
pub(crate) struct Row<L, const N: usize> {
    pub(crate) labels: L,
    pub(crate) reporter: Reporter,
    pub(crate) flag: Flag,
    /// Its place among the published rows.
    pub(super) place: u32,
    /// Connections that hold a handle.
    pub(super) live: AtomicU32,
    /// When it last changed, a [`tick`].
    pub(super) changed: AtomicU32,
    /// Its block in the image, 0 before it has one.
    pub(super) block: AtomicU32,
    /// It waits to be brought into the image.
    pub(super) waits: AtomicBool,
    pub(super) values: [AtomicU64; N],
}

impl<L: Hash + Eq, const N: usize> Row<L, N> {
    pub(super) fn new(labels: L, reporter: Reporter, flag: Flag, place: u32, now_ns: u64) -> Self {
        let values = [const { AtomicU64::new(0) }; N];
        let (live, changed) = (AtomicU32::new(0), AtomicU32::new(tick(now_ns)));
        let (block, waits) = (AtomicU32::new(0), AtomicBool::new(false));
        Self { labels, reporter, flag, place, live, changed, block, waits, values }
    }

    pub(super) fn hash(&self) -> u64 {
        hash_of(&self.labels, self.reporter, self.flag)
    }

    #[inline]
    pub(super) fn is(&self, labels: &impl Equivalent<L>, reporter: Reporter, flag: Flag) -> bool {
        self.flag == flag && self.reporter == reporter && labels.equivalent(&self.labels)
    }
}

impl<L, const N: usize> Row<L, N> {
    /// A counter never falls, also when it was told what no connection can have moved.
    #[inline]
    pub(super) fn add(&self, counter: usize, n: u64) {
        let value = &self.values[counter];
        value.store(value.load(Relaxed).saturating_add(n), Relaxed);
    }

    #[inline]
    pub(super) fn touch(&self, now_ns: u64) {
        self.changed.store(tick(now_ns), Relaxed);
    }

    /// Tells whether nobody holds it and nothing changed for as many ticks.
    pub(super) fn is_idle(&self, now_ns: u64, ticks: u32) -> bool {
        let quiet = tick(now_ns).wrapping_sub(self.changed.load(Relaxed));
        // Half the range is the future: a record may be younger than the clock reading that `now_ns` is.
        self.live.load(Relaxed) == 0 && quiet >= ticks && quiet < u32::MAX / 2
    }

    /// Returns a metric's value, or nothing where this row's label set is none of the metric's.
    #[inline]
    pub(crate) fn value(&self, slot: Slot) -> Option<u64> {
        let counter = match (slot, self.flag) {
            (Slot::Counter(n), Flag::None) => n,
            (Slot::Closed, Flag::None | Flag::Reset) => Slot::CLOSED,
            (Slot::Counter(_), _) | (_, Flag::None | Flag::Reset) | (Slot::Closed, _) => return None,
            (Slot::Failed, _) => 0,
        };
        Some(self.values[counter].load(Relaxed))
    }
}

/// Returns the hash of a row's identity; what is [`Equivalent`] to labels hashes as they do.
#[inline]
pub(super) fn hash_of(labels: &impl Hash, reporter: Reporter, flag: Flag) -> u64 {
    FxBuildHasher.hash_one((labels, reporter as u8, flag as u8))
}

/// Nanoseconds to the unit in which rows keep time: 16.8 ms, so that 32 bits wrap after two years.
pub(super) const fn tick(ns: u64) -> u32 {
    (ns >> TICK_BITS) as u32
}

pub(super) const TICK_BITS: u32 = 24;
