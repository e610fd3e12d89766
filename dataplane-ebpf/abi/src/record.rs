//! The one record that programs send to user space.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Endpoint;

/// What the kernel knows of one connection when the record was made. Every number is a total since the connection began.
///
/// 168 bytes, all written: what was not measured is zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Record {
    /// A [`Kind`].
    pub kind: u32,
    /// Bits of [`flags`].
    pub flags: u32,
    /// `bpf_get_socket_cookie`: never used twice while the machine runs.
    pub cookie: u64,
    /// `bpf_get_netns_cookie` of the socket's network namespace.
    pub netns: u64,
    /// Begin, ns of `CLOCK_MONOTONIC`: the connect for a connection opened here, its establishment for an accepted one.
    pub start_ns: u64,
    /// When this record was made, ns of `CLOCK_MONOTONIC`.
    pub now_ns: u64,
    /// Payload bytes that the peer acknowledged (`tcp_sock.bytes_acked` without SYN and FIN).
    pub sent: u64,
    /// Payload bytes taken in (`tcp_sock.bytes_received` without FIN).
    pub received: u64,
    /// Retransmitted segments (`tcp_sock.total_retrans`).
    pub retransmits: u64,
    /// Packets lost, the running total (`tcp_sock.lost`, not the gauge `lost_out`).
    pub lost: u64,
    /// Segments received (`tcp_sock.segs_in`).
    pub segments_in: u64,
    /// Segments sent (`tcp_sock.segs_out`).
    pub segments_out: u64,
    /// Smoothed round trip time, us (`tcp_sock.srtt_us >> 3`).
    pub srtt_us: u32,
    /// Round trip time's mean deviation, us (`tcp_sock.mdev_us >> 2`).
    pub rttvar_us: u32,
    /// Least round trip time, us (`tcp_sock.rtt_min.s[0].v`; `u32::MAX`, the kernel's "none", is sent as 0).
    pub min_rtt_us: u32,
    /// Maximum segment size, bytes (`tcp_sock.mss_cache`).
    pub mss: u32,
    /// Congestion window, segments (`tcp_sock.snd_cwnd`).
    pub cwnd: u32,
    /// Why a connect failed or a connection ended: an errno (`sock.sk_err`), or 0.
    pub error: u32,
    /// This socket's own address.
    pub local: Endpoint,
    /// The peer that the socket really has, after steering.
    pub remote: Endpoint,
    /// What the program dialled, where steering changed it; else none.
    pub original: Endpoint,
    /// A [`TcpState`]: the state before a close, the present one otherwise.
    pub state: u8,
    /// A [`Direction`].
    pub direction: u8,
}

const _: () = assert!(size_of::<Record>() == 168);

/// Bits of [`Record::flags`] and of the storage's flags.
pub mod flags {
    /// The connection ended by a reset, sent or received.
    pub const RESET: u32 = 1;
    /// The record was read from the full ring's aside map.
    pub const ASIDE: u32 = 1 << 1;
    /// Steering refused the connect: its service has no healthy endpoint.
    pub const NO_HEALTHY_ENDPOINT: u32 = 1 << 2;
    /// The socket is IPv6 (an IPv4-mapped peer may still be shown as IPv4).
    pub const IPV6_SOCKET: u32 = 1 << 3;
    /// The connection was found open. It begins with its adoption, and its totals do unless history was asked for.
    pub const ADOPTED: u32 = 1 << 5;
    /// Steering sent the connect to a waypoint of what was dialled.
    pub const WAYPOINT: u32 = 1 << 6;
    /// Every bit that there is, up to the highest.
    pub const ALL: u32 = (WAYPOINT << 1) - 1;
}

macro_rules! closed_set {
    ($(#[$m:meta])* $name:ident: $int:ty { $($(#[$vm:meta])* $v:ident = $n:expr),+ $(,)? }) => {
        $(#[$m])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr($int)]
        pub enum $name { $($(#[$vm])* $v = $n),+ }
        impl TryFrom<$int> for $name {
            type Error = $int;
            fn try_from(value: $int) -> Result<Self, $int> {
                match value { $($n => Ok(Self::$v),)+ other => Err(other) }
            }
        }
    };
}

closed_set! {
    /// What a record tells.
    Kind: u32 {
        /// A connection was established.
        Established = 1,
        /// An established connection ended.
        Closed = 2,
        /// A connect failed; it never was established.
        Failed = 3,
        /// Totals of a live connection, pulled or (with `--progress packet`) sent.
        Progress = 4,
    }
}

closed_set! {
    /// Who opened the connection.
    Direction: u8 {
        /// Opened here.
        Outbound = 1,
        /// Accepted here.
        Inbound = 2,
    }
}

closed_set! {
    /// States of a TCP socket, as `include/net/tcp_states.h` numbers them.
    TcpState: u8 {
        /// Established.
        Established = 1,
        /// SYN sent.
        SynSent = 2,
        /// SYN received.
        SynRecv = 3,
        /// FIN sent, not acknowledged.
        FinWait1 = 4,
        /// FIN sent and acknowledged.
        FinWait2 = 5,
        /// Both sides closed, waiting.
        TimeWait = 6,
        /// Closed.
        Close = 7,
        /// The peer closed first.
        CloseWait = 8,
        /// FIN sent after the peer's.
        LastAck = 9,
        /// Listening.
        Listen = 10,
        /// Both sides closed at once.
        Closing = 11,
        /// A request socket.
        NewSynRecv = 12,
    }
}
