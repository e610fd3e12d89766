//! Reads what TCP knows of a socket.

use core::ffi::c_void;

use abi::Endpoint;
use aya_ebpf::helpers::generated::bpf_skc_to_tcp_sock;

use crate::globals::global;

/// `AF_INET6`.
pub(crate) const IPV6: u16 = 10;

/// A kernel `struct tcp_sock`.
///
/// The verifier knows the pointer's type and each offset's value, so that reading a field is one load that survives a bad address, and
/// no helper call.
#[derive(Clone, Copy)]
pub(crate) struct TcpSock(*const u8);

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $offset:ident;)+) => {
        impl TcpSock {
            $($(#[$doc])*
            #[inline(always)]
            pub(crate) fn $name(self) -> $type {
                // SAFETY: the loader took the offset from the running kernel's types, and the verifier checks it against them.
                unsafe { self.0.add(global!(offsets.$offset) as usize).cast::<$type>().read_volatile() }
            })+
        }
    };
}

fields! {
    family: u16 = family;
    /// A `TcpState`.
    state: u8 = state;
    flags: u64 = flags;
    error: u32 = error;
    route: u64 = route;
    lock: u32 = lock;
    owned: u32 = owned;
    bytes_acked: u64 = bytes_acked;
    bytes_received: u64 = bytes_received;
    snd_una: u32 = snd_una;
    snd_nxt: u32 = snd_nxt;
    write_seq: u32 = write_seq;
    bytes_sent: u64 = bytes_sent;
    bytes_retrans: u64 = bytes_retrans;
    /// Bits that ask for callbacks of sock_ops programs.
    callbacks: u8 = callbacks;
    total_retrans: u32 = total_retrans;
    lost: u32 = lost;
    segs_in: u32 = segs_in;
    segs_out: u32 = segs_out;
    srtt_us: u32 = srtt_us;
    mdev_us: u32 = mdev_us;
    rtt_min: u32 = rtt_min;
    mss_cache: u32 = mss_cache;
    snd_cwnd: u32 = snd_cwnd;
    rcv_nxt: u32 = rcv_nxt;
    remote_v4: u32 = remote_v4;
    local_v4: u32 = local_v4;
    remote_port_be: u16 = remote_port;
    local_port: u16 = local_port;
}

impl TcpSock {
    /// Takes a socket as what it is, if it is a full TCP socket.
    ///
    /// # Safety
    /// `sk` is a socket that the running program got from the kernel.
    #[inline(always)]
    pub(crate) unsafe fn of(sk: *mut c_void) -> Option<Self> {
        // SAFETY: passed on from the caller; the helper checks the rest.
        let tcp = unsafe { bpf_skc_to_tcp_sock(sk) };
        (!tcp.is_null()).then_some(Self(tcp.cast()))
    }

    /// Returns the socket as helpers take it.
    #[inline(always)]
    pub(crate) fn socket(self) -> *mut c_void {
        self.0.cast_mut().cast()
    }

    /// Tells whether someone is at work on the socket right now, so that what was read may not belong together.
    #[inline(always)]
    pub(crate) fn busy(self) -> bool {
        self.lock() != 0 || self.owned() != 0
    }

    /// Writes the socket's own address.
    ///
    /// # Safety
    /// `to` may be written.
    #[inline(always)]
    pub(crate) unsafe fn write_local(self, family: u16, to: *mut Endpoint) {
        let port = self.local_port().to_be();
        // SAFETY: passed on from the caller.
        unsafe {
            if family == IPV6 {
                write_endpoint(
                    to,
                    self.word(global!(offsets.local_v6)),
                    self.word(global!(offsets.local_v6) + 8),
                    port,
                );
            } else {
                write_endpoint(to, 0, mapped(self.local_v4()), port);
            }
        }
    }

    /// Writes the peer's address.
    ///
    /// # Safety
    /// `to` may be written.
    #[inline(always)]
    pub(crate) unsafe fn write_remote(self, family: u16, to: *mut Endpoint) {
        let port = self.remote_port_be();
        // SAFETY: passed on from the caller.
        unsafe {
            if family == IPV6 {
                write_endpoint(
                    to,
                    self.word(global!(offsets.remote_v6)),
                    self.word(global!(offsets.remote_v6) + 8),
                    port,
                );
            } else {
                write_endpoint(to, 0, mapped(self.remote_v4()), port);
            }
        }
    }

    #[inline(always)]
    fn word(self, offset: u32) -> u64 {
        // SAFETY: as for the fields; an IPv6 socket exists only where the kernel has the two addresses.
        unsafe { self.0.add(offset as usize).cast::<u64>().read_volatile() }
    }
}

/// The second half of an IPv4-mapped address, of four bytes in network order.
#[inline(always)]
pub(crate) const fn mapped(v4: u32) -> u64 {
    0xffff_0000 | (v4 as u64) << 32
}

/// Writes an address, given as two words in memory order, and a port in network order.
///
/// Records hold endpoints at two-byte steps, where the compiler would write single bytes.
///
/// # Safety
/// `to` may be written and stands at an even address.
#[inline(always)]
pub(crate) unsafe fn write_endpoint(to: *mut Endpoint, first: u64, second: u64, port: u16) {
    let to = to.cast::<u16>();
    // SAFETY: an endpoint is nine times two bytes.
    unsafe {
        write_word(to, first);
        write_word(to.add(4), second);
        to.add(8).write(port);
    }
}

#[inline(always)]
unsafe fn write_word(to: *mut u16, word: u64) {
    // SAFETY: passed on from the caller: four times two bytes.
    unsafe {
        to.write(word as u16);
        to.add(1).write((word >> 16) as u16);
        to.add(2).write((word >> 32) as u16);
        to.add(3).write((word >> 48) as u16);
    }
}
