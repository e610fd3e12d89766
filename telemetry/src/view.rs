//! A live connection, as the admin port shows it.

use std::net::SocketAddr;

use abi::{Direction, Endpoint, TcpState};
use cache::{Str, Workload};

use crate::{accesslog::rfc3339, attribute::Ignored, connections::Connection, recorder::Kept};

/// Everything known of a live connection: its newest record and its names. Owns all of it, so that it can leave the record
/// thread.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ConnectionView {
    /// Socket cookie.
    pub cookie: u64,
    /// Network namespace cookie.
    pub netns: u64,
    /// `OUTBOUND` or `INBOUND`.
    pub direction: &'static str,
    /// The socket's state, as the kernel names it.
    pub state: &'static str,
    /// The socket's own address.
    pub local: SocketAddr,
    /// The peer, after steering.
    pub remote: SocketAddr,
    /// What was dialled, where steering changed it.
    pub original: Option<SocketAddr>,
    /// It was open before anyone watched it: it begins with its adoption.
    pub adopted: bool,
    /// When it began, RFC 3339 with nanoseconds.
    pub start_time: String,
    /// How long it has lasted, ms.
    pub age_ms: u64,
    /// How long ago its newest record was made, ms.
    pub reported_ms_ago: u64,
    /// Why it is not reported, if so.
    pub ignored: Option<Ignored>,
    /// Who opened it.
    pub source: Option<WorkloadView>,
    /// Who accepted it.
    pub destination: Option<WorkloadView>,
    /// Hostname of the service.
    pub service: Option<Str>,
    /// The destination is a waypoint.
    pub waypoint: bool,
    /// Payload bytes that the peer acknowledged.
    pub sent_bytes: u64,
    /// Payload bytes taken in.
    pub received_bytes: u64,
    /// Retransmitted segments.
    pub retransmissions: u64,
    /// Packets lost.
    pub packet_loss: u64,
    /// Segments received.
    pub segments_in: u64,
    /// Segments sent.
    pub segments_out: u64,
    /// Smoothed round trip time, us.
    pub srtt_us: u32,
    /// Its mean deviation, us.
    pub rttvar_us: u32,
    /// Least round trip time, us.
    pub min_rtt_us: u32,
    /// Maximum segment size, bytes.
    pub mss: u32,
    /// Congestion window, segments.
    pub cwnd: u32,
    /// An errno, or 0.
    pub error: u32,
    /// Bits of `abi::record::flags`.
    pub flags: u32,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct WorkloadView {
    /// Unique in the mesh.
    pub uid: Str,
    /// The pod's name.
    pub name: Str,
    /// Its namespace.
    pub namespace: Str,
    /// What made it.
    pub workload: Str,
    /// Its identity.
    pub principal: String,
}

impl WorkloadView {
    fn new(workload: &Workload) -> Self {
        Self {
            uid: workload.uid.clone(),
            name: workload.name.clone(),
            namespace: workload.namespace.clone(),
            workload: workload.workload_name.clone(),
            principal: workload.principal(),
        }
    }
}

impl ConnectionView {
    pub(crate) fn new(connection: &Connection<&Kept>, now_ns: u64) -> Self {
        let (last, kept) = (&connection.last, connection.data);
        let ms_since = |ns: u64| now_ns.saturating_sub(ns) / 1_000_000;
        let end = |w: &Option<_>| w.as_deref().map(|w: &cache::Held<Workload>| WorkloadView::new(w));
        let shown = |e: Endpoint| SocketAddr::from(e);
        Self {
            cookie: last.cookie,
            netns: last.netns,
            direction: if last.direction == Direction::Outbound as u8 { "OUTBOUND" } else { "INBOUND" },
            state: state(last.state),
            local: shown(last.local),
            remote: shown(last.remote),
            original: (!last.original.is_none()).then(|| shown(last.original)),
            adopted: kept.adopted,
            start_time: rfc3339(connection.begun_wall_ns),
            age_ms: ms_since(connection.begun_ns),
            reported_ms_ago: ms_since(last.now_ns),
            ignored: kept.ignored,
            source: end(&kept.names.source),
            destination: end(&kept.names.destination),
            service: kept.names.service.as_ref().map(|s| s.hostname.clone()),
            waypoint: last.flags & abi::record::flags::WAYPOINT != 0,
            sent_bytes: last.sent,
            received_bytes: last.received,
            retransmissions: last.retransmits,
            packet_loss: last.lost,
            segments_in: last.segments_in,
            segments_out: last.segments_out,
            srtt_us: last.srtt_us,
            rttvar_us: last.rttvar_us,
            min_rtt_us: last.min_rtt_us,
            mss: last.mss,
            cwnd: last.cwnd,
            error: last.error,
            flags: last.flags,
        }
    }
}

/// Names a state as `include/net/tcp_states.h` does; the record path lets no unknown one in.
fn state(state: u8) -> &'static str {
    match TcpState::try_from(state) {
        Ok(TcpState::Established) => "ESTABLISHED",
        Ok(TcpState::SynSent) => "SYN_SENT",
        Ok(TcpState::SynRecv) => "SYN_RECV",
        Ok(TcpState::FinWait1) => "FIN_WAIT1",
        Ok(TcpState::FinWait2) => "FIN_WAIT2",
        Ok(TcpState::TimeWait) => "TIME_WAIT",
        Ok(TcpState::Close) => "CLOSE",
        Ok(TcpState::CloseWait) => "CLOSE_WAIT",
        Ok(TcpState::LastAck) => "LAST_ACK",
        Ok(TcpState::Listen) => "LISTEN",
        Ok(TcpState::Closing) => "CLOSING",
        Ok(TcpState::NewSynRecv) => "NEW_SYN_RECV",
        Err(_) => "UNKNOWN",
    }
}
