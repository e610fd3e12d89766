//! `sock_ops`: a connection to a waypoint is seen when it first sends, so that the waypoint can be told what was dialled.

use abi::{maps::counter::NOT_TOLD, storage::flags};
use aya_ebpf::{
    bindings::{
        BPF_ANY, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_HDR_OPT_LEN_CB, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG,
        bpf_sock_ops,
    },
    helpers::generated::{bpf_map_delete_elem, bpf_sock_hash_update, bpf_sock_ops_cb_flags_set},
    macros::sock_ops,
    programs::SockOpsContext,
};

use crate::{counters, maps::SOCKETS, storage};

/// What the kernel takes as "nothing said": other programs' replies stand.
const NO_REPLY: u32 = 1;

/// Lets `message` see what a connection to a waypoint sends, from its establishment until it has told the waypoint.
#[sock_ops]
pub(crate) fn waypoint(ctx: SockOpsContext) -> u32 {
    let ops = ctx.ops;
    // SAFETY: the context is the kernel's; its socket is locked, and the storage its own.
    unsafe {
        match (*ops).op {
            BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => _ = watch(ops),
            BPF_SOCK_OPS_HDR_OPT_LEN_CB => _ = let_go(ops),
            _ => {}
        }
    }
    NO_REPLY
}

/// Puts a connection to a waypoint into the map of those whose sends are seen.
#[inline(always)]
unsafe fn watch(ops: *mut bpf_sock_ops) -> Option<()> {
    // SAFETY: passed on from the caller.
    unsafe {
        let kept = storage::find(socket(ops)?)?;
        if (*kept).flags & flags::WAYPOINT == 0 {
            return None;
        }
        let mut cookie = (*kept).cookie;
        let map = (&raw const SOCKETS).cast_mut().cast();
        if bpf_sock_hash_update(ops, map, (&raw mut cookie).cast(), BPF_ANY.into()) != 0 {
            counters::add(NOT_TOLD, 1);
            return None;
        }
        let asked = (*ops).bpf_sock_ops_cb_flags;
        if asked & BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG != 0 {
            storage::set_flags(kept, flags::OTHERS_ASKED);
        } else {
            bpf_sock_ops_cb_flags_set(ops, (asked | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG) as i32);
        }
    }
    Some(())
}

/// Takes a connection out of that map once its waypoint was told: its program's reads are TCP's own again before the send that told it
/// returns. (As long as it is there, the kernel may answer a program that waits in a read with EAGAIN.)
///
/// TCP asks for the size of its options while it makes a segment of what `message` let go on.
#[inline(always)]
unsafe fn let_go(ops: *mut bpf_sock_ops) -> Option<()> {
    // SAFETY: passed on from the caller.
    unsafe {
        let kept = storage::find(socket(ops)?)?;
        if (*kept).flags & (flags::TOLD_WAYPOINT | flags::LET_GO) != flags::TOLD_WAYPOINT {
            return None;
        }
        let before = storage::set_flags(kept, flags::LET_GO);
        if before & flags::OTHERS_ASKED == 0 {
            let asked = (*ops).bpf_sock_ops_cb_flags & !BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
            bpf_sock_ops_cb_flags_set(ops, asked as i32);
        }
        if before & flags::JOINED == 0 {
            let mut cookie = (*kept).cookie;
            bpf_map_delete_elem((&raw const SOCKETS).cast_mut().cast(), (&raw mut cookie).cast());
        }
    }
    Some(())
}

#[inline(always)]
unsafe fn socket(ops: *mut bpf_sock_ops) -> Option<*mut core::ffi::c_void> {
    // SAFETY: passed on from the caller.
    let sk = unsafe { (*ops).__bindgen_anon_2.sk };
    (!sk.is_null()).then_some(sk.cast())
}
