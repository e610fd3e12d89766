//! Totals of sockets that send beside TCP: those of records contain them.

use abi::{
    joined::flags::{CLOSED, LEFT},
    maps::counter::{PARTED, REDIRECTED},
    storage::{Storage, flags},
};

use crate::{counters, maps::JOINED, record::Bytes};

/// Returns what a socket has sent and received beside TCP.
///
/// # Safety
/// `storage` is the socket's.
#[inline(always)]
pub(crate) unsafe fn bytes(storage: *const Storage) -> Bytes {
    // SAFETY: passed on from the caller.
    let (storage_flags, cookie) = unsafe { ((*storage).flags, (*storage).cookie) };
    if storage_flags & flags::JOINED == 0 {
        return Bytes::default();
    }
    let Some(own) = JOINED.get_ptr(cookie) else { return Bytes::default() };
    // SAFETY: a value of a map stays valid while the program runs; others write it at any time.
    let (sent, peer) = unsafe { ((&raw const (*own).sent).read_volatile(), (*own).peer) };
    // SAFETY: as above.
    let received = JOINED.get_ptr(peer).map_or(0, |peer| unsafe { (&raw const (*peer).sent).read_volatile() });
    Bytes { sent, received }
}

/// Forgets a socket whose end was reported: at once with its peer's, if that has ended too, which counts what this one has sent.
///
/// # Safety
/// `storage` is the socket's.
#[inline(always)]
pub(crate) unsafe fn part(storage: *const Storage) {
    // SAFETY: passed on from the caller; values of a map stay valid while the program runs.
    unsafe {
        let cookie = (*storage).cookie;
        let Some(own) = JOINED.get_ptr_mut(cookie) else { return };
        let before = crate::storage::fetch_or(&raw mut (*own).flags, CLOSED);
        if before & CLOSED != 0 {
            return;
        }
        if before & LEFT == 0 {
            counters::add(PARTED, 1);
        }
        counters::add(REDIRECTED, (*own).sent);
        let peer = (*own).peer;
        let other = JOINED.get_ptr_mut(peer);
        if other.is_none_or(|other| (&raw const (*other).flags).read_volatile() & CLOSED != 0) {
            _ = JOINED.remove(cookie);
            _ = JOINED.remove(peer);
        }
    }
}
