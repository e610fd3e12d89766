//! `iter/bpf_sk_storage_map`: the totals of every live connection, pulled by user space.

use abi::{
    Kind, TcpState,
    maps::setting::{MISSED, PASS, STOPPED},
    storage::{Storage, flags},
};
use aya_ebpf::helpers::bpf_ktime_get_ns;

use crate::{
    maps,
    record::{self, Event},
    ring,
    sock::TcpSock,
    storage::{self, Visited},
};

/// The kernel goes on to the next socket.
const NEXT: i32 = 0;
/// The kernel returns EAGAIN to user space, and comes back to the same socket when that reads on.
const AGAIN: i32 = 1;

/// Shows one socket, once a pass, in the ring.
///
/// (The iterator's own output would be read 32 KiB at a time, and after each read the kernel finds its place by counting sockets from
/// the begin of a hash bucket: a pass would take time by the square of the connections.)
///
/// Where user space has to empty the ring first, the same counting is done, and sockets that went meanwhile make others be missed. A walk
/// that comes back to the socket at which it stopped has missed none (those that came only make it see some twice); if one has, user
/// space repeats it. A socket shown is marked with the pass, and not shown again.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
pub(crate) extern "C" fn snapshot(ctx: *mut Visited<Storage>) -> i32 {
    // SAFETY: the context is the kernel's.
    unsafe { show(ctx) }
}

#[inline(always)]
unsafe fn show(ctx: *mut Visited<Storage>) -> i32 {
    // SAFETY: the context and what it points to are the kernel's, valid while the program runs.
    unsafe {
        let (sk, kept) = ((*ctx).sk, (*ctx).value);
        if sk.is_null() || kept.is_null() {
            return NEXT;
        }
        let pass = maps::setting(PASS) as u32;
        if (*kept).flags & (flags::ESTABLISHED | flags::CLOSED) != flags::ESTABLISHED || (*kept).pass == pass {
            return NEXT;
        }
        let Some(tcp) = TcpSock::of(sk) else { return NEXT };
        let state = tcp.state();
        // Closed while telemetry was not attached.
        if state == TcpState::Close as u8 {
            return NEXT;
        }
        let before = storage::set_flags(kept, flags::SHOWN);
        if before & flags::CLOSED != 0 {
            return NEXT;
        }
        let event = Event {
            kind: Kind::Progress,
            flags: 0,
            error: 0,
            state,
            now_ns: bpf_ktime_get_ns(),
            bytes: record::bytes_unlocked(tcp, before, (*kept).direction),
        };
        let (cookie, stopped) = ((*kept).cookie, maps::setting(STOPPED));
        if !ring::show(&event, tcp, kept) {
            maps::set_setting(STOPPED, if stopped == 0 || stopped == cookie { cookie } else { MISSED });
            return AGAIN;
        }
        (*kept).pass = pass;
        if stopped == cookie {
            maps::set_setting(STOPPED, 0);
        }
        NEXT
    }
}
