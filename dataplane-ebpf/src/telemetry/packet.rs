//! `cgroup_skb`: with `--progress packet`, a connection's packets report it once the interval has passed.

use abi::{
    Kind,
    storage::{flags, reported},
};
use aya_ebpf::{
    helpers::{self, generated},
    macros::cgroup_skb,
    programs::SkBuffContext,
};

use crate::{
    globals::global,
    record::{self, Event},
    ring,
    sock::TcpSock,
    storage,
};

const PASS: i32 = 1;

/// Lets every packet in.
#[cgroup_skb(ingress)]
pub(crate) fn packet_ingress(ctx: SkBuffContext) -> i32 {
    // SAFETY: the context is the kernel's.
    unsafe { observe(&ctx, false) };
    PASS
}

/// Lets every packet out.
#[cgroup_skb(egress)]
pub(crate) fn packet_egress(ctx: SkBuffContext) -> i32 {
    // SAFETY: the context is the kernel's.
    unsafe { observe(&ctx, true) };
    PASS
}

/// Reports the packet's connection if it is time. Who sends holds the socket; an incoming packet is seen before that.
#[inline(always)]
unsafe fn observe(ctx: &SkBuffContext, held: bool) {
    // SAFETY: the socket is the packet's, the storage the socket's. Two packets at once may report twice, which does no harm.
    unsafe {
        let sk = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return;
        }
        let full = generated::bpf_sk_fullsock(sk);
        if full.is_null() {
            return;
        }
        let Some(kept) = storage::find(full.cast()) else { return };
        let flags = (*kept).flags;
        if flags & (flags::ESTABLISHED | flags::CLOSED) != flags::ESTABLISHED {
            return;
        }
        let now_ns = helpers::bpf_ktime_get_ns();
        let now = reported(now_ns);
        if u64::from(now.wrapping_sub((*kept).reported)) < global!(report_interval) {
            return;
        }
        (*kept).reported = now;
        let Some(tcp) = TcpSock::of(full.cast()) else { return };
        let state = tcp.state();
        let direction = (*kept).direction;
        let bytes = if held {
            record::bytes(tcp, flags, direction, state)
        } else {
            record::bytes_unlocked(tcp, flags, direction)
        };
        let event = Event { kind: Kind::Progress, flags: 0, error: 0, state, now_ns, bytes };
        if ring::report(&event, tcp, kept) && flags & flags::SHOWN == 0 {
            storage::set_flags(kept, flags::SHOWN);
        }
    }
}
