//! The one writer of records: into this CPU's ring; what finds it full is kept aside or counted.

use core::sync::atomic::{Ordering, compiler_fence};

use abi::{
    Kind, Record,
    maps::counter::{self, LOST_ESTABLISHED, LOST_PROGRESS},
    ring::Slot,
    storage::{Storage, Told, flags},
};
use aya_ebpf::{bindings::BPF_RB_FORCE_WAKEUP, helpers::bpf_get_smp_processor_id};

use crate::{
    aside, counters, fair,
    globals::global,
    maps::{CURSORS, DOORBELL, RING},
    record::{self, Event},
    sock::TcpSock,
};

/// How often a position is tried to be had that others on this CPU (or on one that shares its ring) are taking too.
const TRIES: u32 = 16;

/// A slot that is this program's until it is committed.
struct Taken {
    slot: *mut Slot,
    position: u64,
    /// How many records of the ring were unread, this one among them.
    unread: u64,
}

impl Taken {
    /// Takes the next slot of this CPU's ring for a namespace's record, if fewer than `limit` records of the ring are unread, and if the
    /// namespace has not had its share where it is half full.
    #[inline(always)]
    fn next(limit: u64, netns: u64) -> Option<Self> {
        // SAFETY: the helper takes nothing.
        let ring = unsafe { bpf_get_smp_processor_id() }.checked_rem(global!(rings))?;
        let cursor = CURSORS.get_ptr_mut(ring)?;
        for _ in 0..TRIES {
            // SAFETY: an array's element lives as long as the map; others change it at any time, hence volatile.
            let (position, read) =
                unsafe { ((&raw const (*cursor).taken).read_volatile(), (&raw const (*cursor).read).read_volatile()) };
            let unread = position.wrapping_sub(read);
            if unread >= limit || unread >= all() / 2 && !fair::may_fill(netns, read) {
                return None;
            }
            // SAFETY: as above.
            if unsafe { exchange(&raw mut (*cursor).taken, position, position + 1) } {
                let slots = global!(ring_slots);
                let slot = RING.get_ptr_mut(ring * slots + (position as u32 & (slots - 1)))?;
                return Some(Self { slot, position, unread: unread + 1 });
            }
        }
        None
    }

    /// Where the record is to be written.
    #[inline(always)]
    fn record(&self) -> *mut Record {
        // SAFETY: the slot is within the map.
        unsafe { &raw mut (*self.slot).record }
    }

    /// Lets user space read the record, which is written. User space comes by itself every few milliseconds, and is woken when the ring
    /// is half full.
    #[inline(always)]
    fn commit(self) {
        // SAFETY: the slot is within the map and still this program's.
        unsafe { release(&raw mut (*self.slot).sequence, self.position + 1) };
        if self.unread == u64::from(global!(ring_slots)) / 2 {
            // If the doorbell is full, user space has been woken and has not come yet.
            _ = DOORBELL.output::<u64>(&self.position, BPF_RB_FORCE_WAKEUP.into());
        }
    }
}

/// Slots of a ring.
#[inline(always)]
fn all() -> u64 {
    global!(ring_slots).into()
}

#[cfg(target_arch = "bpf")]
#[inline(always)]
unsafe fn exchange(word: *mut u64, old: u64, new: u64) -> bool {
    use core::intrinsics::{AtomicOrdering, atomic_cxchg};
    const ORDER: AtomicOrdering = AtomicOrdering::SeqCst;
    // SAFETY: passed on from the caller.
    unsafe { atomic_cxchg::<u64, ORDER, ORDER>(word, old, new).1 }
}

#[cfg(not(target_arch = "bpf"))]
unsafe fn exchange(word: *mut u64, old: u64, new: u64) -> bool {
    use core::sync::atomic::AtomicU64;
    // SAFETY: passed on from the caller.
    unsafe { AtomicU64::from_ptr(word) }.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}

/// Writes a word that others see only after everything that was written before it.
#[inline(always)]
unsafe fn release(word: *mut u64, value: u64) {
    compiler_fence(Ordering::Release);
    // x86 shows stores in their order; an exchange would wait until every store of this CPU has reached its cache line.
    #[cfg(all(target_arch = "bpf", bpf_target_arch = "x86_64"))]
    // SAFETY: passed on from the caller.
    unsafe {
        word.write_volatile(value);
    }
    #[cfg(all(target_arch = "bpf", not(bpf_target_arch = "x86_64")))]
    // SAFETY: passed on from the caller.
    unsafe {
        use core::intrinsics::{AtomicOrdering, atomic_xchg};
        _ = atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(word, value);
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: passed on from the caller.
    unsafe {
        core::sync::atomic::AtomicU64::from_ptr(word).store(value, Ordering::Release);
    }
}

/// Counts an event of a connection and reports it; tells whether by way of the ring.
///
/// # Safety
/// `storage` is the socket's.
#[inline(always)]
pub(crate) unsafe fn report(event: &Event, tcp: TcpSock, storage: *mut Storage) -> bool {
    count(event.kind);
    // SAFETY: passed on from the caller.
    let netns = unsafe { (*storage).netns };
    if let Some(taken) = Taken::next(all(), netns) {
        // SAFETY: the slot is this program's until it is committed.
        unsafe {
            record::write(taken.record(), event, tcp, storage);
            match event.kind {
                Kind::Established | Kind::Progress => tell(taken.record(), storage),
                Kind::Closed => counters::add_closed((*taken.record()).sent, (*taken.record()).received),
                Kind::Failed => {}
            }
        }
        taken.commit();
        return true;
    }
    match event.kind {
        Kind::Established => counters::add(LOST_ESTABLISHED, 1),
        Kind::Progress => counters::add(LOST_PROGRESS, 1),
        Kind::Closed | Kind::Failed => {
            let mut record = core::mem::MaybeUninit::<Record>::uninit();
            // SAFETY: every byte is written before the record is taken as one.
            let (record, told) = unsafe {
                record::write(record.as_mut_ptr(), event, tcp, storage);
                let told = (*storage).told;
                (record.assume_init_mut(), ((*storage).flags & flags::SHOWN != 0).then_some(told))
            };
            let (sent, received) = (record.sent, record.received);
            if aside::put(record, told) && matches!(event.kind, Kind::Closed) {
                counters::add_closed(sent, received);
            }
        }
    }
    false
}

/// Shows a live connection, unless so much waits in the ring that user space should read first; tells whether it did.
///
/// What a pass shows takes up no more than a quarter of the ring: the rest is for what happens meanwhile.
///
/// # Safety
/// `storage` is the socket's.
#[inline(always)]
pub(crate) unsafe fn show(event: &Event, tcp: TcpSock, storage: *mut Storage) -> bool {
    // A namespace's share is not asked for: that begins at half.
    let Some(taken) = Taken::next(all() / 4, 0) else { return false };
    // SAFETY: the slot is this program's until it is committed.
    unsafe {
        record::write(taken.record(), event, tcp, storage);
        tell(taken.record(), storage);
    }
    taken.commit();
    true
}

/// Counts and reports a failed connect that no socket need be asked about.
#[inline(always)]
pub(crate) fn report_failed(record: &mut Record) {
    count(Kind::Failed);
    match Taken::next(all(), record.netns) {
        Some(taken) => {
            // SAFETY: the slot is this program's until it is committed.
            unsafe { *taken.record() = *record };
            taken.commit();
        }
        None => _ = aside::put(record, None),
    }
}

/// Notes what user space will know of a connection's bytes.
///
/// # Safety
/// `record` was written, `storage` is the socket's.
#[inline(always)]
unsafe fn tell(record: *const Record, storage: *mut Storage) {
    // SAFETY: passed on from the caller.
    unsafe {
        let (sent, received) = ((*record).sent, (*record).received);
        if sent | received != 0 {
            (*storage).told = Told { sent, received };
        }
    }
}

#[inline(always)]
fn count(kind: Kind) {
    counters::add(
        match kind {
            Kind::Established => counter::ESTABLISHED,
            Kind::Closed => counter::CLOSED,
            Kind::Failed => counter::FAILED,
            Kind::Progress => counter::PROGRESS,
        },
        1,
    );
}
