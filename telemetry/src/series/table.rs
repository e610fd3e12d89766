//! Rows found by label set, their budget, their retirement and their publication.

use std::{
    collections::BTreeSet,
    hash::Hash,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use arc_swap::ArcSwap;
use hashbrown::{Equivalent, HashTable};

use super::{
    handle::Handle,
    row::{Row, TICK_BITS, hash_of, tick},
};
use crate::labels::{Flag, Reporter};

/// Rows of one chunk: what a change to one row copies at the next publication.
const CHUNK: usize = 256;

/// Rows that may leave between two steps of the image, which tell of all of them at once.
const MOST_LEFT: usize = 1024;

type Chunk<L, const N: usize> = Vec<Option<Arc<Row<L, N>>>>;

/// The rows as readers see them.
#[derive(Debug)]
pub(crate) struct Published<L, const N: usize> {
    chunks: Vec<Arc<Chunk<L, N>>>,
    pub(crate) standing: Standing<N>,
}

/// What a family is told by besides its rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing<const N: usize> {
    /// Label sets present, the overflow ones among them.
    pub(crate) series: usize,
    /// Label sets there may be, the overflow ones not counted.
    pub(crate) budget: usize,
    /// Handles given to the overflow series.
    pub(crate) overflowed: u64,
    /// What retired rows held, by counter; failures apart.
    pub(crate) retired: [u64; N],
    /// What retired rows of failed connects held.
    pub(crate) retired_failed: u64,
}

impl<L, const N: usize> Published<L, N> {
    /// Iterates over the rows, each label set once.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row<L, N>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).flatten().map(Arc::as_ref)
    }
}

/// The writer's side of one family.
#[derive(Debug)]
pub(crate) struct Table<L, const N: usize> {
    index: HashTable<Arc<Row<L, N>>>,
    chunks: Vec<Arc<Chunk<L, N>>>,
    /// Places without a row; the lowest is taken first, so that chunks at the end empty.
    free: BTreeSet<u32>,
    /// The labels of the overflow series.
    other: L,
    overflow_rows: usize,
    standing: Standing<N>,
    idle_ticks: u32,
    sweep_period_ns: u64,
    cursor: usize,
    swept_ns: u64,
    changed: bool,
    /// Places of rows that wait to be brought into the image, and blocks of rows that have left.
    pub(super) waiting: Vec<u32>,
    pub(super) left: Vec<u32>,
    shared: Arc<ArcSwap<Published<L, N>>>,
}

impl<L: Hash + Eq + Clone, const N: usize> Table<L, N> {
    /// Makes an empty family of at most `budget` label sets; those that are idle for `idle` leave, and label sets without
    /// room count as `other`.
    pub(crate) fn new(budget: usize, idle: Duration, other: L) -> Self {
        let standing = Standing { series: 0, budget, overflowed: 0, retired: [0; N], retired_failed: 0 };
        let idle_ns = u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX);
        Self {
            index: HashTable::new(),
            chunks: Vec::new(),
            free: BTreeSet::new(),
            other,
            overflow_rows: 0,
            standing,
            idle_ticks: tick(idle_ns).saturating_add(u32::from(!idle_ns.is_multiple_of(1 << TICK_BITS))),
            sweep_period_ns: idle_ns / 60,
            cursor: 0,
            swept_ns: 0,
            changed: false,
            waiting: Vec::new(),
            left: Vec::new(),
            shared: Arc::new(ArcSwap::from_pointee(Published { chunks: Vec::new(), standing })),
        }
    }

    /// Returns what readers load.
    pub(crate) fn shared(&self) -> Arc<ArcSwap<Published<L, N>>> {
        Arc::clone(&self.shared)
    }

    /// Returns a handle on the series of a label set, or on the overflow series where it is new and there is no room.
    ///
    /// `labels` may be a view of them, made into labels only for a new series.
    pub(crate) fn handle<'q, Q>(&mut self, labels: &'q Q, reporter: Reporter, flag: Flag, now_ns: u64) -> Handle<L, N>
    where
        Q: Hash + Equivalent<L>,
        L: From<&'q Q>,
    {
        let hash = hash_of(labels, reporter, flag);
        if let Some(row) = self.index.find(hash, |row| row.is(labels, reporter, flag)) {
            return Handle::new(Arc::clone(row));
        }
        if self.index.len() - self.overflow_rows < self.standing.budget {
            return Handle::new(self.insert(hash, L::from(labels), reporter, flag, now_ns));
        }
        self.standing.overflowed += 1;
        self.changed = true;
        let other = self.other.clone();
        let hash = hash_of(&other, reporter, flag);
        if let Some(row) = self.index.find(hash, |row| row.is(&other, reporter, flag)) {
            return Handle::new(Arc::clone(row));
        }
        self.overflow_rows += 1;
        Handle::new(self.insert(hash, other, reporter, flag, now_ns))
    }

    /// Removes what has been idle for long enough. Called often, it looks at a share of the rows each time, so that each is
    /// looked at once in a sixtieth of the idle time, or two where the family shrinks meanwhile.
    pub(crate) fn retire(&mut self, now_ns: u64) {
        let places = self.chunks.len() * CHUNK;
        let elapsed = now_ns.saturating_sub(self.swept_ns);
        let share = if elapsed >= self.sweep_period_ns {
            places
        } else {
            (places as u128 * u128::from(elapsed)).div_ceil(u128::from(self.sweep_period_ns)) as usize
        };
        self.swept_ns = now_ns;
        for _ in 0..share {
            if self.left.len() >= MOST_LEFT {
                break;
            }
            self.cursor = if self.cursor + 1 >= places { 0 } else { self.cursor + 1 };
            self.retire_place(self.cursor, now_ns);
        }
        self.trim();
    }

    /// Adds up all rows and what was retired: counters, then failures.
    pub(crate) fn totals(&self) -> ([u64; N], u64) {
        let (mut counters, mut failed) = (self.standing.retired, self.standing.retired_failed);
        for row in self.index.iter() {
            match row.flag {
                Flag::None | Flag::Reset => {
                    for (sum, value) in counters.iter_mut().zip(&row.values) {
                        *sum = sum.saturating_add(value.load(Relaxed));
                    }
                }
                _ => failed = failed.saturating_add(row.values[0].load(Relaxed)),
            }
        }
        (counters, failed)
    }

    /// Makes what was inserted and removed since the last call visible to readers.
    pub(crate) fn publish(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        self.standing.series = self.index.len();
        self.shared.store(Arc::new(Published { chunks: self.chunks.clone(), standing: self.standing }));
    }

    fn insert(&mut self, hash: u64, labels: L, reporter: Reporter, flag: Flag, now_ns: u64) -> Arc<Row<L, N>> {
        let place = self.free.pop_first().unwrap_or_else(|| {
            let first = self.chunks.len() * CHUNK;
            let end = u32::try_from(first + CHUNK).expect("a family has fewer than 2^32 rows");
            self.chunks.push(Arc::new(vec![None; CHUNK]));
            self.free.extend(end - (CHUNK as u32 - 1)..end);
            end - CHUNK as u32
        });
        let row = Arc::new(Row::new(labels, reporter, flag, place, now_ns));
        Arc::make_mut(&mut self.chunks[place as usize / CHUNK])[place as usize % CHUNK] = Some(Arc::clone(&row));
        self.index.insert_unique(hash, Arc::clone(&row), |row| row.hash());
        self.changed = true;
        self.wait(&row);
        row
    }

    /// Has a row be brought into the image.
    fn wait(&mut self, row: &Row<L, N>) {
        // This thread alone writes it.
        if !row.waits.load(Relaxed) {
            row.waits.store(true, Relaxed);
            self.waiting.push(row.place);
        }
    }

    /// Has a series that was added to be brought into the image.
    #[inline]
    pub(crate) fn counted(&mut self, handle: &Handle<L, N>) {
        self.wait(handle.row());
    }

    /// The row at a place.
    pub(super) fn row(&self, place: u32) -> Option<&Arc<Row<L, N>>> {
        self.chunks.get(place as usize / CHUNK)?.get(place as usize % CHUNK)?.as_ref()
    }

    /// Puts a row that was saved back; nothing if one of its label set is there.
    pub(super) fn restore(
        &mut self,
        labels: L,
        reporter: Reporter,
        flag: Flag,
        values: [u64; N],
        now_ns: u64,
    ) -> Option<Arc<Row<L, N>>> {
        let hash = hash_of(&labels, reporter, flag);
        if self.index.find(hash, |row| row.flag == flag && row.reporter == reporter && row.labels == labels).is_some() {
            return None;
        }
        self.overflow_rows += usize::from(labels == self.other);
        let row = self.insert(hash, labels, reporter, flag, now_ns);
        row.values.iter().zip(values).for_each(|(to, value)| to.store(value, Relaxed));
        Some(row)
    }

    /// What left, and what overflowed, for the image.
    pub(super) fn standing_mut(&mut self) -> &mut Standing<N> {
        self.changed = true;
        &mut self.standing
    }

    pub(super) fn standing(&self) -> &Standing<N> {
        &self.standing
    }

    fn retire_place(&mut self, place: usize, now_ns: u64) {
        let (chunk, at) = (place / CHUNK, place % CHUNK);
        let Some(row) = self.chunks[chunk][at].as_ref().filter(|row| row.is_idle(now_ns, self.idle_ticks)) else {
            return;
        };
        let row = Arc::clone(row);
        if let Ok(entry) = self.index.find_entry(row.hash(), |other| Arc::ptr_eq(other, &row)) {
            entry.remove();
        }
        Arc::make_mut(&mut self.chunks[chunk])[at] = None;
        self.free.insert(row.place);
        match row.block.load(Relaxed) {
            0 => {}
            block => self.left.push(block),
        }
        self.overflow_rows -= usize::from(row.labels == self.other);
        match row.flag {
            Flag::None | Flag::Reset => {
                for (retired, value) in self.standing.retired.iter_mut().zip(&row.values) {
                    *retired = retired.saturating_add(value.load(Relaxed));
                }
            }
            _ => {
                let failed = &mut self.standing.retired_failed;
                *failed = failed.saturating_add(row.values[0].load(Relaxed));
            }
        }
        self.changed = true;
    }

    /// Gives back the chunks at the end that hold no row, and the index's memory once it is mostly empty.
    fn trim(&mut self) {
        while let Some(first) = self.chunks.len().checked_sub(1).map(|last| (last * CHUNK) as u32)
            && self.free.range(first..).count() == CHUNK
        {
            self.free.split_off(&first);
            self.chunks.pop();
        }
        if self.index.len() < self.index.capacity() / 4 {
            self.index.shrink_to_fit(|row| row.hash());
        }
    }
}
