//! `iter/tcp`: connections that were open before anyone watched get a storage and are watched from now on.

use core::ffi::c_int;

use abi::{
    Direction, TcpState,
    maps::{
        counter::{ADOPTED, NO_STORAGE},
        setting::ADOPT_NETNS,
    },
    storage::{Storage, Totals, flags},
};
use aya_ebpf::{
    bindings::BPF_SOCK_OPS_STATE_CB_FLAG,
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_get_socket_cookie, bpf_setsockopt},
    },
};

use crate::{
    counters,
    globals::global,
    maps::setting,
    record::{self, Bytes},
    sock::TcpSock,
    steering::signal,
    storage,
    telemetry::payload,
    walk::VisitedTcp,
};

/// The kernel goes on to the next socket.
const NEXT: c_int = 0;

const IPPROTO_TCP: c_int = 6;
/// The socket option that sets which callbacks a socket makes, in place of those before.
const TCP_BPF_SOCK_OPS_CB_FLAGS: c_int = 1008;

/// Adopts one socket of the namespace that the walk began in, unless it is watched already.
///
/// The kernel holds the socket's lock meanwhile: what sock_ops programs see of it they have seen before, or will see after. So who makes
/// a namespace managed first and walks then misses no connection and takes none twice, and a walk may be repeated.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub(crate) extern "C" fn adopt(ctx: *mut VisitedTcp) -> c_int {
    // SAFETY: the context and its socket are the kernel's, valid while the program runs.
    unsafe {
        if let Some(tcp) = VisitedTcp::socket(ctx) {
            look(tcp);
        }
    }
    NEXT
}

/// # Safety
/// The socket is the context's.
#[inline(always)]
unsafe fn look(tcp: TcpSock) {
    const SYN_SENT: u8 = TcpState::SynSent as u8;
    let (state, netns) = (tcp.state(), setting(ADOPT_NETNS));
    if netns == 0 || !(is_open(state) || state == SYN_SENT) {
        return;
    }
    // A connect that is on its way is no adopted one: it will be established, or fail, before our eyes.
    let connecting = state == SYN_SENT;
    let watched = if connecting { flags::CONNECTING } else { flags::ESTABLISHED };
    // SAFETY: the socket is the context's, and locked: its storage is its own, but for what the iterator over storage marks.
    unsafe {
        let found = storage::find(tcp.socket());
        if let Some(kept) = found
            && (*kept).flags & (watched | flags::CLOSED) == watched
        {
            return;
        }
        if connecting && signal::is_to(tcp) {
            return;
        }
        let mut first = Storage {
            cookie: bpf_get_socket_cookie(tcp.socket()),
            netns,
            start_ns: bpf_ktime_get_ns(),
            flags: if connecting { flags::CONNECTING } else { flags::ESTABLISHED | flags::ADOPTED },
            direction: direction(tcp, state) as u8,
            ..Storage::default()
        };
        if !connecting && global!(adopt_history) == 0 {
            let Bytes { sent, received } = record::bytes(tcp, first.flags, first.direction, state);
            first.base = Totals { sent, received, retransmits: tcp.total_retrans(), lost: tcp.lost() };
        }
        match found {
            // Noted by connect4/6, then telemetry was detached for a while; or closed and connected again meanwhile.
            Some(kept) => {
                if (*kept).flags & flags::CLOSED == 0 {
                    first.original = (*kept).original;
                    first.flags |= (*kept).flags & (flags::WAYPOINT | flags::TOLD_WAYPOINT | flags::JOINED);
                }
                *kept = first;
            }
            None if storage::find_or_create(tcp.socket(), &mut first).is_none() => {
                counters::add(NO_STORAGE, 1);
                return;
            }
            None => {}
        }
        if !connecting {
            counters::add(ADOPTED, 1);
        }
        follow(tcp);
    }
}

/// Asks for the socket's changes of state, besides what other programs asked for.
///
/// # Safety
/// The socket is the context's.
#[inline(always)]
unsafe fn follow(tcp: TcpSock) {
    let mut asked = c_int::from(tcp.callbacks()) | BPF_SOCK_OPS_STATE_CB_FLAG as c_int;
    let (value, size) = ((&raw mut asked).cast(), size_of::<c_int>() as c_int);
    // SAFETY: the socket is the context's; the helper reads `asked`. Where it fails the end is noticed by the passes over storage.
    unsafe { bpf_setsockopt(tcp.socket(), IPPROTO_TCP, TCP_BPF_SOCK_OPS_CB_FLAGS, value, size) };
}

/// Tells whether a connection in this state was established and is not over.
#[inline(always)]
const fn is_open(state: u8) -> bool {
    state == TcpState::Established as u8
        || state == TcpState::CloseWait as u8
        || payload::fin_sent(state) && state != TcpState::TimeWait as u8
}

#[inline(always)]
fn direction(tcp: TcpSock, state: u8) -> Direction {
    if state == TcpState::SynSent as u8 {
        return Direction::Outbound;
    }
    let counted = Sequence {
        acked: tcp.bytes_acked(),
        in_flight: tcp.snd_nxt().wrapping_sub(tcp.snd_una()),
        sent: tcp.bytes_sent().wrapping_sub(tcp.bytes_retrans()),
        fin: payload::fin_sent(state) && tcp.snd_nxt() == tcp.write_seq(),
    };
    if counted.syn() { Direction::Outbound } else { Direction::Inbound }
}

/// What was sent, counted in two ways.
#[derive(Clone, Copy, Debug)]
struct Sequence {
    /// Acknowledged sequence numbers: those of who opened have its SYN in them, those of who accepted do not.
    acked: u64,
    /// Sequence numbers on their way.
    in_flight: u32,
    /// Payload bytes, each once.
    sent: u64,
    /// The FIN, which has a sequence number, has left.
    fin: bool,
}

impl Sequence {
    /// Tells whether a SYN is among the sequence numbers, so that the connection was opened here.
    #[inline(always)]
    const fn syn(self) -> bool {
        self.acked.wrapping_add(self.in_flight as u64).wrapping_sub(self.sent).wrapping_sub(self.fin as u64) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_opened_has_a_syn_among_its_sequence_numbers() {
        assert!(Sequence { acked: 1, in_flight: 0, sent: 0, fin: false }.syn());
        assert!(Sequence { acked: 1001, in_flight: 500, sent: 1500, fin: false }.syn());
        assert!(Sequence { acked: 1001, in_flight: 1, sent: 1000, fin: true }.syn(), "the FIN is on its way");
        assert!(!Sequence { acked: 0, in_flight: 0, sent: 0, fin: false }.syn());
        assert!(!Sequence { acked: 1000, in_flight: 500, sent: 1500, fin: false }.syn());
        assert!(!Sequence { acked: 1001, in_flight: 0, sent: 1000, fin: true }.syn(), "the FIN was acknowledged");
        assert!(!Sequence { acked: 10, in_flight: 0, sent: 20, fin: false }.syn(), "counts that were set back");
    }

    #[test]
    fn what_was_established_and_is_not_over_is_open() {
        use TcpState::*;
        for open in [Established, FinWait1, FinWait2, CloseWait, LastAck, Closing] {
            assert!(is_open(open as u8), "{open:?}");
        }
        for not in [SynSent, SynRecv, TimeWait, Close, Listen, NewSynRecv] {
            assert!(!is_open(not as u8), "{not:?}");
        }
    }
}
