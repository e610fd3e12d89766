//! How records wait for user space: one ring for each CPU, so that CPUs do not wait for each other.
//!
//! `RING` holds the slots of all rings, one ring after the other; `CURSORS` says of each how far it was written and how far it was read.
//! Position `p` of ring `r` is slot `r * slots + p % slots`. A program takes a position by compare-and-exchange, fills the slot, and then
//! writes `p + 1` into it: only from then on may it be read. User space reads slots in order and then moves `read`: only from then on may
//! they be written again.

use crate::Record;

/// One record on its way; three cache lines.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// One more than the position whose record the slot holds; 0: none yet.
    pub sequence: u64,
    /// The record.
    pub record: Record,
    /// Nothing.
    pub reserved: [u64; 2],
}

const _: () = assert!(size_of::<Slot>() == 192);

/// How far a ring is, in positions, which only grow; each of the two on a cache line that one side alone writes.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    /// The first position that no program has taken.
    pub taken: u64,
    /// Nothing.
    pub apart: [u64; 7],
    /// The first position that user space has not read.
    pub read: u64,
    /// Nothing.
    pub reserved: [u64; 7],
}

const _: () = assert!(size_of::<Cursor>() == 128);

/// Most rings there are; more CPUs share them.
pub const MAX_RINGS: u32 = 64;

/// Returns how many slots each of so many rings has: a power of two, as large as memory for all rings together allows, at least 1024.
pub const fn slots(rings: u32) -> u32 {
    const LEAST: u32 = 1024;
    const BYTES: u32 = 4 << 20;
    let each = BYTES / size_of::<Slot>() as u32 / rings;
    if each <= LEAST { LEAST } else { 1 << each.ilog2() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_powers_of_two_within_bounds() {
        assert_eq!((slots(1), slots(2), slots(64)), (16384, 8192, 1024));
        assert!((1..=MAX_RINGS).all(|rings| slots(rings).is_power_of_two()));
        assert!((1..=MAX_RINGS).all(|rings| (rings * slots(rings)) as usize * size_of::<Slot>() <= 12 << 20));
    }
}
