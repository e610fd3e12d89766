//! What one pod may take of room that all pods share, so that a flood from one harms the others little.
//!
//! Nobody is held back while there is plenty: shares count in the upper half of a ring, and for ends of connections once rings are full.

use abi::maps::{SUM_ENTRIES, UNTOLD_ENTRIES, setting::ROUND};
use aya_ebpf::bindings::BPF_ANY;

use crate::{
    globals::global,
    maps::{SHARES, setting},
};

/// What one namespace has taken, on one processor.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Share {
    /// How far the ring was read when this was counted last.
    read: u64,
    /// Records in the upper half of the ring since.
    records: u32,
    /// The round of emptying that the rest was counted in.
    round: u32,
    /// Ends kept whole.
    untold: u32,
    /// Sums begun.
    sums: u32,
}

/// Tells whether a namespace may put a record into the upper half of this processor's ring, of which `read` was read: an eighth of the ring
/// is its share until user space reads on.
#[inline(always)]
pub(crate) fn may_fill(netns: u64, read: u64) -> bool {
    let Some(share) = of(netns) else { return true };
    // SAFETY: the value is this processor's own, and stays valid while the program runs. Who interrupts this one may make it count wrong
    // by one.
    unsafe {
        if (*share).read != read {
            (*share).read = read;
            (*share).records = 0;
        }
        (*share).records += 1;
        (*share).records <= global!(ring_slots) / 8
    }
}

/// Tells whether a namespace may have another end kept whole in this round: a quarter of the room is its share.
#[inline(always)]
pub(crate) fn may_keep(netns: u64) -> bool {
    // SAFETY: as above.
    of(netns).is_none_or(|share| unsafe {
        begin_round(share);
        (*share).untold += 1;
        (*share).untold <= quarter(UNTOLD_ENTRIES)
    })
}

/// Tells whether a namespace may begin another sum in this round: a quarter of the room is its share.
#[inline(always)]
pub(crate) fn may_begin(netns: u64) -> bool {
    // SAFETY: as above.
    of(netns).is_none_or(|share| unsafe {
        begin_round(share);
        (*share).sums += 1;
        (*share).sums <= quarter(SUM_ENTRIES)
    })
}

/// What a processor gives one namespace of so many entries.
#[inline(always)]
fn quarter(entries: u32) -> u32 {
    match (entries / 4).checked_div(global!(rings)) {
        Some(each) if each > 0 => each,
        _ => 1,
    }
}

#[inline(always)]
unsafe fn begin_round(share: *mut Share) {
    let round = setting(ROUND) as u32;
    // SAFETY: passed on from the callers.
    unsafe {
        if (*share).round != round {
            (*share).round = round;
            (*share).untold = 0;
            (*share).sums = 0;
        }
    }
}

#[inline(always)]
fn of(netns: u64) -> Option<*mut Share> {
    SHARES.get_ptr_mut(netns).or_else(|| {
        let none = Share::default();
        SHARES.insert(netns, none, BPF_ANY.into()).ok()?;
        SHARES.get_ptr_mut(netns)
    })
}
