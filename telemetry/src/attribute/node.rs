//! The host's own addresses.

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use rustc_hash::FxHashSet;

/// Addresses of this node's own interfaces: a connection that a pod accepts from one of them is node traffic (a probe).
#[derive(Debug, Default)]
pub struct NodeAddresses(ArcSwap<FxHashSet<IpAddr>>);

impl NodeAddresses {
    /// Replaces the addresses; IPv4-mapped ones count as IPv4.
    pub fn set(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.0.store(Arc::new(addresses.into_iter().map(|a| a.to_canonical()).collect()));
    }

    /// Tells whether an address is the node's own.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.load().contains(&address)
    }
}
