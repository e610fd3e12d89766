//! What the kernel counts itself, per CPU.

use abi::maps::counter::{CLOSED_RECEIVED, CLOSED_SENT};

use crate::maps::COUNTERS;

/// Adds to a counter.
#[inline(always)]
pub(crate) fn add(slot: u32, amount: u64) {
    let Some(counters) = COUNTERS.get_ptr_mut(0) else { return };
    // SAFETY: the element is this CPU's own. Another program may interrupt this one between load and store only by running on top of it
    // on this CPU, hence the atomic addition.
    unsafe { add_to(&raw mut (*counters)[slot as usize], amount) };
}

/// Counts the payload bytes of a connection whose close is on its way to user space.
#[inline(always)]
pub(crate) fn add_closed(sent: u64, received: u64) {
    if sent | received == 0 {
        return;
    }
    let Some(counters) = COUNTERS.get_ptr_mut(0) else { return };
    // SAFETY: as above.
    unsafe {
        add_to(&raw mut (*counters)[CLOSED_SENT as usize], sent);
        add_to(&raw mut (*counters)[CLOSED_RECEIVED as usize], received);
    }
}

/// Adds to a number that others add to at the same time.
///
/// # Safety
/// The pointer is valid and aligned.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub(crate) unsafe fn add_to(counter: *mut u64, amount: u64) {
    use core::intrinsics::{AtomicOrdering, atomic_xadd};
    // SAFETY: the caller's pointer is valid and aligned.
    _ = unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, amount) };
}

/// As above.
///
/// # Safety
/// The pointer is valid and aligned.
#[cfg(not(target_arch = "bpf"))]
pub(crate) unsafe fn add_to(counter: *mut u64, amount: u64) {
    use core::sync::atomic::{AtomicU64, Ordering};
    // SAFETY: the caller's pointer is valid and aligned.
    unsafe { AtomicU64::from_ptr(counter) }.fetch_add(amount, Ordering::Relaxed);
}
