//! Sockets whose data goes to their peer on the same node without TCP, and what tells two sockets that they are a pair.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Endpoint;

/// What a socket may have to read, bytes, when more is sent beside TCP; it is part of what the kernel lets all TCP sockets hold (`tcp_mem`).
/// Beyond that its peer sends by TCP until everything was read.
pub const MOST_UNREAD: u32 = 2 << 20;

/// What is kept with a joined socket until its peer has gone too; 48 bytes. The key is the socket's cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Joined {
    /// Cookie of the socket at the other end.
    pub peer: u64,
    /// Where the kernel has this socket: its peer reads there how far this one's program has read. Nobody follows it without comparing
    /// cookies.
    pub socket: u64,
    /// As `Storage::netns`.
    pub netns: u64,
    /// Payload bytes that went to the peer beside TCP.
    pub sent: u64,
    /// Bits of [`flags`], changed by atomic OR alone.
    pub flags: u32,
    /// One of [`course`]: how data that this socket sends goes. Its own program alone writes it.
    pub course: u32,
    /// When the socket was told to leave, ns of `CLOCK_MONOTONIC`.
    pub leaving_ns: u64,
}

const _: () = assert!(size_of::<Joined>() == 48);

/// Bits of [`Joined::flags`].
pub mod flags {
    /// The socket's end was reported.
    pub const CLOSED: u32 = 1;
    /// The program may be made to wait for what it reads: both ends go by TCP, and this one leaves.
    pub const LEAVING: u32 = 1 << 1;
    /// The socket has left; what went beside TCP still counts.
    pub const LEFT: u32 = 1 << 2;
}

/// Ways that sent data goes.
pub mod course {
    /// By TCP; beside it once the peer has read all that TCP has been given.
    pub const TCP: u32 = 0;
    /// Beside TCP, into the peer's queue.
    pub const REDIRECT: u32 = 1;
}

/// How one end sees a connection: what a socket that looks for its peer leaves for it; 48 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct View {
    /// The namespace where the addresses mean something: its cookie where both ends have the same address, 0 where they are the node's.
    pub netns: u64,
    /// The socket's own address.
    pub local: Endpoint,
    /// Its peer's.
    pub remote: Endpoint,
    /// Always zero.
    pub reserved: [u8; 4],
}

/// Who has that view; 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Seeker {
    /// The socket's cookie.
    pub cookie: u64,
    /// Where the kernel has it.
    pub socket: u64,
}

const _: () = assert!(size_of::<View>() == 48 && size_of::<Seeker>() == 16);
