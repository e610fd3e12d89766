//! Keys and values of the steering maps.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Endpoint;

/// Key of the service map: a virtual address and port; 20 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ServiceKey {
    /// The virtual address and port.
    pub vip: Endpoint,
    /// Always zero.
    pub reserved: [u8; 2],
}

/// Value of the service map: which endpoints it has; 8 bytes.
///
/// Endpoints `0..count` stand in the endpoint map under `set`. A changed set is written whole under a new number before the
/// service points to it, so that a connect sees the old set or the new one and nothing between.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ServiceValue {
    /// Number of the endpoint set.
    pub set: u32,
    /// How many endpoints the set has; 0 refuses the connect.
    pub count: u32,
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

/// Value of the endpoint map; 20 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct EndpointValue {
    /// Where to connect to.
    pub endpoint: Endpoint,
    /// Always zero.
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<ServiceKey>() == 20 && size_of::<EndpointValue>() == 20);
