//! What the kernel counts itself, per CPU.

use crate::maps::COUNTERS;

/// Adds to a counter and returns how much it holds on this CPU.
#[inline(always)]
pub(crate) fn add(slot: u32, amount: u64) -> u64 {
    let Some(counters) = COUNTERS.get_ptr_mut(0) else { return 0 };
    // SAFETY: the element is this CPU's own. Another program may interrupt this one between load and store only by running on top of it
    // on this CPU, hence the atomic addition.
    unsafe { add_to(&raw mut (*counters)[slot as usize], amount) + amount }
}

#[cfg(target_arch = "bpf")]
#[inline(always)]
unsafe fn add_to(counter: *mut u64, amount: u64) -> u64 {
    use core::intrinsics::{AtomicOrdering, atomic_xadd};
    // A relaxed addition becomes the instruction that does not return the old value, even where it is used.
    // SAFETY: the caller's pointer is valid and aligned.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(counter, amount) }
}

#[cfg(not(target_arch = "bpf"))]
unsafe fn add_to(counter: *mut u64, amount: u64) -> u64 {
    use core::sync::atomic::{AtomicU64, Ordering};
    // SAFETY: the caller's pointer is valid and aligned.
    unsafe { AtomicU64::from_ptr(counter) }.fetch_add(amount, Ordering::Relaxed)
}
