//! The value in the one socket storage map.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Endpoint;

/// What is kept with each managed socket; 80 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Storage {
    /// `bpf_get_socket_cookie`.
    pub cookie: u64,
    /// `bpf_get_netns_cookie`.
    pub netns: u64,
    /// As `Record::start_ns`.
    pub start_ns: u64,
    /// When `--progress packet` last reported, ns of `CLOCK_MONOTONIC`.
    pub reported_ns: u64,
    /// Bits of [`flags`]; changed by atomic OR alone while the connection is established.
    pub flags: u32,
    /// A `Direction`, 0 before it is known.
    pub direction: u32,
    /// What was dialled, where steering changed it.
    pub original: Endpoint,
    /// What was dialled or chosen last in connect4/6; tells a connect that never left.
    pub target: Endpoint,
    /// The snapshot pass that showed this socket last ([`crate::maps::setting::PASS`]).
    pub pass: u32,
}

const _: () = assert!(size_of::<Storage>() == 80);

/// Bits of [`Storage::flags`].
pub mod flags {
    /// connect4/6 saw an attempt that TCP has not taken up yet.
    pub const ATTEMPT: u32 = 1;
    /// TCP took the attempt up (`TCP_CONNECT_CB`).
    pub const CONNECTING: u32 = 1 << 1;
    /// The connection was established.
    pub const ESTABLISHED: u32 = 1 << 2;
    /// The close was reported.
    pub const CLOSED: u32 = 1 << 3;
    /// The iterator has shown this socket.
    pub const SHOWN: u32 = 1 << 4;
}
