//! Fills a record from a socket and its storage.

use abi::{Endpoint, Record, TcpState, record::flags, storage, storage::Storage};

use crate::{
    joined,
    sock::{IPV6, TcpSock},
    telemetry::payload::{self, Counted},
};

/// What the event says that neither the socket nor its storage does.
#[derive(Clone, Copy)]
pub(crate) struct Event {
    pub(crate) kind: abi::Kind,
    pub(crate) flags: u32,
    pub(crate) error: u32,
    /// A `TcpState`.
    pub(crate) state: u8,
    pub(crate) now_ns: u64,
    pub(crate) bytes: Bytes,
}

/// Payload totals.
#[derive(Clone, Copy, Default)]
pub(crate) struct Bytes {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// Computes the payload totals of a socket that no one else changes now: its callback runs, or its lock is held.
#[inline(always)]
pub(crate) fn bytes(tcp: TcpSock, storage_flags: u32, storage_direction: u8, state: u8) -> Bytes {
    let counted = Counted {
        syn: payload::syn_counted(storage_flags, storage_direction),
        fin_sent: payload::fin_acknowledged(state, tcp.snd_una(), tcp.write_seq()),
        fin_received: payload::fin_received(tcp.flags()),
    };
    let (sent, received) = counted.payload(tcp.bytes_acked(), tcp.bytes_received());
    Bytes { sent, received }
}

/// Computes the payload totals of a socket that may change while it is read, never too high.
///
/// The order of the reads matters: totals, whether someone is at work, then what tells of a FIN. A FIN that is in a total was counted
/// before, so it is seen after, unless someone was in between; then one is taken off that may not have been counted, and the next
/// record puts it right.
#[inline(always)]
pub(crate) fn bytes_unlocked(tcp: TcpSock, storage_flags: u32, storage_direction: u8) -> Bytes {
    let acked = tcp.bytes_acked();
    let received = tcp.bytes_received();
    let busy = tcp.busy();
    let state = tcp.state();
    let counted = Counted {
        syn: payload::syn_counted(storage_flags, storage_direction),
        fin_sent: payload::fin_acknowledged(state, tcp.snd_una(), tcp.write_seq()) || busy && payload::fin_sent(state),
        fin_received: payload::fin_received(tcp.flags()) || busy,
    };
    let (sent, received) = counted.payload(acked, received);
    Bytes { sent, received }
}

/// Writes every byte of a record.
///
/// # Safety
/// `to` may be written; `storage` is the socket's.
#[inline(always)]
pub(crate) unsafe fn write(to: *mut Record, event: &Event, tcp: TcpSock, storage: *const Storage) {
    let family = tcp.family();
    let ipv6 = if family == IPV6 { flags::IPV6_SOCKET } else { 0 };
    let min_rtt = tcp.rtt_min();
    // SAFETY: passed on from the caller.
    let kept = unsafe { (*storage).flags };
    let shown = kept & (storage::flags::ADOPTED | storage::flags::WAYPOINT);
    // SAFETY: passed on from the caller. The three endpoints stand at even offsets.
    unsafe {
        (*to).kind = event.kind as u32;
        (*to).flags = event.flags | ipv6 | shown;
        (*to).cookie = (*storage).cookie;
        (*to).netns = (*storage).netns;
        (*to).start_ns = (*storage).start_ns;
        (*to).now_ns = event.now_ns;
        (*to).sent = event.bytes.sent;
        (*to).received = event.bytes.received;
        (*to).retransmits = tcp.total_retrans().into();
        (*to).lost = tcp.lost().into();
        (*to).segments_in = tcp.segs_in().into();
        (*to).segments_out = tcp.segs_out().into();
        (*to).srtt_us = tcp.srtt_us() >> 3;
        (*to).rttvar_us = tcp.mdev_us() >> 2;
        (*to).min_rtt_us = if min_rtt == u32::MAX { 0 } else { min_rtt };
        (*to).mss = tcp.mss_cache();
        (*to).cwnd = tcp.snd_cwnd();
        (*to).error = event.error;
        tcp.write_local(family, &raw mut (*to).local);
        tcp.write_remote(family, &raw mut (*to).remote);
        (*to).original = (*storage).original;
        (*to).state = event.state;
        (*to).direction = (*storage).direction;
        let Bytes { sent, received } = joined::bytes(storage);
        (*to).sent += sent;
        (*to).received += received;
        if kept & (storage::flags::ADOPTED | storage::flags::TOLD_WAYPOINT) != 0 {
            let base = (*storage).base;
            (*to).sent = (*to).sent.saturating_sub(base.sent);
            (*to).received = (*to).received.saturating_sub(base.received);
            (*to).retransmits = (*to).retransmits.saturating_sub(base.retransmits.into());
            (*to).lost = (*to).lost.saturating_sub(base.lost.into());
        }
    }
}

/// Makes the record of a connect that TCP never took up: nothing was measured, and the socket has no address of its own yet.
#[inline(always)]
pub(crate) fn unattempted(storage: &Storage, remote: Endpoint, flags: u32, error: u32, now_ns: u64) -> Record {
    Record {
        kind: abi::Kind::Failed as u32,
        flags: flags | storage.flags & storage::flags::WAYPOINT,
        cookie: storage.cookie,
        netns: storage.netns,
        start_ns: storage.start_ns,
        now_ns,
        error,
        remote,
        original: storage.original,
        state: TcpState::Close as u8,
        direction: abi::Direction::Outbound as u8,
        ..Record::default()
    }
}
