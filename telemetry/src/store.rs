//! Numbers that outlive the process: an image of what the record path knows, changed in steps that happen whole or not at all.
//!
//! The record path works on series of its own, and reads the totals of connections here, where alone they stand; after each batch of
//! records it puts what changed into the image. A step is written into a log first, as absolute values of words, with the ring's position
//! among them; then one store commits it, and only then are the words themselves changed. Who opens the image finds either no step begun, or one committed, which is applied again. So a process
//! may be killed at any moment: the next one goes on from the last step, and reads the records after it from the ring.
//!
//! The first segment holds a few words, numbers that stand by themselves and the log; the second, which connections ended last; the rest
//! are blocks of [`BLOCK`] words, each a series, a connection, or label text. What nothing refers to yet is written in place, without the log.

mod memory;
mod texts;

use std::{
    io,
    sync::atomic::{
        AtomicU64, Ordering,
        Ordering::{Acquire, Relaxed, Release},
        compiler_fence,
    },
};

pub use memory::{Heap, Memory, SEGMENT};
pub(crate) use texts::{Texts, read as read_text};

/// Words of a block.
pub(crate) const BLOCK: usize = 16;
/// A block's words.
pub(crate) type Image = [u64; BLOCK];

/// What a block holds: the lowest byte of its first word.
pub(crate) mod kind {
    pub(crate) const FREE: u64 = 0;
    pub(crate) const SERVICE: u64 = 1;
    pub(crate) const WORKLOAD: u64 = 2;
    pub(crate) const OWN: u64 = 3;
    pub(crate) const CONNECTION: u64 = 4;
    pub(crate) const TEXT: u64 = 5;
    pub(crate) const MORE_TEXT: u64 = 6;
}

/// Says which layout this is; raised with every change of what words mean.
const MAGIC: u64 = u64::from_le_bytes(*b"meshd\0\0\x01");
/// Words of the first segment.
const COMMITTED: usize = 1;
const APPLIED: usize = 2;
const LOGGED: usize = 3;
const NUMBERS: usize = 8;
/// Numbers that stand by themselves.
pub(crate) const NUMBER_COUNT: usize = 200;
const LOG: usize = NUMBERS + NUMBER_COUNT;
/// The second segment: connections that ended, so that what is read of one after its end says nothing new. As many as the rings hold.
const ENDED: usize = SEGMENT;
pub(crate) const ENDED_COUNT: usize = SEGMENT / 2;
/// Segments before those of blocks.
const HEAD: usize = 2;
/// Entries of the log, two words each.
const LOG_ENTRIES: usize = (SEGMENT - LOG) / 2;
/// Blocks of one segment.
const BLOCKS: u32 = (SEGMENT / BLOCK) as u32;

/// Why saved numbers cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The memory cannot be had.
    #[error("no memory for saved counters")]
    Memory(#[from] io::Error),
    /// It holds something else.
    #[error("saved counters are of another version")]
    Unknown,
}

/// The image, and the step that is being written.
#[derive(Debug)]
pub struct Store {
    memory: Box<dyn Memory>,
    /// Blocks that can be given out; the lowest last.
    free: Vec<u32>,
    /// Blocks that are free once the step is committed; those of text are cleared then.
    freed: Vec<u32>,
    logged: usize,
    unsaved: u64,
}

/// What was saved: an image that was opened, or begun.
#[derive(Debug)]
pub struct Saved {
    pub(crate) store: Store,
    pub(crate) found: Found,
    /// It was begun by a process before.
    pub(crate) before: bool,
    pub(crate) watched: bool,
    pub(crate) replaced: bool,
}

impl Saved {
    /// Opens what is in this memory.
    ///
    /// # Errors
    /// There is no memory to be had, or it holds something else.
    pub fn open(memory: Box<dyn Memory>) -> Result<Self, StoreError> {
        let before = memory.segments() > 0;
        let (store, found) = Store::open(memory)?;
        Ok(Self { store, found, before, watched: false, replaced: false })
    }

    /// Says whether the kernel programs have been attached since.
    pub fn watched(self, watched: bool) -> Self {
        Self { watched, ..self }
    }

    /// Says whether the maps of another version were replaced since: rings and the kernel's counters begin anew.
    pub fn replaced(self, replaced: bool) -> Self {
        Self { replaced, ..self }
    }
}

/// What was found in an image.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Blocks of series and connections, by number.
    pub(crate) blocks: Vec<(u32, Image)>,
}

impl Store {
    /// Begins an image in memory of this process.
    pub fn in_heap() -> Self {
        Self::open(Box::new(Heap::default())).expect("memory of this process is there and empty").0
    }

    /// Opens an image, or begins one in memory that is all zero.
    ///
    /// # Errors
    /// There is no memory, or it holds something else.
    pub(crate) fn open(mut memory: Box<dyn Memory>) -> Result<(Self, Found), StoreError> {
        while memory.segments() < HEAD {
            memory.grow()?;
        }
        let store = Self { memory, free: Vec::new(), freed: Vec::new(), logged: 0, unsaved: 0 };
        let head = store.memory.segment(0);
        match head[0].load(Acquire) {
            0 => head[0].store(MAGIC, Release),
            MAGIC => {}
            _ => return Err(StoreError::Unknown),
        }
        let (committed, logged) = (head[COMMITTED].load(Acquire), head[LOGGED].load(Relaxed) as usize);
        if committed != head[APPLIED].load(Relaxed) {
            if logged > LOG_ENTRIES {
                return Err(StoreError::Unknown);
            }
            store.apply(logged, committed);
        }
        let found = store.blocks().map(|block| (block, store.image(block))).filter(|(_, image)| {
            matches!(image[0] & 0xff, kind::SERVICE | kind::WORKLOAD | kind::OWN | kind::CONNECTION)
        });
        let found = Found { blocks: found.collect() };
        Ok((store, found))
    }

    /// Gives out every block that is not `used`: it holds text of nobody, or something unknown.
    pub(crate) fn settle(&mut self, used: &dyn Fn(u32) -> bool) {
        let free: Vec<u32> = self.blocks().filter(|block| !used(*block)).collect();
        for block in free.into_iter().rev() {
            self.words(block)[0].store(kind::FREE, Relaxed);
            self.free.push(block);
        }
    }

    /// Returns a number as it was committed.
    pub(crate) fn number(&self, number: usize) -> u64 {
        self.memory.segment(0)[NUMBERS + number].load(Relaxed)
    }

    /// Changes numbers with the next step.
    pub(crate) fn set_numbers(&mut self, numbers: &[u64; NUMBER_COUNT]) {
        self.put(NUMBERS, numbers);
    }

    /// Returns the identity of an ended connection as it was committed.
    pub(crate) fn ended(&self, place: usize) -> (u64, u64) {
        let ended = self.memory.segment(ENDED / SEGMENT);
        (ended[2 * place].load(Relaxed), ended[2 * place + 1].load(Relaxed))
    }

    /// Remembers an ended connection with the next step.
    pub(crate) fn set_ended(&mut self, place: usize, (cookie, time): (u64, u64)) {
        self.put(ENDED + 2 * place, &[cookie, time]);
    }

    /// Takes a free block, if memory can be had; else that is counted.
    pub(crate) fn claim(&mut self) -> Option<u32> {
        if self.free.is_empty() {
            let first = (self.memory.segments() - HEAD) as u32 * BLOCKS;
            match self.memory.grow() {
                // There is no block 0: that is "none".
                Ok(()) => self.free.extend((first.max(1)..first + BLOCKS).rev()),
                Err(_) => {
                    self.unsaved += 1;
                    return None;
                }
            }
        }
        self.free.pop()
    }

    /// Has a block that was just claimed hold something from the next step on. It is written at once but for its first word.
    pub(crate) fn make(&mut self, block: u32, image: &Image) {
        for (to, value) in self.words(block)[1..].iter().zip(&image[1..]) {
            to.store(*value, Relaxed);
        }
        self.put(word(block), &image[..1]);
    }

    /// Changes words of a block with the next step.
    pub(crate) fn change(&mut self, block: u32, from: usize, words: &[u64]) {
        self.put(word(block) + from, words);
    }

    /// Has a block be free from the next step on.
    pub(crate) fn release(&mut self, block: u32) {
        self.put(word(block), &[kind::FREE]);
        self.freed.push(block);
    }

    /// Returns a block's words as they were committed.
    pub(crate) fn image(&self, block: u32) -> Image {
        let words = self.words(block);
        std::array::from_fn(|at| words[at].load(Relaxed))
    }

    /// Tells whether the step should be committed before more is added.
    pub(crate) fn is_full(&self) -> bool {
        self.logged + NUMBER_COUNT + 8 * BLOCK > LOG_ENTRIES
    }

    /// Returns how many things found no room.
    pub(crate) fn unsaved(&self) -> u64 {
        self.unsaved
    }

    /// Makes the step happen.
    pub(crate) fn commit(&mut self) {
        if self.logged > 0 {
            let head = self.memory.segment(0);
            head[LOGGED].store(self.logged as u64, Relaxed);
            let committed = head[COMMITTED].load(Relaxed).wrapping_add(1);
            head[COMMITTED].store(committed, Release);
            self.apply(self.logged, committed);
            self.logged = 0;
        }
        for block in std::mem::take(&mut self.freed) {
            self.words(block)[0].store(kind::FREE, Relaxed);
            self.free.push(block);
        }
    }

    fn apply(&self, logged: usize, committed: u64) {
        // A process that is killed has done its stores in order, as far as it came: the compiler alone must not change that order.
        compiler_fence(Ordering::SeqCst);
        let head = self.memory.segment(0);
        for entry in head[LOG..].chunks_exact(2).take(logged) {
            let at = entry[0].load(Relaxed) as usize;
            if at / SEGMENT < self.memory.segments() {
                self.memory.segment(at / SEGMENT)[at % SEGMENT].store(entry[1].load(Relaxed), Relaxed);
            }
        }
        compiler_fence(Ordering::SeqCst);
        head[APPLIED].store(committed, Release);
    }

    /// Logs those of these words that differ from what was committed.
    fn put(&mut self, at: usize, values: &[u64]) {
        assert!(self.logged + values.len() <= LOG_ENTRIES, "a step is committed before it is full");
        let log = &self.memory.segment(0)[LOG..];
        let words = &self.memory.segment(at / SEGMENT)[at % SEGMENT..][..values.len()];
        for (n, (word, value)) in words.iter().zip(values).enumerate() {
            if word.load(Relaxed) != *value {
                let entry = &log[2 * self.logged..][..2];
                entry[0].store((at + n) as u64, Relaxed);
                entry[1].store(*value, Relaxed);
                self.logged += 1;
            }
        }
    }

    fn words(&self, block: u32) -> &[AtomicU64] {
        let at = word(block);
        &self.memory.segment(at / SEGMENT)[at % SEGMENT..][..BLOCK]
    }

    fn blocks(&self) -> std::ops::Range<u32> {
        1..(self.memory.segments() - HEAD) as u32 * BLOCKS
    }
}

/// The number of a block's first word, counted over all segments.
fn word(block: u32) -> usize {
    HEAD * SEGMENT + block as usize * BLOCK
}

#[cfg(test)]
mod tests;
