//! Series in the image.
//!
//! A series' block is: kind, reporter and flag; label texts, by their first blocks, two a word; counters.

use std::{
    hash::Hash,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use rustc_hash::FxHashMap;

use super::{Handle, row::Row, table::Table};
use crate::{
    labels::{Flag, Reporter},
    store::{BLOCK, Image, Store, Texts},
};

/// Texts that a label set may have.
pub(crate) const TEXTS: usize = 6;
const VALUES: usize = 1 + TEXTS / 2;

/// Label sets that can be saved.
pub(crate) trait Saved {
    /// Holds the texts that the labels are made of; nothing where there is no room.
    fn hold(&self, texts: &mut Texts, store: &mut Store) -> Option<[u32; TEXTS]>;
}

/// Handles on the series of a family that were found in the image, by block.
pub(crate) type Restored<L, const N: usize> = FxHashMap<u32, Arc<Row<L, N>>>;

/// Takes hold of a series that was found.
pub(crate) fn handle<L, const N: usize>(restored: &Restored<L, N>, block: u32) -> Option<Handle<L, N>> {
    restored.get(&block).map(|row| Handle::new(Arc::clone(row)))
}

impl<L: Saved + Hash + Eq + Clone, const N: usize> Table<L, N> {
    /// Brings into the image what changed and what left. What is left to do waits for the next step.
    pub(crate) fn save(&mut self, kind: u64, texts: &mut Texts, store: &mut Store) {
        while !store.is_full()
            && let Some(block) = self.left.pop()
        {
            for text in texts_of(&store.image(block)) {
                texts.release(store, text);
            }
            store.release(block);
        }
        while !store.is_full()
            && let Some(place) = self.waiting.pop()
        {
            // It may have left, and another be in its place.
            let Some(row) = self.row(place).filter(|row| row.waits.load(Relaxed)) else { continue };
            row.waits.store(false, Relaxed);
            save(row, kind, texts, store);
        }
    }

    /// Tells whether anything waits to be brought into the image.
    pub(crate) fn waits(&self) -> bool {
        !self.waiting.is_empty() || !self.left.is_empty()
    }

    /// Puts a series back that was found in the image; nothing where it makes no sense.
    pub(crate) fn found(&mut self, labels: L, block: u32, image: &Image, now_ns: u64) -> Option<Arc<Row<L, N>>> {
        let reporter = Reporter::ALL.into_iter().find(|reporter| *reporter as u64 == image[0] >> 8 & 0xff)?;
        let flag = Flag::ALL.into_iter().find(|flag| *flag as u64 == image[0] >> 16 & 0xff)?;
        let row = self.restore(labels, reporter, flag, std::array::from_fn(|n| image[VALUES + n]), now_ns)?;
        row.block.store(block, Relaxed);
        Some(row)
    }

    /// What left the family, and how often it was full, as numbers of the image.
    pub(crate) fn standing_numbers(&self) -> [u64; 8] {
        let standing = self.standing();
        let mut numbers = [0; 8];
        (numbers[0], numbers[1]) = (standing.overflowed, standing.retired_failed);
        numbers[2..].iter_mut().zip(standing.retired).for_each(|(to, retired)| *to = retired);
        numbers
    }

    /// Takes these numbers from the image.
    pub(crate) fn found_standing(&mut self, numbers: [u64; 8]) {
        let standing = self.standing_mut();
        (standing.overflowed, standing.retired_failed) = (numbers[0], numbers[1]);
        standing.retired.iter_mut().zip(&numbers[2..]).for_each(|(to, retired)| *to = *retired);
    }
}

/// The first blocks of a saved series' texts.
pub(crate) fn texts_of(image: &Image) -> impl Iterator<Item = u32> + use<> {
    let words = [image[1], image[2], image[3]];
    words.into_iter().flat_map(|word| [word as u32, (word >> 32) as u32]).filter(|text| *text != 0)
}

fn save<L: Saved, const N: usize>(row: &Row<L, N>, kind: u64, texts: &mut Texts, store: &mut Store) {
    let values: [u64; N] = std::array::from_fn(|n| row.values[n].load(Relaxed));
    let block = row.block.load(Relaxed);
    if block != 0 {
        return store.change(block, VALUES, &values);
    }
    let Some(held) = row.labels.hold(texts, store) else { return };
    let Some(block) = store.claim() else {
        held.iter().filter(|text| **text != 0).for_each(|text| texts.release(store, *text));
        return;
    };
    row.block.store(block, Relaxed);
    let mut image: Image = [0; BLOCK];
    image[0] = kind | (row.reporter as u64) << 8 | (row.flag as u64) << 16;
    for (word, pair) in image[1..].iter_mut().zip(held.chunks_exact(2)) {
        *word = u64::from(pair[0]) | u64::from(pair[1]) << 32;
    }
    image[VALUES..][..N].copy_from_slice(&values);
    store.make(block, &image);
}
