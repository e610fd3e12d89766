//! The totals of every live connection, pulled by user space.

use core::ffi::c_void;

use abi::{
    Kind, TcpState,
    maps::setting::{MISSED, PASS, QUIET, STOPPED, WHOLE},
    storage::{Storage, flags},
};
use aya_ebpf::helpers::bpf_ktime_get_ns;

use crate::{
    maps,
    record::{self, Bytes, Event},
    ring,
    sock::TcpSock,
    storage,
    walk::{Visited, VisitedTcp},
};

/// The kernel goes on to the next socket.
const NEXT: i32 = 0;
/// The kernel returns EAGAIN to user space, and comes back to the same socket when that reads on.
const AGAIN: i32 = 1;

/// A walk over the storage of all sockets.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
pub(crate) extern "C" fn snapshot(ctx: *mut Visited<Storage>) -> i32 {
    // SAFETY: the context and what it points to are the kernel's, valid while the program runs.
    unsafe {
        let (sk, kept) = ((*ctx).sk, (*ctx).value);
        if sk.is_null() || kept.is_null() {
            return NEXT;
        }
        show(sk, kept, record::bytes_unlocked)
    }
}

/// A walk over the TCP sockets of one namespace.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub(crate) extern "C" fn snapshot_tcp(ctx: *mut VisitedTcp) -> i32 {
    // SAFETY: as above.
    unsafe {
        let locked = |tcp: TcpSock, flags, direction| record::bytes(tcp, flags, direction, tcp.state());
        VisitedTcp::kept(ctx).map_or(NEXT, |(tcp, kept)| show(tcp.socket(), kept, locked))
    }
}

/// Shows one socket, once a pass, in the ring. Of one that has had no segment since two passes ago, only the cookie is left for user
/// space ([`maps::QUIET`]): there is nothing new, and most open connections of a node are like that. (The second pass is for what the first
/// saw being changed.)
///
/// (The iterator's own output would be read 32 KiB at a time, and after each read the kernel finds its place by counting sockets from
/// the begin of a hash bucket: a pass would take time by the square of the connections.)
///
/// Where user space has to empty the ring first, the same counting is done, and sockets that went meanwhile make others be missed. A walk
/// that comes back to the socket at which it stopped has missed none (those that came only make it see some twice); if one has, user
/// space repeats it. A socket shown is marked with the pass, and not shown again.
///
/// # Safety
/// The socket is the context's, the storage its own, and `bytes` computes payload totals as the walk allows.
#[inline(always)]
unsafe fn show(sk: *mut c_void, kept: *mut Storage, bytes: impl Fn(TcpSock, u32, u8) -> Bytes) -> i32 {
    // SAFETY: passed on from the caller.
    unsafe {
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
        let cookie = (*kept).cookie;
        // Before the totals: what comes meanwhile is something new for the next pass.
        let segments = tcp.segs_in().wrapping_add(tcp.segs_out());
        let is_same = segments == (*kept).told_segments && before & flags::JOINED == 0;
        if is_same && (*kept).is_quiet != 0 && maps::setting(WHOLE) == 0 {
            if !tell_quiet(cookie) {
                return stop_at(cookie);
            }
            return go_on(kept, pass);
        }
        let event = Event {
            kind: Kind::Progress,
            flags: 0,
            error: 0,
            state,
            now_ns: bpf_ktime_get_ns(),
            bytes: bytes(tcp, before, (*kept).direction),
        };
        if !ring::show(&event, tcp, kept) {
            return stop_at(cookie);
        }
        (*kept).told_segments = segments;
        (*kept).is_quiet = is_same.into();
        go_on(kept, pass)
    }
}

/// The walk stops at this socket.
#[inline(always)]
fn stop_at(cookie: u64) -> i32 {
    let stopped = maps::setting(STOPPED);
    maps::set_setting(STOPPED, if stopped == 0 || stopped == cookie { cookie } else { MISSED });
    AGAIN
}

/// The socket was shown, or told to be as it was.
#[inline(always)]
unsafe fn go_on(kept: *mut Storage, pass: u32) -> i32 {
    // SAFETY: the storage is that of the visited socket.
    unsafe {
        (*kept).pass = pass;
        if maps::setting(STOPPED) == (*kept).cookie {
            maps::set_setting(STOPPED, 0);
        }
    }
    NEXT
}

/// Leaves the cookie of a socket in which there is nothing new; tells whether there was room.
#[inline(always)]
fn tell_quiet(cookie: u64) -> bool {
    let count = maps::setting(QUIET);
    let Some(place) = maps::QUIET.get_ptr_mut(count as u32) else { return false };
    // SAFETY: an array's element lives as long as the map, and there is one walk at a time.
    unsafe { place.write(cookie) };
    maps::set_setting(QUIET, count + 1);
    true
}
