//! Records as the kernel programs make them.

use std::net::Ipv4Addr;

use abi::{Direction, Endpoint, Kind, Record, TcpState};

use crate::mesh;

/// One connection between two workloads of a mesh, dialled by the service's virtual address, as one of its ends sees it.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// Who opened it.
    pub source: usize,
    /// Who accepted it.
    pub destination: usize,
    /// Which connection it is: cookie and port are made of it.
    pub number: u64,
    /// Which end tells.
    pub direction: Direction,
    /// When it began, ns.
    pub start_ns: u64,
}

impl Connection {
    /// Makes a record of it, `age_ns` after its begin.
    pub fn record(&self, kind: Kind, age_ns: u64) -> Record {
        let end = |ip: Ipv4Addr, port: u16| Endpoint::v4(ip.octets(), port);
        // Any port will do: the ports of a pod's connections differ in the low bits.
        let client = end(mesh::address(self.source), 32_768 + (self.number % 28_000) as u16);
        let server = end(mesh::address(self.destination), mesh::PORT);
        let outbound = self.direction == Direction::Outbound;
        let bytes = if kind == Kind::Established { 0 } else { 64 + age_ns / 1000 };
        Record {
            kind: kind as u32,
            cookie: self.number * 2 + u64::from(outbound),
            netns: 4_026_532_000,
            start_ns: self.start_ns,
            now_ns: self.start_ns + age_ns,
            sent: bytes,
            received: bytes * 2,
            segments_in: 6,
            segments_out: 6,
            srtt_us: 43,
            rttvar_us: 12,
            min_rtt_us: 36,
            mss: 1448,
            cwnd: 10,
            local: if outbound { client } else { server },
            remote: if outbound { server } else { client },
            original: if outbound { end(mesh::vip(self.destination), mesh::PORT) } else { Endpoint::default() },
            state: if kind == Kind::Closed { TcpState::LastAck } else { TcpState::Established } as u8,
            direction: self.direction as u8,
            ..Record::default()
        }
    }
}
