//! Payload bytes from TCP's own counts, which have SYN and FIN in them.

use abi::{Direction, TcpState, storage::flags};

/// `SOCK_DONE` of `enum sock_flags`: the peer's FIN was taken in.
const SOCK_DONE: u64 = 1 << 1;

/// What TCP counted that is not payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    /// This side's SYN, in what was acknowledged.
    pub(crate) syn: bool,
    /// This side's FIN, in what was acknowledged.
    pub(crate) fin_sent: bool,
    /// The peer's FIN, in what was received.
    pub(crate) fin_received: bool,
}

impl Counted {
    /// Returns payload bytes sent and received. Never below zero: a socket that is being used again has its counts set to zero.
    #[inline(always)]
    pub(crate) const fn payload(self, acked: u64, received: u64) -> (u64, u64) {
        (
            acked.saturating_sub(self.syn as u64 + self.fin_sent as u64),
            received.saturating_sub(self.fin_received as u64),
        )
    }
}

/// Tells whether the SYN is part of what was acknowledged: only of who opened, and once it was answered.
#[inline(always)]
pub(crate) const fn syn_counted(storage_flags: u32, direction: u8) -> bool {
    direction == Direction::Outbound as u8 && storage_flags & flags::ESTABLISHED != 0
}

/// Tells whether this side has sent its FIN, or is about to.
#[inline(always)]
pub(crate) const fn fin_sent(state: u8) -> bool {
    const FIN_WAIT1: u8 = TcpState::FinWait1 as u8;
    const FIN_WAIT2: u8 = TcpState::FinWait2 as u8;
    const TIME_WAIT: u8 = TcpState::TimeWait as u8;
    const LAST_ACK: u8 = TcpState::LastAck as u8;
    const CLOSING: u8 = TcpState::Closing as u8;
    matches!(state, FIN_WAIT1 | FIN_WAIT2 | TIME_WAIT | LAST_ACK | CLOSING)
}

/// Tells whether this side's FIN is part of what was acknowledged.
#[inline(always)]
pub(crate) const fn fin_acknowledged(state: u8, snd_una: u32, write_seq: u32) -> bool {
    let by_state = state == TcpState::FinWait2 as u8 || state == TcpState::TimeWait as u8;
    by_state || (fin_sent(state) && snd_una == write_seq)
}

/// Tells whether the peer's FIN is part of what was received.
#[inline(always)]
pub(crate) const fn fin_received(sock_flags: u64) -> bool {
    sock_flags & SOCK_DONE != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_opened_has_its_syn_taken_off_once_established() {
        assert!(syn_counted(flags::CONNECTING | flags::ESTABLISHED, Direction::Outbound as u8));
        assert!(!syn_counted(flags::CONNECTING, Direction::Outbound as u8));
        assert!(!syn_counted(flags::ESTABLISHED, Direction::Inbound as u8));
    }

    #[test]
    fn a_fin_counts_once_it_is_acknowledged() {
        assert!(fin_acknowledged(TcpState::FinWait2 as u8, 1, 2));
        assert!(fin_acknowledged(TcpState::LastAck as u8, 7, 7));
        assert!(!fin_acknowledged(TcpState::FinWait1 as u8, 6, 7));
        assert!(!fin_acknowledged(TcpState::CloseWait as u8, 7, 7));
        assert!(!fin_acknowledged(TcpState::Established as u8, 7, 7));
    }

    #[test]
    fn payload_is_without_syn_and_fin() {
        let both = Counted { syn: true, fin_sent: true, fin_received: true };
        assert_eq!(both.payload(1002, 1001), (1000, 1000));
        let neither = Counted { syn: false, fin_sent: false, fin_received: false };
        assert_eq!(neither.payload(5, 6), (5, 6));
    }

    #[test]
    fn counts_that_were_set_to_zero_stay_zero() {
        let both = Counted { syn: true, fin_sent: true, fin_received: true };
        assert_eq!(both.payload(0, 0), (0, 0));
        assert_eq!(both.payload(1, 0), (0, 0));
    }
}
