//! `sock_ops`: a connection to a waypoint is seen when it sends, so that the waypoint can be told what was dialled.

use abi::{maps::counter::NOT_TOLD, storage::flags};
use aya_ebpf::{
    bindings::BPF_ANY, bindings::BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, helpers::generated::bpf_sock_hash_update,
    macros::sock_ops, programs::SockOpsContext,
};

use crate::{counters, maps::SOCKETS, storage};

/// What the kernel takes as "nothing said": other programs' replies stand.
const NO_REPLY: u32 = 1;

/// Lets `message` see what a connection to a waypoint sends, from its establishment on.
#[sock_ops]
pub(crate) fn waypoint(ctx: SockOpsContext) -> u32 {
    let ops = ctx.ops;
    // SAFETY: the context is the kernel's; its socket is locked, and the storage its own.
    unsafe {
        if (*ops).op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB {
            return NO_REPLY;
        }
        let sk = (*ops).__bindgen_anon_2.sk;
        if sk.is_null() {
            return NO_REPLY;
        }
        let Some(kept) = storage::find(sk.cast()) else { return NO_REPLY };
        if (*kept).flags & flags::WAYPOINT == 0 {
            return NO_REPLY;
        }
        let mut cookie = (*kept).cookie;
        let map = (&raw const SOCKETS).cast_mut().cast();
        if bpf_sock_hash_update(ops, map, (&raw mut cookie).cast(), BPF_ANY.into()) != 0 {
            counters::add(NOT_TOLD, 1);
        }
    }
    NO_REPLY
}
