//! Keys and values of the steering maps.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Endpoint;

/// Key of the service map: an address and port as they are dialled; 20 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ServiceKey {
    /// A service's address and port; or, with port 0, a workload's address, whichever port is dialled.
    pub dialled: Endpoint,
    /// [`DIRECT`] for what a waypoint's own namespace dials, which does not go through that waypoint again; else zero.
    pub way: [u8; 2],
}

/// In [`ServiceKey::way`].
pub const DIRECT: [u8; 2] = [1, 0];

impl ServiceKey {
    /// Returns the tag of the key's value.
    pub fn tag(&self) -> u32 {
        let half = |at: usize| self.dialled.address.as_chunks::<8>().0[at];
        let [first, second] = [0, 1].map(|at| u64::from_ne_bytes(half(at)));
        tag(first, second, u16::from_ne_bytes(self.dialled.port))
    }
}

/// Folds an address, as two words in memory order, and a port in network order.
#[inline(always)]
pub const fn tag(first: u64, second: u64, port: u16) -> u32 {
    let address = first.rotate_left(7) ^ second;
    (address >> 32) as u32 ^ address as u32 ^ (port as u32) << 8
}

/// Value of the service map: which endpoints take the connect; 16 bytes.
///
/// Slots `0..count` stand in the endpoint map under `set`. A changed set is written whole under a new number before the
/// service points to it, so that a connect sees the old set or the new one and nothing between.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ServiceValue {
    /// [`tag`] of the key: the kernel may give the memory of a removed element to another while a program reads it.
    pub tag: u32,
    /// Number of the endpoint set.
    pub set: u32,
    /// How many slots the set has; 0 refuses the connect.
    pub count: u32,
    /// The waypoint whose endpoints these are, by its number; 0: they are the service's own.
    pub waypoint: u32,
}

/// Key of the endpoint map; 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct EndpointKey {
    /// Number of the endpoint set.
    pub set: u32,
    /// Index within the set.
    pub index: u32,
}

/// Value of the endpoint map: a slot, which two endpoints share (Vose's alias method); 44 bytes.
///
/// A random slot and a random threshold choose each endpoint as often as its weight says, by one look-up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct EndpointValue {
    /// Number of the endpoint set: as [`ServiceValue::tag`].
    pub set: u32,
    /// A random number up to this one chooses the first endpoint, one above it the second.
    pub threshold: u32,
    /// Both addresses, IPv4 as IPv4-mapped.
    pub addresses: [[u8; 16]; 2],
    /// Both ports, network byte order.
    pub ports: [[u8; 2]; 2],
}

/// Key of the map of waypoints' own namespaces; 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct WaypointKey {
    /// Cookie of a namespace in which an endpoint of the waypoint runs.
    pub netns: u64,
    /// [`ServiceValue::waypoint`].
    pub waypoint: u32,
    /// Always zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<ServiceKey>() == 20 && size_of::<ServiceValue>() == 16);
const _: () = assert!(size_of::<EndpointValue>() == 44 && size_of::<WaypointKey>() == 16);

/// What waypoints are told of what was dialled, in the setting [`crate::maps::setting::METADATA`].
pub mod metadata {
    /// Nothing.
    pub const NONE: u64 = 0;
    /// PROXY protocol, version 2.
    pub const PROXY: u64 = 1;
    /// Kmesh's form: `0x01`, a length of 32 bits, address, port, `0xFE`, a length of 0.
    pub const TLV: u64 = 2;
}
