//! `sk_msg`: what a joined socket sends goes into its peer's queue, not through TCP, where order allows.

use core::ffi::c_void;

use abi::{
    joined::{Joined, MOST_UNREAD, course, flags::LEAVING},
    maps::{
        counter::{HELD_BACK, NOT_TOLD},
        setting::ACCELERATE,
    },
    storage::flags,
};
use aya_ebpf::{bindings::BPF_F_INGRESS, macros::sk_msg, programs::SkMsgContext};

use super::{
    metadata::{self, NoRoom},
    other::Other,
};
use crate::{
    counters,
    globals::global,
    managed::managed,
    maps::{JOINED, SOCKETS, setting},
    sock::TcpSock,
    storage,
};

/// It goes by TCP, or where the redirect said.
const PASS: u32 = 1;
/// The send fails.
const DROP: u32 = 0;

/// What need not be looked at for each message is looked at each time so many bytes more were sent (2^16).
const LOOK: u32 = 16;

/// Sees what a socket sends, whose lock the kernel holds meanwhile. It goes on, but for what a waypoint would misunderstand.
#[sk_msg]
pub(crate) fn message(ctx: SkMsgContext) -> u32 {
    // SAFETY: the context is the kernel's.
    match unsafe { try_send(&ctx) } {
        Ok(()) => PASS,
        Err(NoRoom) => {
            counters::add(NOT_TOLD, 1);
            DROP
        }
    }
}

#[inline(always)]
unsafe fn try_send(ctx: &SkMsgContext) -> Result<(), NoRoom> {
    // SAFETY: the context and its socket are the kernel's, the storage the socket's.
    unsafe {
        let sk: *mut c_void = (*ctx.msg).__bindgen_anon_3.sk.cast();
        if sk.is_null() {
            return Ok(());
        }
        let Some(kept) = storage::find(sk) else { return Ok(()) };
        let before = (*kept).flags;
        if before & flags::WAYPOINT != 0
            && let Some(tcp) = TcpSock::of(sk)
            && metadata::push(ctx, tcp, kept)?
        {
            return Ok(());
        }
        if before & flags::JOINED != 0
            && let Some(own) = JOINED.get_ptr_mut((*kept).cookie)
            && redirect(ctx, sk, (*kept).cookie, own).is_none()
        {
            (*own).course = course::TCP;
        }
    }
    Ok(())
}

/// Sends beside TCP, if nothing can overtake anything, and tells whether it does:
///
/// - What TCP was given before has been read by the peer's program, all of it. What was sent beside TCP is read before what TCP delivers
///   later: that is the kernel's order.
/// - Nobody sleeps in a read at the peer that began before it joined: programs do not wait there ([`Other::is_blocking`]).
/// - The peer does not have too much to read already.
///
/// # Safety
/// `sk` is the context's socket, `cookie` its own and `own` what is known of it: this program alone writes what it writes there, and runs once at a time for a
/// socket.
#[inline(always)]
unsafe fn redirect(ctx: &SkMsgContext, sk: *mut c_void, cookie: u64, own: *mut Joined) -> Option<()> {
    // SAFETY: passed on from the caller; the value of a map stays valid while the program runs.
    unsafe {
        let mut peer_cookie = (*own).peer;
        let peer = JOINED.get_ptr(peer_cookie)?;
        if setting(ACCELERATE) == 0
            || (*peer).peer != cookie
            || !managed((*own).netns)
            || (*peer).netns != (*own).netns && !managed((*peer).netns)
        {
            return None;
        }
        let tcp = TcpSock::of(sk)?;
        let other = Other::at((*peer).socket);
        if tcp.flags() & 1 << global!(offsets.zero_copy) != 0 || other.cookie() != peer_cookie {
            return None;
        }
        let (size, begun) = (ctx.size(), (*own).course == course::REDIRECT);
        if ((&raw const (*own).flags).read_volatile() | (&raw const (*peer).flags).read_volatile()) & LEAVING != 0 {
            return None;
        }
        if !has_room(other, (*own).sent, size) {
            if begun {
                counters::add(HELD_BACK, 1);
            }
            return None;
        }
        if !begun && !may_begin(tcp, other) {
            return None;
        }
        // Only a socket that is established takes it.
        if SOCKETS.redirect_msg(ctx, &mut peer_cookie, BPF_F_INGRESS.into()) == 0 {
            return None;
        }
        (*own).course = course::REDIRECT;
        (*own).sent += u64::from(size);
    }
    Some(())
}

/// Tells whether the peer may have so much more to read. One message it may have in any case.
#[inline(always)]
fn has_room(other: Other, sent: u64, size: u32) -> bool {
    let unread = other.unread();
    if unread != 0 {
        return unread.saturating_add(size) <= MOST_UNREAD;
    }
    // Kernels that do not count what waits beside TCP are not believed for long.
    sent >> LOOK == (sent + u64::from(size)) >> LOOK || !other.has_redirected()
}

/// Tells whether a socket that sends by TCP may go on beside it: the peer's program has read all that TCP was given. (No two pairs of
/// sockets have the same sequence numbers: this proves too that the other is the peer.)
#[inline(always)]
fn may_begin(tcp: TcpSock, other: Other) -> bool {
    other.copied_seq() == tcp.write_seq() && !other.is_blocking()
}
