//! `iter/bpf_sk_storage_map` over the socket storage of another version: sockets keep what is known of them.

use core::ffi::c_void;

use abi::storage::Storage;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use crate::{
    globals::global,
    storage::{self, Visited},
};

/// The kernel goes on to the next socket.
const NEXT: i32 = 0;

/// Gives a socket a storage that begins as its old one did, unless it has one. Versions add fields at the end: those that the old one has
/// not are zero.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
pub(crate) extern "C" fn carry(ctx: *mut Visited<c_void>) -> i32 {
    // SAFETY: the context and what it points to are the kernel's, valid while the program runs; the loader has told how much of the value
    // there is, which is no more than fits.
    unsafe {
        let (sk, old) = ((*ctx).sk, (*ctx).value);
        if sk.is_null() || old.is_null() {
            return NEXT;
        }
        let mut first = Storage::default();
        if bpf_probe_read_kernel((&raw mut first).cast(), global!(carried_bytes), old) == 0 {
            _ = storage::find_or_create(sk, &mut first);
        }
    }
    NEXT
}
