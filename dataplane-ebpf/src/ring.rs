//! The one writer of records: into the ring; what finds it full is put aside or counted.

use abi::{
    Kind, Record,
    maps::counter::{self, LOST_ESTABLISHED, LOST_PROGRESS},
    record::flags,
    storage::Storage,
};
use aya_ebpf::bindings::{BPF_NOEXIST, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};

use crate::{
    counters,
    globals::global,
    maps::{ASIDE, AsideKey, RING},
    record::{self, Event},
    sock::TcpSock,
};

/// One record in so many looks how full the ring is.
const LOOK_EVERY: u64 = 8;

/// Counts an event of a connection and reports it.
///
/// # Safety
/// `storage` is the socket's.
#[inline(always)]
pub(crate) unsafe fn report(event: &Event, tcp: TcpSock, storage: *const Storage) {
    let counted = count(event.kind);
    if let Some(mut entry) = RING.reserve::<Record>(0) {
        // SAFETY: the entry is this program's until it is submitted.
        unsafe { record::write(entry.as_mut_ptr(), event, tcp, storage) };
        entry.submit(wake_up(counted));
        return;
    }
    match event.kind {
        Kind::Established => _ = counters::add(LOST_ESTABLISHED, 1),
        Kind::Progress => _ = counters::add(LOST_PROGRESS, 1),
        Kind::Closed | Kind::Failed => {
            let mut record = core::mem::MaybeUninit::<Record>::uninit();
            // SAFETY: every byte is written before the record is taken as one.
            let record = unsafe {
                record::write(record.as_mut_ptr(), event, tcp, storage);
                record.assume_init_mut()
            };
            put_aside(record);
        }
    }
}

/// Shows a live connection, unless so much waits in the ring that user space should read first; tells whether it did.
///
/// What a pass shows takes up no more than a quarter of the ring: the rest is for what happens meanwhile.
///
/// # Safety
/// `storage` is the socket's.
#[inline(always)]
pub(crate) unsafe fn show(event: &Event, tcp: TcpSock, storage: *const Storage) -> bool {
    if RING.query(BPF_RB_AVAIL_DATA.into()) >= global!(wake_bytes) / 2 {
        return false;
    }
    let Some(mut entry) = RING.reserve::<Record>(0) else { return false };
    // SAFETY: the entry is this program's until it is submitted.
    unsafe { record::write(entry.as_mut_ptr(), event, tcp, storage) };
    entry.submit(BPF_RB_NO_WAKEUP.into());
    true
}

/// Counts and reports a failed connect that no socket need be asked about.
#[inline(always)]
pub(crate) fn report_failed(record: &mut Record) {
    let counted = count(Kind::Failed);
    match RING.reserve::<Record>(0) {
        Some(mut entry) => {
            entry.write(*record);
            entry.submit(wake_up(counted));
        }
        None => put_aside(record),
    }
}

#[inline(always)]
fn count(kind: Kind) -> u64 {
    match kind {
        Kind::Established => counters::add(counter::ESTABLISHED, 1),
        Kind::Closed => counters::add(counter::CLOSED, 1),
        Kind::Failed => counters::add(counter::FAILED, 1),
        Kind::Progress => counters::add(counter::PROGRESS, 1),
    }
}

/// Chooses how to submit: user space comes by itself every few milliseconds and is woken only when the ring is half full.
#[inline(always)]
fn wake_up(counted: u64) -> u64 {
    if counted.is_multiple_of(LOOK_EVERY) && RING.query(BPF_RB_AVAIL_DATA.into()) >= global!(wake_bytes) {
        return BPF_RB_FORCE_WAKEUP.into();
    }
    BPF_RB_NO_WAKEUP.into()
}

#[inline(always)]
fn put_aside(record: &mut Record) {
    record.flags |= flags::ASIDE;
    let key = AsideKey { cookie: record.cookie, start_ns: record.start_ns };
    let record: &Record = record;
    if ASIDE.insert(key, record, BPF_NOEXIST.into()).is_ok() {
        counters::add(counter::ASIDE, 1);
        return;
    }
    counters::add(counter::LOST_CONNECTIONS, 1);
    counters::add(counter::LOST_SENT, record.sent);
    counters::add(counter::LOST_RECEIVED, record.received);
}
