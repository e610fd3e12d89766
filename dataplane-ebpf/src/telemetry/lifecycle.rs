//! `sock_ops`: connections as they are established, closed, or fail.

use core::ffi::c_void;

use abi::{
    Direction, Kind, TcpState,
    maps::counter::NO_STORAGE,
    storage::{Storage, flags, reported},
};
use aya_ebpf::{
    EbpfContext,
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
        BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock_ops,
    },
    helpers::{self, generated},
    macros::sock_ops,
    programs::SockOpsContext,
};

use super::{attempt, reset};
use crate::{
    counters, joined, managed,
    record::{self, Bytes, Event},
    ring,
    sock::TcpSock,
    steering, storage,
};

const CLOSE: u8 = TcpState::Close as u8;

/// What the kernel takes as "nothing said": other programs' replies stand.
const NO_REPLY: u32 = 1;

/// Why an event is not reported.
enum Unseen {
    /// The namespace is not the mesh's, or the event came to a socket from before telemetry.
    Unmanaged,
    /// Not a full TCP socket.
    NotTcp,
    /// The kernel had no memory for the storage.
    NoStorage,
    /// The connection was reported before, or never began.
    Over,
}

/// Follows a socket. What it returns changes nothing.
#[sock_ops]
pub(crate) fn lifecycle(ctx: SockOpsContext) -> u32 {
    let ops = ctx.ops;
    // SAFETY: the context is the kernel's.
    let seen = unsafe {
        match (*ops).op {
            BPF_SOCK_OPS_STATE_CB if (*ops).__bindgen_anon_1.args[1] == u32::from(CLOSE) => try_close(ops),
            BPF_SOCK_OPS_TCP_CONNECT_CB => try_connect(&ctx),
            BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => try_established(ops),
            BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => try_accepted(&ctx),
            _ => return NO_REPLY,
        }
    };
    match seen {
        Err(Unseen::NoStorage) => counters::add(NO_STORAGE, 1),
        Ok(()) | Err(Unseen::Unmanaged | Unseen::NotTcp | Unseen::Over) => {}
    }
    NO_REPLY
}

/// TCP takes a connect up. connect4/6 has made the storage, unless steering did not see the connect.
#[inline(always)]
unsafe fn try_connect(ctx: &SockOpsContext) -> Result<(), Unseen> {
    // SAFETY: the socket is the context's, and locked: its storage is its own.
    unsafe {
        let sk = socket(ctx.ops)?;
        match storage::find(sk) {
            Some(kept) if attempt::unanswered((*kept).flags) => (*kept).flags |= flags::CONNECTING,
            found => {
                let netns = generated::bpf_get_netns_cookie(ctx.as_ptr());
                let tcp = TcpSock::of(sk).ok_or(Unseen::NotTcp)?;
                if !managed::managed(netns) || steering::signal::is_to(tcp) {
                    return Err(Unseen::Unmanaged);
                }
                let mut first = begin(ctx, netns, flags::CONNECTING, Direction::Outbound);
                match found {
                    Some(kept) => *kept = first,
                    None => _ = storage::find_or_create(sk, &mut first).ok_or(Unseen::NoStorage)?,
                }
            }
        }
        follow(ctx.ops);
    }
    Ok(())
}

/// A connection opened here is established.
#[inline(always)]
unsafe fn try_established(ops: *mut bpf_sock_ops) -> Result<(), Unseen> {
    // SAFETY: the socket is the context's, the storage the socket's.
    unsafe {
        let sk = socket(ops)?;
        let kept = storage::find(sk).ok_or(Unseen::Unmanaged)?;
        established(sk, kept, helpers::bpf_ktime_get_ns())
    }
}

/// A connection is accepted here. (Or, when both ends open at once, one that this end opened is established.)
#[inline(always)]
unsafe fn try_accepted(ctx: &SockOpsContext) -> Result<(), Unseen> {
    // SAFETY: the socket is the context's, the storage the socket's.
    unsafe {
        let netns = generated::bpf_get_netns_cookie(ctx.as_ptr());
        if !managed::managed(netns) {
            return Err(Unseen::Unmanaged);
        }
        let sk = socket(ctx.ops)?;
        let mut first = begin(ctx, netns, flags::CONNECTING, Direction::Inbound);
        let kept = storage::find_or_create(sk, &mut first).ok_or(Unseen::NoStorage)?;
        follow(ctx.ops);
        established(sk, kept, first.start_ns)
    }
}

#[inline(always)]
unsafe fn established(sk: *mut c_void, kept: *mut Storage, now_ns: u64) -> Result<(), Unseen> {
    // SAFETY: passed on from the callers.
    unsafe {
        let tcp = TcpSock::of(sk).ok_or(Unseen::NotTcp)?;
        let before = (*kept).flags;
        if before & (flags::CONNECTING | flags::ESTABLISHED | flags::CLOSED) != flags::CONNECTING {
            return Err(Unseen::Over);
        }
        let flags = before | flags::ESTABLISHED;
        (*kept).reported = reported(now_ns);
        let state = TcpState::Established as u8;
        let bytes = record::bytes(tcp, flags, (*kept).direction, state);
        let event = Event { kind: Kind::Established, flags: 0, error: 0, state, now_ns, bytes };
        let told = ring::report(&event, tcp, kept);
        // Until now the iterator has left the flags alone.
        (*kept).flags = if told { flags | flags::SHOWN } else { flags };
    }
    Ok(())
}

/// A socket goes to CLOSE. Until the callback returns it still is in the state before.
#[inline(always)]
unsafe fn try_close(ops: *mut bpf_sock_ops) -> Result<(), Unseen> {
    // SAFETY: the socket is the context's, the storage the socket's.
    unsafe {
        let old = (*ops).__bindgen_anon_1.args[0] as u8;
        let sk = socket(ops)?;
        let kept = storage::find(sk).ok_or(Unseen::Unmanaged)?;
        let before = storage::set_flags(kept, flags::CLOSED);
        if before & flags::CLOSED != 0 || before & (flags::CONNECTING | flags::ESTABLISHED) == 0 {
            return Err(Unseen::Over);
        }
        let tcp = TcpSock::of(sk).ok_or(Unseen::NotTcp)?;
        let error = tcp.error();
        let now_ns = helpers::bpf_ktime_get_ns();
        let mut event =
            Event { kind: Kind::Failed, flags: 0, error, state: old, now_ns, bytes: Bytes { sent: 0, received: 0 } };
        if before & flags::ESTABLISHED != 0 {
            event.kind = Kind::Closed;
            event.bytes = record::bytes(tcp, before, (*kept).direction, old);
            if reset::by_reset(old, error, tcp.flags()) {
                event.flags = abi::record::flags::RESET;
            }
        }
        ring::report(&event, tcp, kept);
        if before & flags::JOINED != 0 {
            joined::part(kept);
        }
    }
    Ok(())
}

#[inline(always)]
unsafe fn socket(ops: *mut bpf_sock_ops) -> Result<*mut c_void, Unseen> {
    // SAFETY: the context is the kernel's.
    let sk = unsafe { (*ops).__bindgen_anon_2.sk };
    if sk.is_null() { Err(Unseen::NotTcp) } else { Ok(sk.cast()) }
}

#[inline(always)]
unsafe fn begin(ctx: &SockOpsContext, netns: u64, flags: u32, direction: Direction) -> Storage {
    // SAFETY: the context is the kernel's.
    let (cookie, now) = unsafe { (generated::bpf_get_socket_cookie(ctx.as_ptr()), helpers::bpf_ktime_get_ns()) };
    Storage { cookie, netns, start_ns: now, flags, direction: direction as u8, ..Storage::default() }
}

/// Asks for the socket's changes of state, besides what other programs asked for.
#[inline(always)]
unsafe fn follow(ops: *mut bpf_sock_ops) {
    // SAFETY: the context is the kernel's, of a full socket.
    unsafe {
        let asked = (*ops).bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG;
        generated::bpf_sock_ops_cb_flags_set(ops, asked as i32);
    }
}
