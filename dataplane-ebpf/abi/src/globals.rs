//! The read-only global that the loader fills before the programs are verified.
//!
//! The verifier knows every field's value, so an offset becomes part of the load that uses it and a branch on a switch costs nothing.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Name of the one global.
pub const GLOBALS: &str = "GLOBALS";

/// What the loader tells the programs; 208 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Globals {
    /// Cookie of the host's own network namespace: never managed by `manage_all` and deaf to the CNI signal.
    pub host_netns: u64,
    /// Time between two progress records of one connection with `--progress packet`, in the steps of [`crate::storage::reported`].
    pub report_interval: u64,
    /// 1: every namespace but the host's is managed.
    pub manage_all: u32,
    /// 1: the kernel has `bpf_set_retval` (5.18), so a refused connect can say ECONNREFUSED instead of EPERM.
    pub has_set_retval: u32,
    /// 1: adopted connections count with the totals that TCP already had.
    pub adopt_history: u32,
    /// How much of a storage of another version goes on, bytes.
    pub carried_bytes: u32,
    /// How many rings there are.
    pub rings: u32,
    /// Slots of each ring, a power of two.
    pub ring_slots: u32,
    /// Where the kernel keeps what the programs read.
    pub offsets: Offsets,
}

/// Byte offsets into the running kernel's `struct tcp_sock` (which begins with `struct sock`), from its BTF.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Offsets {
    /// `sock.__sk_common.skc_family`, u16.
    pub family: u32,
    /// `sock.__sk_common.skc_state`, u8.
    pub state: u32,
    /// `sock.__sk_common.skc_flags`, u64: bits of `enum sock_flags`.
    pub flags: u32,
    /// `sock.__sk_common.skc_daddr`, 4 bytes, network order.
    pub remote_v4: u32,
    /// `sock.__sk_common.skc_rcv_saddr`, 4 bytes, network order.
    pub local_v4: u32,
    /// `sock.__sk_common.skc_v6_daddr`, 16 bytes; [`NONE`] in a kernel without IPv6.
    pub remote_v6: u32,
    /// `sock.__sk_common.skc_v6_rcv_saddr`, 16 bytes; [`NONE`] in a kernel without IPv6.
    pub local_v6: u32,
    /// `sock.__sk_common.skc_dport`, u16, network order.
    pub remote_port: u32,
    /// `sock.__sk_common.skc_num`, u16, host order.
    pub local_port: u32,
    /// `sock.sk_err`, u32.
    pub error: u32,
    /// `sock.sk_dst_cache`, pointer.
    pub route: u32,
    /// `sock.sk_lock.slock`, u32, not 0 while a packet is being taken in.
    pub lock: u32,
    /// `sock.sk_lock.owned`, u32, not 0 while a system call holds the socket.
    pub owned: u32,
    /// `tcp_sock.bytes_acked`, u64.
    pub bytes_acked: u32,
    /// `tcp_sock.bytes_received`, u64.
    pub bytes_received: u32,
    /// `tcp_sock.snd_una`, u32.
    pub snd_una: u32,
    /// `tcp_sock.snd_nxt`, u32.
    pub snd_nxt: u32,
    /// `tcp_sock.write_seq`, u32.
    pub write_seq: u32,
    /// `tcp_sock.bytes_sent`, u64.
    pub bytes_sent: u32,
    /// `tcp_sock.bytes_retrans`, u64.
    pub bytes_retrans: u32,
    /// `tcp_sock.bpf_sock_ops_cb_flags`, u8.
    pub callbacks: u32,
    /// `tcp_sock.total_retrans`, u32.
    pub total_retrans: u32,
    /// `tcp_sock.lost`, u32.
    pub lost: u32,
    /// `tcp_sock.segs_in`, u32.
    pub segs_in: u32,
    /// `tcp_sock.segs_out`, u32.
    pub segs_out: u32,
    /// `tcp_sock.srtt_us`, u32.
    pub srtt_us: u32,
    /// `tcp_sock.mdev_us`, u32.
    pub mdev_us: u32,
    /// `tcp_sock.rtt_min.s[0].v`, u32.
    pub rtt_min: u32,
    /// `tcp_sock.mss_cache`, u32.
    pub mss_cache: u32,
    /// `tcp_sock.snd_cwnd`, u32.
    pub snd_cwnd: u32,
    /// `tcp_sock.rcv_nxt`, u32.
    pub rcv_nxt: u32,
    /// `tcp_sock.copied_seq`, u32.
    pub copied_seq: u32,
    /// `sock.__sk_common.skc_cookie`, u64.
    pub cookie: u32,
    /// `sock.sk_backlog.rmem_alloc`, u32: memory of what waits to be read, bytes.
    pub unread: u32,
    /// `sock.sk_rcvlowat`, u32.
    pub low_mark: u32,
    /// `sock.sk_socket`, pointer to a `socket`.
    pub socket: u32,
    /// `socket.file`, pointer.
    pub file: u32,
    /// `file.f_flags`, u32.
    pub file_flags: u32,
    /// `sock.sk_user_data`, pointer to a `sk_psock` once the socket has joined, with three bits of its own.
    pub user_data: u32,
    /// `sk_psock.ingress_msg`, a list; [`NONE`] in a kernel without redirection.
    pub redirected: u32,
    /// The number of the bit `SOCK_ZEROCOPY` in `flags`.
    pub zero_copy: u32,
    /// Nothing.
    pub reserved: u32,
}

/// The offset of a field that the running kernel does not have.
pub const NONE: u32 = u32::MAX;

const _: () = assert!(size_of::<Globals>() == 208);
