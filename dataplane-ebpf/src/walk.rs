//! What iterators are given: sockets with their storage, or the TCP sockets of one network namespace.
//!
//! Each program that walks over sockets with storage is there twice. Over the elements of a map hardened kernels let no program walk; there
//! user space has the other one walk over one namespace after the other.

use core::ffi::c_void;

use abi::{maps::setting::VISITED, storage::Storage};

use crate::{maps, sock::TcpSock, storage};

/// What an iterator over a socket storage map is given for each socket: `struct bpf_iter__bpf_sk_storage_map`.
#[repr(C)]
pub(crate) struct Visited<T> {
    meta: *mut c_void,
    map: *mut c_void,
    pub(crate) sk: *mut c_void,
    pub(crate) value: *mut T,
}

/// What an iterator over TCP sockets is given for each socket, whose lock the kernel holds meanwhile: `struct bpf_iter__tcp`.
#[repr(C)]
pub(crate) struct VisitedTcp {
    meta: *mut c_void,
    sk: *mut c_void,
    uid: u32,
}

impl VisitedTcp {
    /// Returns the socket, unless this is the end of the walk, or something less than a TCP socket.
    ///
    /// # Safety
    /// `visited` is the context of the program.
    #[inline(always)]
    pub(crate) unsafe fn socket(visited: *mut Self) -> Option<TcpSock> {
        // SAFETY: the context is the kernel's, valid while the program runs.
        let sk = unsafe { (*visited).sk };
        if sk.is_null() {
            return None;
        }
        // SAFETY: the socket is the context's.
        unsafe { TcpSock::of(sk) }
    }

    /// As [`VisitedTcp::socket`], if it has a storage, with that. User space is told that there was one.
    ///
    /// # Safety
    /// `visited` is the context of the program.
    #[inline(always)]
    pub(crate) unsafe fn kept(visited: *mut Self) -> Option<(TcpSock, *mut Storage)> {
        // SAFETY: passed on from the caller; the socket is the context's.
        unsafe {
            let tcp = Self::socket(visited)?;
            let kept = storage::find(tcp.socket())?;
            maps::set_setting(VISITED, 1);
            Some((tcp, kept))
        }
    }
}
