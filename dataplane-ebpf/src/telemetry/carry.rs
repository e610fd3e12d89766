//! Sockets keep what is known of them when another version, whose socket storage this walks over, is replaced.

use core::ffi::c_void;

use abi::storage::Storage;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use crate::{
    globals::global,
    storage::{self, OLDER_STORAGE},
    walk::{Visited, VisitedTcp},
};

/// The kernel goes on to the next socket.
const NEXT: i32 = 0;

/// A walk over the storage itself.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
pub(crate) extern "C" fn carry(ctx: *mut Visited<c_void>) -> i32 {
    // SAFETY: the context and what it points to are the kernel's, valid while the program runs.
    unsafe {
        let (sk, old) = ((*ctx).sk, (*ctx).value);
        if !sk.is_null() && !old.is_null() {
            begin_as(sk, old);
        }
    }
    NEXT
}

/// A walk over the TCP sockets of one namespace.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub(crate) extern "C" fn carry_tcp(ctx: *mut VisitedTcp) -> i32 {
    // SAFETY: as above.
    unsafe {
        if let Some(tcp) = VisitedTcp::socket(ctx)
            && let Some(old) = storage::find_in(&OLDER_STORAGE, tcp.socket())
        {
            begin_as(tcp.socket(), old.cast());
        }
    }
    NEXT
}

/// Gives a socket a storage that begins as its old one did, unless it has one. Versions add fields at the end: those that the old one has
/// not are zero.
///
/// # Safety
/// The socket is the context's, and `old` what it has in a map of whose values the loader has told how much there is, which is no more than
/// fits.
#[inline(always)]
unsafe fn begin_as(sk: *mut c_void, old: *const c_void) {
    let mut first = Storage::default();
    // SAFETY: passed on from the caller.
    unsafe {
        if bpf_probe_read_kernel((&raw mut first).cast(), global!(carried_bytes), old) == 0 {
            _ = storage::find_or_create(sk, &mut first);
        }
    }
}
