//! Label text in the image: written once, however many series have it.

use std::sync::atomic::Ordering::{Relaxed, Release};

use rustc_hash::FxHashMap;

use super::{BLOCK, Store, kind};
use crate::fragment::Fragment;

/// Bytes of text in one block: its first word says what it is and how long the text, the second which block goes on.
const BYTES: usize = (BLOCK - 2) * 8;
/// Text that is longer is none of ours.
const LONGEST: usize = 1 << 20;

/// The texts that saved series have.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    fragments: FxHashMap<Fragment, u32>,
    held: FxHashMap<u32, Held>,
}

#[derive(Debug)]
struct Held {
    by: u32,
    fragment: Option<Fragment>,
}

impl Texts {
    /// Returns the first block of a fragment's text, for one more series. Nothing where there is no room.
    pub(crate) fn hold(&mut self, store: &mut Store, fragment: &Fragment) -> Option<u32> {
        if let Some(block) = self.fragments.get(fragment) {
            self.held.get_mut(block)?.by += 1;
            return Some(*block);
        }
        let block = write(store, fragment.text())?;
        self.held.insert(block, Held { by: 1, fragment: Some(fragment.clone()) });
        self.fragments.insert(fragment.clone(), block);
        Some(block)
    }

    /// Returns the first block of a text that one series alone has.
    pub(crate) fn own(&mut self, store: &mut Store, text: &str) -> Option<u32> {
        let block = write(store, text)?;
        self.held.insert(block, Held { by: 1, fragment: None });
        Some(block)
    }

    /// Lets a series' text go; the last one frees its blocks with the next step.
    pub(crate) fn release(&mut self, store: &mut Store, block: u32) {
        let Some(held) = self.held.get_mut(&block) else { return };
        held.by -= 1;
        if held.by > 0 {
            return;
        }
        if let Some(fragment) = self.held.remove(&block).and_then(|held| held.fragment) {
            self.fragments.remove(&fragment);
        }
        // What nothing refers to is free for who opens the image: the log need not say so.
        let blocks: Vec<_> = chain(store, block).map(|(block, _)| block).collect();
        store.freed.extend(blocks);
    }

    /// Returns the fragment of a text that a series found before has.
    pub(crate) fn known(&self, block: u32) -> Option<&Fragment> {
        self.held.get(&block)?.fragment.as_ref()
    }

    /// Notes that a series found in the image has a text, which is this fragment; `None` where it is the series' own.
    pub(crate) fn found(&mut self, block: u32, fragment: Option<&Fragment>) {
        let held = self.held.entry(block).or_insert_with(|| Held { by: 0, fragment: fragment.cloned() });
        held.by += 1;
        if let Some(fragment) = fragment {
            self.fragments.insert(fragment.clone(), block);
        }
    }
}

/// Reads a text from its first block on, and tells each of its blocks. Nothing where it is broken.
pub(crate) fn read(store: &Store, block: u32, mut used: impl FnMut(u32)) -> Option<String> {
    if !store.blocks().contains(&block) {
        return None;
    }
    let head = store.words(block)[0].load(Relaxed);
    let length = (head >> 32) as usize;
    if head & 0xff != kind::TEXT || length > LONGEST {
        return None;
    }
    let mut bytes = Vec::with_capacity(length.next_multiple_of(BYTES));
    for (block, image) in chain(store, block).take(length.div_ceil(BYTES).max(1)) {
        used(block);
        image[2..].iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    }
    (bytes.len() >= length).then(|| bytes.truncate(length))?;
    String::from_utf8(bytes).ok()
}

fn chain(store: &Store, first: u32) -> impl Iterator<Item = (u32, super::Image)> + '_ {
    let mut next = first;
    let mut left = LONGEST / BYTES;
    std::iter::from_fn(move || {
        let block = next;
        if !store.blocks().contains(&block) || left == 0 {
            return None;
        }
        let image = store.image(block);
        (next, left) = (image[1] as u32, left - 1);
        Some((block, image))
    })
}

/// Writes a text in place: the block that says there is one comes last.
fn write(store: &mut Store, text: &str) -> Option<u32> {
    let pieces: Vec<&[u8]> = if text.is_empty() { vec![&[]] } else { text.as_bytes().chunks(BYTES).collect() };
    let mut blocks = Vec::with_capacity(pieces.len());
    for _ in &pieces {
        match store.claim() {
            Some(block) => blocks.push(block),
            None => {
                store.free.append(&mut blocks);
                return None;
            }
        }
    }
    let mut next = 0;
    for (n, (block, piece)) in blocks.iter().zip(&pieces).enumerate().rev() {
        let words = store.words(*block);
        words[1].store(next, Relaxed);
        for (word, bytes) in words[2..].iter().zip(piece.chunks(8)) {
            let mut value = [0; 8];
            value[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(value), Relaxed);
        }
        let is = if n == 0 { kind::TEXT | (text.len() as u64) << 32 } else { kind::MORE_TEXT };
        words[0].store(is, Release);
        next = u64::from(*block);
    }
    blocks.first().copied()
}
