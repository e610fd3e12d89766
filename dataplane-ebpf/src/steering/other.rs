//! What is read of the socket at the other end, which the running program does not hold.

use core::ffi::c_void;

use abi::{TcpState, globals::NONE};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use crate::globals::global;

/// The three lowest bits of `sk_user_data` say what it points to.
const POINTER: u64 = !7;
/// Of `file.f_flags`; the same on all machines that meshd is built for.
const O_NONBLOCK: u32 = 0o4000;

/// A socket by its address.
///
/// It may be gone, and something else be there. Whoever reads compares its cookie first; what was read then belonged to the socket if that is
/// found alive by its cookie after.
#[derive(Clone, Copy)]
pub(super) struct Other(u64);

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $offset:ident;)+) => {
        impl Other {
            $($(#[$doc])*
            #[inline(always)]
            pub(super) fn $name(self) -> $type {
                read(self.0 + u64::from(global!(offsets.$offset)))
            })+
        }
    };
}

fields! {
    cookie: u64 = cookie;
    state: u8 = state;
    flags: u64 = flags;
    snd_una: u32 = snd_una;
    snd_nxt: u32 = snd_nxt;
    rcv_nxt: u32 = rcv_nxt;
    copied_seq: u32 = copied_seq;
    unread: u32 = unread;
    low_mark: u32 = low_mark;
    socket: u64 = socket;
    user_data: u64 = user_data;
}

impl Other {
    pub(super) const fn at(address: u64) -> Self {
        Self(address)
    }

    pub(super) fn is_established(self) -> bool {
        self.state() == TcpState::Established as u8
    }

    /// Tells whether the socket's program may be made to wait for what it reads (its file has not `O_NONBLOCK`), or has closed it.
    ///
    /// The kernel returns EAGAIN to who waits at a joined socket and is woken for another reason than data: that the connection was reset,
    /// or that there is room to write.
    #[inline(always)]
    pub(super) fn is_blocking(self) -> bool {
        let file: u64 = read(self.socket() + u64::from(global!(offsets.file)));
        let flags: u32 = read(file + u64::from(global!(offsets.file_flags)));
        flags & O_NONBLOCK == 0
    }

    /// Tells whether something that came beside TCP waits to be read.
    #[inline(always)]
    pub(super) fn has_redirected(self) -> bool {
        let queues = self.user_data() & POINTER;
        if global!(offsets.redirected) == NONE || queues == 0 {
            return false;
        }
        let list = queues + u64::from(global!(offsets.redirected));
        read::<u64>(list) != list
    }
}

/// Reads kernel memory; zero where there is none.
#[inline(always)]
fn read<T: Copy + Default>(address: u64) -> T {
    let mut found = T::default();
    let from = core::ptr::with_exposed_provenance::<c_void>(address as usize);
    // SAFETY: the helper writes the value, or zero, and survives any address.
    unsafe { bpf_probe_read_kernel((&raw mut found).cast(), size_of::<T>() as u32, from) };
    found
}
