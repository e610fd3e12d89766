//! Connections between two sockets of this node find each other, and join once they have proved long.

use core::ffi::c_void;

use abi::{
    Endpoint, TcpState,
    joined::{
        Joined, Seeker, View, course,
        flags::{LEAVING, LEFT},
    },
    maps::{
        counter::{JOINED as JOINS, NOT_JOINED, PARTED},
        setting::{ACCELERATE, UNREAD},
    },
    storage::{Storage, flags},
};
use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_map_delete_elem, bpf_map_update_elem},
    },
};

use super::other::Other;
use crate::{
    counters,
    globals::global,
    maps::{self, JOINED, SEEKERS, SOCKETS, setting},
    sock::TcpSock,
    storage,
    walk::{Visited, VisitedTcp},
};

/// The socket is in the map.
const EBUSY: i32 = -16;

/// The kernel goes on to the next socket.
const NEXT: i32 = 0;

/// What may be on its way between two sockets that look for each other; far less than their sequence numbers differ by if they are no pair.
const IN_FLIGHT: u32 = 1 << 24;

/// How long a send beside TCP may be under way when the peer is told to leave.
const UNDER_WAY_NS: u64 = 10_000_000;

/// A walk over the storage of all sockets.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
pub(crate) extern "C" fn join(ctx: *mut Visited<Storage>) -> i32 {
    // SAFETY: the context and what it points to are the kernel's, valid while the program runs.
    unsafe {
        let (sk, kept) = ((*ctx).sk, (*ctx).value);
        if sk.is_null() || kept.is_null() {
            return NEXT;
        }
        visit(sk, kept);
    }
    NEXT
}

/// A walk over the TCP sockets of one namespace. Not before Linux 6.5, where the kernel holds the lock of the visited socket in such a way that
/// to put it into a map would wait for that.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub(crate) extern "C" fn join_tcp(ctx: *mut VisitedTcp) -> i32 {
    // SAFETY: as above.
    unsafe {
        if let Some((tcp, kept)) = VisitedTcp::kept(ctx) {
            visit(tcp.socket(), kept);
        }
    }
    NEXT
}

#[inline(always)]
unsafe fn visit(sk: *mut c_void, kept: *mut Storage) {
    // SAFETY: passed on from the caller.
    unsafe {
        match setting(ACCELERATE) {
            0 => count_unread(sk, kept),
            after => _ = look(sk, kept, after),
        }
    }
}

/// Looks at one socket: joins it if its peer is there, else lets its peer find it.
#[inline(always)]
unsafe fn look(sk: *mut c_void, kept: *mut Storage, after: u64) -> Option<()> {
    // SAFETY: passed on from the caller.
    unsafe {
        let kept_flags = (*kept).flags;
        if kept_flags & (flags::ESTABLISHED | flags::CLOSED) != flags::ESTABLISHED {
            return None;
        }
        if kept_flags & flags::JOINED != 0 {
            return leave(JOINED.get_ptr_mut((*kept).cookie)?, (*kept).cookie);
        }
        let tcp = TcpSock::of(sk)?;
        if u64::from(tcp.segs_in()) + u64::from(tcp.segs_out()) < after
            || tcp.state() != TcpState::Established as u8
            || !fits(Other::at(sk.expose_provenance() as u64))
        {
            return None;
        }
        let mut view = View { netns: 0, local: Endpoint::default(), remote: Endpoint::default(), reserved: [0; 4] };
        let family = tcp.family();
        tcp.write_local(family, &raw mut view.local);
        tcp.write_remote(family, &raw mut view.remote);
        if view.local.address == view.remote.address || is_loopback(&view.local.address) {
            view.netns = (*kept).netns;
        }
        let seeker = Seeker { cookie: (*kept).cookie, socket: sk.expose_provenance() as u64 };
        // The peer may have joined and left word, or has looked for this one, or will.
        _ = SEEKERS.insert(view, seeker, BPF_ANY.into());
        let found = SEEKERS.get_ptr(word_for((*kept).cookie)).or_else(|| {
            core::mem::swap(&mut view.local, &mut view.remote);
            SEEKERS.get_ptr(view)
        })?;
        let other = Other::at((*found).socket);
        if other.cookie() != (*found).cookie || !other.is_established() || !are_pair(tcp, other) {
            return None;
        }
        if fits(other) {
            let peer = (*found).cookie;
            if enter(sk, kept, peer) {
                _ = SEEKERS.insert(word_for(peer), seeker, BPF_ANY.into());
            }
        }
    }
    Some(())
}

/// Where a socket that has joined leaves word for its peer. (No socket has such a view.)
#[inline(always)]
fn word_for(cookie: u64) -> View {
    View { netns: cookie, local: Endpoint::default(), remote: Endpoint::default(), reserved: [0; 4] }
}

/// Has a socket leave, and its peer, whose program may be made to wait for what it reads; lets one that is to leave go once nothing waits there any more
/// that came beside TCP.
#[inline(always)]
unsafe fn leave(own: *mut Joined, mut cookie: u64) -> Option<()> {
    // SAFETY: passed on from the caller; values of a map stay valid while the program runs.
    unsafe {
        let (socket, flags) = (Other::at((*own).socket), (&raw const (*own).flags).read_volatile());
        let now_ns = bpf_ktime_get_ns();
        if flags & LEAVING == 0 {
            let peer = JOINED.get_ptr((*own).peer);
            if socket.is_blocking()
                || peer.is_some_and(|peer| (&raw const (*peer).flags).read_volatile() & LEAVING != 0)
            {
                (*own).leaving_ns = now_ns;
                _ = storage::fetch_or(&raw mut (*own).flags, LEAVING);
            }
            return None;
        }
        if flags & LEFT != 0 || now_ns.wrapping_sub((*own).leaving_ns) < UNDER_WAY_NS || socket.has_redirected() {
            return None;
        }
        _ = storage::fetch_or(&raw mut (*own).flags, LEFT);
        bpf_map_delete_elem((&raw const SOCKETS).cast_mut().cast(), (&raw mut cookie).cast());
        counters::add(PARTED, 1);
    }
    Some(())
}

/// Counts the socket if something that came beside TCP waits there: it must not leave.
#[inline(always)]
unsafe fn count_unread(sk: *mut c_void, kept: *const Storage) {
    // SAFETY: passed on from the caller.
    let joined = unsafe { (*kept).flags } & flags::JOINED != 0;
    if joined && Other::at(sk.expose_provenance() as u64).has_redirected() {
        maps::set_setting(UNREAD, setting(UNREAD) + 1);
    }
}

/// Tells whether data of a socket may go beside TCP: its program is not made to wait for what it reads, nor waits to be told when something
/// was sent without being copied, nor reads only what has come to a certain amount.
#[inline(always)]
fn fits(socket: Other) -> bool {
    socket.flags() & 1 << global!(offsets.zero_copy) == 0 && socket.low_mark() <= 1 && !socket.is_blocking()
}

/// Tells by their sequence numbers whether two sockets are the ends of one connection.
#[inline(always)]
fn are_pair(tcp: TcpSock, other: Other) -> bool {
    other.rcv_nxt().wrapping_sub(tcp.snd_una()) <= IN_FLIGHT
        && tcp.snd_nxt().wrapping_sub(other.rcv_nxt()) <= IN_FLIGHT
        && tcp.rcv_nxt().wrapping_sub(other.snd_una()) <= IN_FLIGHT
        && other.snd_nxt().wrapping_sub(tcp.rcv_nxt()) <= IN_FLIGHT
}

/// Joins a socket, and tells whether it did; its data goes by TCP until that is quiet.
#[inline(always)]
unsafe fn enter(sk: *mut c_void, kept: *mut Storage, peer: u64) -> bool {
    // SAFETY: passed on from the caller; the helper takes the socket of an iterator.
    unsafe {
        let mut cookie = (*kept).cookie;
        let joined = Joined {
            peer,
            socket: sk.expose_provenance() as u64,
            netns: (*kept).netns,
            course: course::TCP,
            ..Joined::default()
        };
        if JOINED.insert(cookie, joined, BPF_NOEXIST.into()).is_err() {
            counters::add(NOT_JOINED, 1);
            return false;
        }
        storage::set_flags(kept, flags::JOINED);
        let map = (&raw const SOCKETS).cast_mut().cast();
        // Before Linux 6.4 the upper half of what this returns is not written.
        let entered = bpf_map_update_elem(map, (&raw mut cookie).cast(), sk, BPF_ANY.into()) as i32;
        // One that tells a waypoint what was dialled is there already.
        if entered != 0 && (entered != EBUSY || (*kept).flags & flags::WAYPOINT == 0) {
            _ = JOINED.remove(cookie);
            counters::add(NOT_JOINED, 1);
            return false;
        }
        counters::add(JOINS, 1);
    }
    true
}

/// Tells whether an address is one's own in every namespace: `127.0.0.0/8`, IPv4-mapped, or `::1`.
#[inline(always)]
fn is_loopback(address: &[u8; 16]) -> bool {
    matches!(
        address,
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, ..] | [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    )
}
