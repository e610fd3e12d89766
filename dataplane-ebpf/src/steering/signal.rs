//! The CNI signal: a connect to `0.0.0.2` or `::2` enrols the namespace it comes from, or takes it out.

use abi::{
    Endpoint,
    maps::{counter::MANAGER_FULL, managed},
};
use aya_ebpf::bindings::BPF_ANY;

use crate::{counters, globals::global, maps::SIGNALLED, sock::TcpSock};

const ENROL: u16 = 929;
const LEAVE: u16 = 930;

/// Tells whether a port, in network order, may belong to a signal.
#[inline(always)]
pub(crate) const fn is_port(port: u16) -> bool {
    port == ENROL.to_be() || port == LEAVE.to_be()
}

/// Tells whether an address, IPv4 as IPv4-mapped, is the signal's.
#[inline(always)]
pub(crate) const fn is_address(address: &[u8; 16]) -> bool {
    matches!(
        address,
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2] | [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 2]
    )
}

/// Tells whether a socket is, or was, on its way to be a signal.
#[inline(always)]
pub(crate) fn is_to(tcp: TcpSock) -> bool {
    if !is_port(tcp.remote_port_be()) {
        return false;
    }
    let mut remote = Endpoint { address: [0; 16], port: [0; 2] };
    // SAFETY: an endpoint of our own; as a local variable of the programs it stands at an even address.
    unsafe { tcp.write_remote(tcp.family(), &raw mut remote) };
    is_address(&remote.address)
}

/// Does what a signal with this port, in network order, asks for. The host's own namespace can not be signalled.
#[inline(always)]
pub(crate) fn obey(port: u16, netns: u64) {
    if netns == global!(host_netns) {
        return;
    }
    if port == LEAVE.to_be() {
        // Not enrolled by a signal: there is nothing to undo.
        _ = SIGNALLED.remove(netns);
    } else if SIGNALLED.insert(netns, managed::SIGNAL, BPF_ANY.into()).is_err() {
        counters::add(MANAGER_FULL, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_one_of_two_ports_and_one_of_two_addresses() {
        assert!(is_port(929_u16.to_be()) && is_port(930_u16.to_be()));
        assert!(!is_port(931_u16.to_be()));
        assert!(is_address(&Endpoint::v4([0, 0, 0, 2], 929).address));
        assert!(is_address(&core::net::Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 2).octets()));
        assert!(!is_address(&Endpoint::v4([0, 0, 0, 1], 929).address));
        assert!(!is_address(&core::net::Ipv6Addr::LOCALHOST.octets()));
    }
}
