//! The one socket storage map: what is kept with each managed socket.

use core::{ffi::c_void, ptr};

use abi::storage::Storage;
use aya_ebpf::{
    bindings::BPF_SK_STORAGE_GET_F_CREATE, btf_maps::SkStorage, helpers::generated::bpf_sk_storage_get, macros::btf_map,
};

#[btf_map]
pub(crate) static STORAGE: SkStorage<Storage> = SkStorage::new();

/// The socket storage of another version, while that is replaced; else empty.
#[btf_map]
pub(crate) static OLDER_STORAGE: SkStorage<Storage> = SkStorage::new();

/// Finds a socket's storage.
///
/// # Safety
/// `sk` is a socket (or, in a socket program, the context) that the running program got from the kernel.
#[inline(always)]
pub(crate) unsafe fn find(sk: *mut c_void) -> Option<*mut Storage> {
    // SAFETY: passed on from the caller.
    unsafe { find_in(&STORAGE, sk) }
}

/// As [`find`], in this map.
///
/// # Safety
/// As [`find`].
#[inline(always)]
pub(crate) unsafe fn find_in(map: &'static SkStorage<Storage>, sk: *mut c_void) -> Option<*mut Storage> {
    // SAFETY: passed on from the caller; the helper checks the rest.
    let found = unsafe { bpf_sk_storage_get(ptr::from_ref(map).cast_mut().cast(), sk, ptr::null_mut(), 0) };
    (!found.is_null()).then_some(found.cast())
}

/// Finds a socket's storage or makes it, beginning with `first`. What was found is not changed.
///
/// # Safety
/// As [`find`].
#[inline(always)]
pub(crate) unsafe fn find_or_create(sk: *mut c_void, first: &mut Storage) -> Option<*mut Storage> {
    let first = ptr::from_mut(first).cast();
    let map = (&raw const STORAGE).cast_mut().cast();
    // SAFETY: passed on from the caller; the helper copies `first` before it returns.
    let found = unsafe { bpf_sk_storage_get(map, sk, first, BPF_SK_STORAGE_GET_F_CREATE.into()) };
    (!found.is_null()).then_some(found.cast())
}

/// Sets bits of a storage's flags and returns the flags from before.
///
/// # Safety
/// `storage` was returned by [`find`] or [`find_or_create`], or is the value an iterator was given.
#[inline(always)]
pub(crate) unsafe fn set_flags(storage: *mut Storage, bits: u32) -> u32 {
    // SAFETY: the caller's pointer is valid; every change to the flags of a shared storage is atomic.
    unsafe { fetch_or(&raw mut (*storage).flags, bits) }
}

#[cfg(target_arch = "bpf")]
#[inline(always)]
pub(crate) unsafe fn fetch_or(word: *mut u32, bits: u32) -> u32 {
    use core::intrinsics::{AtomicOrdering, atomic_or};
    // SAFETY: passed on from the caller.
    unsafe { atomic_or::<u32, u32, { AtomicOrdering::SeqCst }>(word, bits) }
}

#[cfg(not(target_arch = "bpf"))]
pub(crate) unsafe fn fetch_or(word: *mut u32, bits: u32) -> u32 {
    use core::sync::atomic::{AtomicU32, Ordering};
    // SAFETY: passed on from the caller.
    unsafe { AtomicU32::from_ptr(word) }.fetch_or(bits, Ordering::SeqCst)
}
