//! `sock_release`: the last file of a socket is closed; says which connects came to nothing before TCP took them up.

use abi::TcpState;
use aya_ebpf::{EbpfContext, helpers, macros::cgroup_sock, programs::SockContext};

use super::attempt::{self, Remains};
use crate::{globals::global, storage};

const TCP: u32 = 6;
const ALLOW: i32 = 1;

/// Lets every socket go.
#[cgroup_sock(sock_release)]
pub(crate) fn release(ctx: SockContext) -> i32 {
    // SAFETY: the context is the kernel's.
    unsafe { observe(&ctx) };
    ALLOW
}

#[inline(always)]
unsafe fn observe(ctx: &SockContext) {
    // SAFETY: fields of the context are read as the kernel allows this hook; here the context is the `struct sock` itself, which lives as
    // long as the program runs.
    unsafe {
        if (*ctx.sock).protocol != TCP {
            return;
        }
        let state = (&raw const (*ctx.sock).state).read_volatile() as u8;
        // Every other state says that TCP took a connect up, and most sockets are let go in one. (SYN_SENT: fast open waits for data.)
        if state != TcpState::Close as u8 && state != TcpState::SynSent as u8 {
            return;
        }
        let Some(kept) = storage::find(ctx.as_ptr()) else { return };
        if !attempt::unanswered((*kept).flags) {
            return;
        }
        let route = ctx.as_ptr().cast_const().cast::<u8>().add(global!(offsets.route) as usize);
        let remains = Remains {
            state,
            remote_v4: (&raw const (*ctx.sock).dst_ip4).read_volatile(),
            route: helpers::bpf_probe_read_kernel(route.cast::<u64>()).is_ok_and(|route| route != 0),
        };
        attempt::report(kept, remains, helpers::bpf_ktime_get_ns());
    }
}
