//! `connect4` and `connect6`: a service's address becomes one of its endpoints, and the attempt is noted for telemetry.

use core::ffi::c_void;

use abi::{
    Direction, Endpoint,
    maps::{
        counter::NOT_TOLD,
        setting::{METADATA, TELEMETRY},
    },
    record,
    steering::metadata,
    storage::{Storage, flags},
};
use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval},
    },
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};

use super::{
    backend::{self, Address, Choice},
    signal,
};
use crate::{
    counters, globals::global, managed::managed, maps::setting, record::unattempted, ring, sock::mapped, storage,
    telemetry::attempt,
};

const TCP: u32 = 6;
const REFUSE: i32 = 0;
const ALLOW: i32 = 1;
const ECONNREFUSED: i32 = 111;

/// What becomes of a connect.
enum Verdict {
    /// It goes where it wanted to.
    Unchanged,
    /// It goes elsewhere.
    Changed(Address),
    /// Nothing can take it.
    Refused,
}

/// Steers a connect of an IPv4 socket.
#[cgroup_sock_addr(connect4)]
pub(crate) fn connect4(ctx: SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    // SAFETY: the context is the kernel's; its fields are read as the kernel allows this hook.
    unsafe {
        if (*addr).protocol != TCP {
            return ALLOW;
        }
        let dialled = Address { first: 0, second: mapped((*addr).user_ip4), port: (*addr).user_port as u16 };
        match decide(&ctx, dialled) {
            Verdict::Unchanged => ALLOW,
            // An IPv4 socket can not reach an IPv6 endpoint; user space gives such a service none.
            Verdict::Changed(to) if to.first != 0 || to.second as u32 != mapped(0) as u32 => refuse(),
            Verdict::Changed(to) => {
                (*addr).user_ip4 = (to.second >> 32) as u32;
                (*addr).user_port = to.port.into();
                ALLOW
            }
            Verdict::Refused => refuse(),
        }
    }
}

/// Steers a connect of an IPv6 socket, to an IPv4-mapped address too.
#[cgroup_sock_addr(connect6)]
pub(crate) fn connect6(ctx: SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    // SAFETY: as above.
    unsafe {
        if (*addr).protocol != TCP {
            return ALLOW;
        }
        let word = |i: usize| (&raw const (*addr).user_ip6[i]).read_volatile() as u64;
        let dialled =
            Address { first: word(0) | word(1) << 32, second: word(2) | word(3) << 32, port: (*addr).user_port as u16 };
        match decide(&ctx, dialled) {
            Verdict::Unchanged => ALLOW,
            Verdict::Changed(to) => {
                let set = |i: usize, word: u64| (&raw mut (*addr).user_ip6[i]).write_volatile(word as u32);
                set(0, to.first);
                set(1, to.first >> 32);
                set(2, to.second);
                set(3, to.second >> 32);
                (*addr).user_port = to.port.into();
                ALLOW
            }
            Verdict::Refused => refuse(),
        }
    }
}

/// Makes connect return ECONNREFUSED, or EPERM where the kernel lets a program say no more than "no".
#[inline(always)]
fn refuse() -> i32 {
    if global!(has_set_retval) != 0 {
        // SAFETY: the helper only notes the number.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
    REFUSE
}

/// # Safety
/// The context is the kernel's, of a TCP socket.
#[inline(always)]
unsafe fn decide(ctx: &SockAddrContext, dialled: Address) -> Verdict {
    // SAFETY: the context is the kernel's.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    if signal::is_port(dialled.port) && is_signal(dialled) {
        signal::obey(dialled.port, netns);
        return Verdict::Unchanged;
    }
    if !managed(netns) {
        return Verdict::Unchanged;
    }
    let choice = backend::choose(netns, dialled);
    if setting(TELEMETRY) != 0 {
        // SAFETY: passed on from the caller.
        unsafe { note(ctx, netns, dialled, choice) };
    } else if let Choice::Waypoint(to) = choice
        && setting(METADATA) != metadata::NONE
    {
        // SAFETY: passed on from the caller.
        unsafe { keep(ctx, netns, dialled, to) };
    }
    match choice {
        Choice::Unchanged => Verdict::Unchanged,
        Choice::Backend(to) | Choice::Waypoint(to) => Verdict::Changed(to),
        Choice::NoBackend => Verdict::Refused,
    }
}

#[inline(always)]
fn is_signal(dialled: Address) -> bool {
    let mut endpoint = Endpoint { address: [0; 16], port: [0; 2] };
    endpoint.address[..8].copy_from_slice(&dialled.first.to_ne_bytes());
    endpoint.address[8..].copy_from_slice(&dialled.second.to_ne_bytes());
    signal::is_address(&endpoint.address)
}

/// Keeps what a waypoint is to be told while nobody observes connections.
#[inline(always)]
unsafe fn keep(ctx: &SockAddrContext, netns: u64, dialled: Address, to: Address) {
    // SAFETY: as in `note`.
    unsafe {
        let mut first = begin(ctx, netns, flags::WAYPOINT);
        to.write(&raw mut first.target);
        dialled.write(&raw mut first.original);
        let sk: *mut c_void = (*ctx.sock_addr).__bindgen_anon_1.sk.cast();
        match storage::find_or_create(sk, &mut first) {
            Some(kept) => *kept = first,
            None => counters::add(NOT_TOLD, 1),
        }
    }
}

/// Notes the attempt in the socket's storage, or reports at once that it was refused.
#[inline(always)]
unsafe fn note(ctx: &SockAddrContext, netns: u64, dialled: Address, choice: Choice) {
    // SAFETY: the context and its socket are the kernel's; the storage on the stack is aligned and its endpoints stand at even offsets.
    unsafe {
        let mut first = begin(ctx, netns, flags::ATTEMPT);
        match choice {
            Choice::Unchanged => dialled.write(&raw mut first.target),
            Choice::Backend(to) | Choice::Waypoint(to) => {
                to.write(&raw mut first.target);
                dialled.write(&raw mut first.original);
                if matches!(choice, Choice::Waypoint(_)) {
                    first.flags |= flags::WAYPOINT;
                }
            }
            Choice::NoBackend => {
                dialled.write(&raw mut first.target);
                let refused = record::flags::NO_HEALTHY_ENDPOINT;
                ring::report_failed(&mut unattempted(
                    &first,
                    first.target,
                    refused,
                    ECONNREFUSED as u32,
                    first.start_ns,
                ));
                return;
            }
        }
        let sk: *mut c_void = (*ctx.sock_addr).__bindgen_anon_1.sk.cast();
        attempt::begin(sk, &mut first);
    }
}

#[inline(always)]
unsafe fn begin(ctx: &SockAddrContext, netns: u64, flags: u32) -> Storage {
    // SAFETY: the context is the kernel's.
    let (cookie, start_ns) = unsafe { (bpf_get_socket_cookie(ctx.as_ptr()), bpf_ktime_get_ns()) };
    Storage { cookie, netns, start_ns, flags, direction: Direction::Outbound as u8, ..Storage::default() }
}
