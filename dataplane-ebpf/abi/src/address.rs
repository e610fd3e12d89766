//! Addresses as they cross the kernel boundary.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An address and port in network byte order; an IPv4 address is IPv4-mapped (`::ffff:a.b.c.d`, RFC 4291 2.5.5.2).
///
/// 18 bytes: 16 of address, 2 of port. All zero means "none".
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct Endpoint {
    /// The address, IPv4 as IPv4-mapped.
    pub address: [u8; 16],
    /// The port, network byte order.
    pub port: [u8; 2],
}

const _: () = assert!(size_of::<Endpoint>() == 18);

/// The first twelve bytes of an IPv4-mapped address.
pub const MAPPED_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

impl Endpoint {
    /// Makes an endpoint of an IPv4 address (four bytes, network order) and a port in host order.
    #[inline(always)]
    pub const fn v4(ip: [u8; 4], port: u16) -> Self {
        let address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ip[0], ip[1], ip[2], ip[3]];
        Self { address, port: port.to_be_bytes() }
    }

    /// Returns the port in host byte order.
    #[inline(always)]
    pub const fn port(&self) -> u16 {
        u16::from_be_bytes(self.port)
    }

    /// Tells whether this is "no endpoint": every byte zero.
    #[inline(always)]
    pub fn is_none(&self) -> bool {
        self.address == [0; 16] && self.port == [0; 2]
    }

    /// Returns the address, an IPv4-mapped one as IPv4.
    pub fn ip(&self) -> core::net::IpAddr {
        core::net::Ipv6Addr::from(self.address).to_canonical()
    }
}

impl From<core::net::SocketAddr> for Endpoint {
    fn from(value: core::net::SocketAddr) -> Self {
        let address = match value.ip() {
            core::net::IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            core::net::IpAddr::V6(ip) => ip.octets(),
        };
        Self { address, port: value.port().to_be_bytes() }
    }
}

impl From<Endpoint> for core::net::SocketAddr {
    fn from(value: Endpoint) -> Self {
        Self::new(value.ip(), value.port())
    }
}
