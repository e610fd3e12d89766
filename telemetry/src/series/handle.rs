//! The writer's hold on a row.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::row::Row;

/// A hold on one series, kept by a connection for as long as it lives; while there is one the series stays.
///
/// It belongs to the record thread: adding is a plain load and store, so two threads that add would lose counts (and
/// nothing worse).
pub struct Handle<L, const N: usize>(Arc<Row<L, N>>);

impl<L, const N: usize> Handle<L, N> {
    pub(super) fn new(row: Arc<Row<L, N>>) -> Self {
        row.live.fetch_add(1, Relaxed);
        Self(row)
    }

    #[inline]
    pub(crate) fn add(&self, counter: usize, n: u64, now_ns: u64) {
        self.0.add(counter, n);
        self.0.touch(now_ns);
    }

    /// Lets go at a known time, from which the row's idle time counts.
    pub fn leave(self, now_ns: u64) {
        self.0.touch(now_ns);
    }

    /// Returns the series' block in the image, 0 before it has one.
    pub(crate) fn block(&self) -> u32 {
        self.0.block.load(Relaxed)
    }

    pub(super) fn row(&self) -> &Row<L, N> {
        &self.0
    }

    /// Tells whether two handles hold the same series.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<L, const N: usize> Drop for Handle<L, N> {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Relaxed);
    }
}

impl<L, const N: usize> fmt::Debug for Handle<L, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.0.values.iter().map(|v| v.load(Relaxed));
        f.debug_list().entries(values).finish()
    }
}
