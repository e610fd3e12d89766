//! Whether a connection ended by a reset.

use abi::TcpState;

const EPIPE: u32 = 32;
const ECONNABORTED: u32 = 103;
const ECONNRESET: u32 = 104;

/// `SOCK_DEAD` and `SOCK_DONE` of `enum sock_flags`: no file is left; the peer's FIN was taken in.
const DEAD_OR_DONE: u64 = 1 | 1 << 1;

/// Tells whether an established connection that left `old` for CLOSE was reset, by the peer or from here.
///
/// A reset from here (unread data at close, or a linger time of 0) leaves no error before the change of state. It is told by the state:
/// from these an orderly close never goes to CLOSE at once. In FIN_WAIT2 it does, when the peer's FIN came or when no file is left.
#[inline(always)]
pub(crate) const fn by_reset(old: u8, error: u32, sock_flags: u64) -> bool {
    const ESTABLISHED: u8 = TcpState::Established as u8;
    const SYN_RECV: u8 = TcpState::SynRecv as u8;
    const FIN_WAIT1: u8 = TcpState::FinWait1 as u8;
    const FIN_WAIT2: u8 = TcpState::FinWait2 as u8;
    const CLOSE_WAIT: u8 = TcpState::CloseWait as u8;
    match error {
        ECONNRESET | EPIPE | ECONNABORTED => true,
        0 => match old {
            ESTABLISHED | SYN_RECV | FIN_WAIT1 | CLOSE_WAIT => true,
            FIN_WAIT2 => sock_flags & DEAD_OR_DONE == 0,
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETIMEDOUT: u32 = 110;

    #[test]
    fn an_orderly_close_is_no_reset() {
        for old in [TcpState::LastAck, TcpState::Closing, TcpState::TimeWait] {
            assert!(!by_reset(old as u8, 0, 0), "{old:?}");
        }
        assert!(!by_reset(TcpState::FinWait2 as u8, 0, 1 << 1), "the peer's FIN came");
        assert!(!by_reset(TcpState::FinWait2 as u8, 0, 1), "the time of an orphan ran out");
    }

    #[test]
    fn a_reset_from_the_peer_is_told_by_the_error() {
        assert!(by_reset(TcpState::Established as u8, ECONNRESET, 0));
        assert!(by_reset(TcpState::CloseWait as u8, EPIPE, 2));
        assert!(!by_reset(TcpState::Established as u8, ETIMEDOUT, 0));
    }

    #[test]
    fn a_reset_from_here_is_told_by_the_state() {
        for old in [TcpState::Established, TcpState::CloseWait, TcpState::FinWait1, TcpState::FinWait2] {
            assert!(by_reset(old as u8, 0, 0), "{old:?}");
        }
    }
}
