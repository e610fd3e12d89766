//! Connects that TCP never took up: no route, no free port, refused before they left.

use core::ffi::c_void;

use abi::{
    TcpState,
    maps::counter::NO_STORAGE,
    storage::{Storage, flags},
};

use crate::{counters, record::unattempted, ring, sock::TcpSock, storage};

const ENETUNREACH: u32 = 101;
const EADDRNOTAVAIL: u32 = 99;

/// What is known of a socket whose connect came to nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remains {
    /// A `TcpState`.
    pub(crate) state: u8,
    /// The IPv4 peer address TCP keeps, network order.
    pub(crate) remote_v4: u32,
    /// A route was found and kept.
    pub(crate) route: bool,
}

impl Remains {
    /// Infers the errno that connect returned, which no hook is told; 0 where TCP has the connect still before it (fast open).
    ///
    /// TCP over IPv4 notes the peer's address once it has a route, over IPv6 it notes the route itself. So an address without a port to
    /// use is EADDRNOTAVAIL, and everything before (no route, or another program's refusal) ENETUNREACH.
    #[inline(always)]
    pub(crate) fn reason(self, target: &[u8; 16]) -> u32 {
        if self.state != TcpState::Close as u8 {
            return 0;
        }
        let routed = match target {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => {
                self.remote_v4 == u32::from_ne_bytes([*a, *b, *c, *d])
            }
            _ => self.route,
        };
        if routed { EADDRNOTAVAIL } else { ENETUNREACH }
    }
}

/// Tells whether a storage's last connect has neither been taken up nor reported.
#[inline(always)]
pub(crate) const fn unanswered(storage_flags: u32) -> bool {
    storage_flags & (flags::ATTEMPT | flags::CONNECTING | flags::CLOSED) == flags::ATTEMPT
}

/// Notes an attempt in the socket's storage. If the socket's previous one came to nothing, that is reported now.
///
/// # Safety
/// `sk` is the socket of the running connect4/6.
#[inline(always)]
pub(crate) unsafe fn begin(sk: *mut c_void, first: &mut Storage) {
    // SAFETY: the socket is the context's; the storage is its own and, during a connect, changed by no one else but for SHOWN.
    unsafe {
        let Some(kept) = storage::find_or_create(sk, first) else {
            counters::add(NO_STORAGE, 1);
            return;
        };
        if (*kept).start_ns == first.start_ns {
            return;
        }
        if unanswered((*kept).flags)
            && let Some(tcp) = TcpSock::of(sk)
        {
            let remains = Remains { state: tcp.state(), remote_v4: tcp.remote_v4(), route: tcp.route() != 0 };
            report(kept, remains, first.start_ns);
        }
        *kept = *first;
    }
}

/// Reports the attempt as failed.
///
/// # Safety
/// `kept` is a socket's storage.
#[inline(always)]
pub(crate) unsafe fn report(kept: *mut Storage, remains: Remains, now_ns: u64) {
    // SAFETY: passed on from the caller.
    unsafe {
        storage::set_flags(kept, flags::CLOSED);
        let error = remains.reason(&(*kept).target.address);
        ring::report_failed(&mut unattempted(&*kept, (*kept).target, 0, error, now_ns));
    }
}

#[cfg(test)]
mod tests {
    use abi::Endpoint;

    use super::*;

    #[test]
    fn an_ipv4_connect_without_the_peers_address_had_no_route() {
        let target = Endpoint::v4([10, 0, 0, 1], 80).address;
        let here = u32::from_ne_bytes([10, 0, 0, 1]);
        let closed = TcpState::Close as u8;
        assert_eq!(Remains { state: closed, remote_v4: 0, route: false }.reason(&target), ENETUNREACH);
        assert_eq!(Remains { state: closed, remote_v4: here + 1, route: true }.reason(&target), ENETUNREACH);
        assert_eq!(Remains { state: closed, remote_v4: here, route: false }.reason(&target), EADDRNOTAVAIL);
    }

    #[test]
    fn an_ipv6_connect_without_a_route_kept_had_none() {
        let mut target = [0; 16];
        target[0] = 0xfd;
        let closed = TcpState::Close as u8;
        assert_eq!(Remains { state: closed, remote_v4: 0, route: false }.reason(&target), ENETUNREACH);
        assert_eq!(Remains { state: closed, remote_v4: 0, route: true }.reason(&target), EADDRNOTAVAIL);
    }

    #[test]
    fn a_connect_that_waits_for_its_first_data_has_no_error() {
        let remains = Remains { state: TcpState::SynSent as u8, remote_v4: 0, route: true };
        assert_eq!(remains.reason(&[0; 16]), 0);
    }

    #[test]
    fn an_attempt_is_unanswered_until_it_is_taken_up_or_reported() {
        assert!(unanswered(flags::ATTEMPT));
        assert!(!unanswered(flags::ATTEMPT | flags::CONNECTING));
        assert!(!unanswered(flags::ATTEMPT | flags::CLOSED));
        assert!(!unanswered(flags::ESTABLISHED));
    }
}
