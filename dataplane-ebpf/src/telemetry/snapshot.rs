//! `iter/bpf_sk_storage_map`: the totals of every live connection, pulled by user space.

use core::{ffi::c_void, mem::MaybeUninit};

use abi::{
    Kind, Record, TcpState,
    maps::setting::PASS,
    storage::{Storage, flags},
};
use aya_ebpf::{
    bindings::seq_file,
    helpers::{bpf_ktime_get_ns, generated::bpf_seq_write},
};

use crate::{
    maps,
    record::{self, Event},
    sock::TcpSock,
    storage,
};

/// `struct bpf_iter_meta`.
#[repr(C)]
pub(crate) struct Meta {
    seq: *mut seq_file,
    session_id: u64,
    seq_num: u64,
}

/// `struct bpf_iter__bpf_sk_storage_map`.
#[repr(C)]
pub(crate) struct Context {
    meta: *mut Meta,
    map: *mut c_void,
    sk: *mut c_void,
    value: *mut Storage,
}

/// Shows one socket, once a pass.
///
/// The kernel comes back to a socket whose record found no room, and after each read it finds its place by counting, so that sockets that
/// came or went meanwhile make it come twice or not at all. A socket shown is marked with the pass, and user space repeats the walk
/// until one was whole.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
pub(crate) extern "C" fn snapshot(ctx: *mut Context) -> i32 {
    // SAFETY: the context is the kernel's.
    unsafe { show(ctx) };
    0
}

#[inline(always)]
unsafe fn show(ctx: *mut Context) {
    // SAFETY: the context and what it points to are the kernel's, valid while the program runs; the record is written whole before the
    // kernel reads it.
    unsafe {
        let (sk, kept) = ((*ctx).sk, (*ctx).value);
        if sk.is_null() || kept.is_null() {
            return;
        }
        let pass = maps::setting(PASS) as u32;
        if (*kept).flags & (flags::ESTABLISHED | flags::CLOSED) != flags::ESTABLISHED || (*kept).pass == pass {
            return;
        }
        let Some(tcp) = TcpSock::of(sk) else { return };
        let state = tcp.state();
        // Closed while telemetry was not attached.
        if state == TcpState::Close as u8 {
            return;
        }
        let before = storage::set_flags(kept, flags::SHOWN);
        if before & flags::CLOSED != 0 {
            return;
        }
        let event = Event {
            kind: Kind::Progress,
            flags: 0,
            error: 0,
            state,
            now_ns: bpf_ktime_get_ns(),
            bytes: record::bytes_unlocked(tcp, before, (*kept).direction),
        };
        let mut record = MaybeUninit::<Record>::uninit();
        record::write(record.as_mut_ptr(), &event, tcp, kept);
        if bpf_seq_write((*(*ctx).meta).seq, record.as_ptr().cast(), size_of::<Record>() as u32) == 0 {
            (*kept).pass = pass;
        }
    }
}
