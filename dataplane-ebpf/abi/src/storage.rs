//! The value in the one socket storage map.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Endpoint;

/// What is kept with each managed socket; 120 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Storage {
    /// `bpf_get_socket_cookie`.
    pub cookie: u64,
    /// `bpf_get_netns_cookie`.
    pub netns: u64,
    /// As `Record::start_ns`.
    pub start_ns: u64,
    /// When `--progress packet` last reported: [`reported`].
    pub reported: u32,
    /// Segments in and out, added up, when a pass last showed the socket; 0 before one has.
    pub told_segments: u32,
    /// Bits of [`flags`]; changed by atomic OR alone while the connection is established.
    pub flags: u32,
    /// A `Direction`, 0 before it is known.
    pub direction: u8,
    /// 1 once a second pass has found no segment more than [`Storage::told_segments`]: all that those changed has been told.
    pub is_quiet: u8,
    /// Nothing.
    pub reserved: [u8; 2],
    /// What was dialled, where steering changed it.
    pub original: Endpoint,
    /// What was dialled or chosen last in connect4/6; tells a connect that never left.
    pub target: Endpoint,
    /// The snapshot pass that showed this socket last ([`crate::maps::setting::PASS`]).
    pub pass: u32,
    /// What TCP has counted that records leave out: what it had when the connection was adopted, and what only a waypoint was told.
    pub base: Totals,
    /// What the newest record in the ring told.
    pub told: Told,
}

const _: () = assert!(size_of::<Storage>() == 120);

/// The step of [`reported`]: two to the power of this, ns.
pub const REPORTED_SHIFT: u32 = 20;

/// A time, ns of `CLOCK_MONOTONIC`, as [`Storage::reported`] holds it: in steps of some ms, which begin again after 52 days.
pub const fn reported(now_ns: u64) -> u32 {
    (now_ns >> REPORTED_SHIFT) as u32
}

/// Payload bytes that user space knows of; 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Told {
    /// As `Record::sent`.
    pub sent: u64,
    /// As `Record::received`.
    pub received: u64,
}

/// Totals of a connection; 24 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Totals {
    /// As `Record::sent`.
    pub sent: u64,
    /// As `Record::received`.
    pub received: u64,
    /// As `Record::retransmits`.
    pub retransmits: u32,
    /// As `Record::lost`.
    pub lost: u32,
}

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
    /// User space knows of the connection: a record of it was put into the ring, or is about to be.
    pub const SHOWN: u32 = 1 << 4;
    /// The connection was found open: it is older than the programs, or than its namespace's enrolment.
    pub const ADOPTED: u32 = crate::record::flags::ADOPTED;
    /// Steering sent the connect to a waypoint of what was dialled.
    pub const WAYPOINT: u32 = crate::record::flags::WAYPOINT;
    /// The socket is in [`crate::maps::JOINED`]: what it sent and received beside TCP is there.
    pub const JOINED: u32 = 1 << 7;
    /// The waypoint was told what was dialled; that counts as sent by TCP, and stands in `base`.
    pub const TOLD_WAYPOINT: u32 = 1 << 8;
    /// The waypoint was told, and sends of the socket are not looked at any more.
    pub const LET_GO: u32 = 1 << 9;
    /// Another program had asked for the callbacks that tell of sends (`BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG`) before.
    pub const OTHERS_ASKED: u32 = 1 << 10;
}
