//! The records of one connection, as the kernel would send them.

use std::net::SocketAddr;

use abi::{Direction, Endpoint, Kind, Record, TcpState, record::flags};
use zerocopy::IntoBytes;

/// One second, in ns.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// One millisecond, in ns.
pub(crate) const MS: u64 = 1_000_000;

/// A connection and what has moved so far.
#[derive(Clone, Copy)]
pub(crate) struct Connection(Record);

/// Raw bytes of a record.
pub(crate) type Raw = Vec<u8>;

fn end(address: &str) -> Endpoint {
    address.parse::<SocketAddr>().expect("an address and a port").into()
}

impl Connection {
    /// A connection that was opened here at `start_ns`.
    pub(crate) fn outbound(cookie: u64, start_ns: u64, local: &str, remote: &str) -> Self {
        Self(Record {
            cookie,
            netns: 7,
            start_ns,
            now_ns: start_ns,
            local: end(local),
            remote: end(remote),
            direction: Direction::Outbound as u8,
            state: TcpState::Established as u8,
            ..Record::default()
        })
    }

    /// A connection that was accepted here at `start_ns`.
    pub(crate) fn inbound(cookie: u64, start_ns: u64, local: &str, remote: &str) -> Self {
        let Self(record) = Self::outbound(cookie, start_ns, local, remote);
        Self(Record { direction: Direction::Inbound as u8, ..record })
    }

    /// What was dialled before steering.
    pub(crate) fn dialled(self, original: &str) -> Self {
        Self(Record { original: end(original), ..self.0 })
    }

    /// Totals of bytes from now on.
    pub(crate) fn moved(self, sent: u64, received: u64) -> Self {
        let rates = Record { srtt_us: 43, rttvar_us: 12, min_rtt_us: 36, mss: 1448, cwnd: 10, ..self.0 };
        Self(Record { sent, received, segments_in: 4, segments_out: 5, ..rates })
    }

    /// Totals of retransmits and losses from now on.
    pub(crate) fn troubled(self, retransmits: u64, lost: u64) -> Self {
        Self(Record { retransmits, lost, ..self.0 })
    }

    pub(crate) fn established(&self) -> Raw {
        self.record(Kind::Established, 0, TcpState::Established, self.0.start_ns)
    }

    pub(crate) fn progress(&self, now_ns: u64) -> Raw {
        self.record(Kind::Progress, 0, TcpState::Established, now_ns)
    }

    pub(crate) fn closed(&self, now_ns: u64) -> Raw {
        self.record(Kind::Closed, 0, TcpState::LastAck, now_ns)
    }

    pub(crate) fn reset(&self, now_ns: u64) -> Raw {
        let Self(record) = *self;
        let reset = Self(Record { flags: flags::RESET, ..record });
        reset.record(Kind::Closed, 104, TcpState::Established, now_ns)
    }

    pub(crate) fn failed(&self, now_ns: u64, error: u32) -> Raw {
        self.record(Kind::Failed, error, TcpState::SynSent, now_ns)
    }

    /// Steering refused the connect.
    pub(crate) fn refused_by_steering(&self, now_ns: u64) -> Raw {
        let refused = Self(Record { flags: flags::NO_HEALTHY_ENDPOINT, ..self.0 });
        refused.record(Kind::Failed, 1, TcpState::Close, now_ns)
    }

    fn record(&self, kind: Kind, error: u32, state: TcpState, now_ns: u64) -> Raw {
        Record { kind: kind as u32, error, state: state as u8, now_ns, ..self.0 }.as_bytes().to_vec()
    }
}
