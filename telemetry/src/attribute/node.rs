//! Addresses on this node: the host's own, and those of its pods by network namespace.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use abi::Record;
use arc_swap::ArcSwap;
use rustc_hash::{FxHashMap, FxHashSet};

/// Addresses of this node's own interfaces: a connection that a pod accepts from one of them is node traffic (a probe). And
/// those of its pods' interfaces: a connect that never left its pod has no address of its own, only a namespace.
#[derive(Debug, Default)]
pub struct NodeAddresses {
    own: ArcSwap<FxHashSet<IpAddr>>,
    pods: ArcSwap<FxHashMap<u64, Vec<IpAddr>>>,
}

impl NodeAddresses {
    /// Replaces the node's own addresses; IPv4-mapped ones count as IPv4.
    pub fn set(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.own.store(Arc::new(addresses.into_iter().map(|a| a.to_canonical()).collect()));
    }

    /// Replaces the pods' addresses, each namespace's by its cookie (`Record::netns`).
    pub fn set_pods(&self, pods: impl IntoIterator<Item = (u64, Vec<IpAddr>)>) {
        self.pods.store(Arc::new(pods.into_iter().collect()));
    }

    /// Tells whether an address is the node's own.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.own.load().contains(&address)
    }

    /// Returns a record whose own address, where the socket never got one, is its pod's: of the peer's kind, else any.
    pub(crate) fn located(&self, record: &Record) -> Record {
        let pods = self.pods.load();
        let Some(addresses) = pods.get(&record.netns).filter(|_| record.local.ip().is_unspecified()) else {
            return *record;
        };
        let kind = record.remote.ip().is_ipv4();
        let found = addresses.iter().find(|a| a.is_ipv4() == kind).or(addresses.first());
        found.map_or(*record, |ip| Record { local: SocketAddr::new(*ip, record.local.port()).into(), ..*record })
    }
}
