//! The state of the mesh at one moment, as readers see it.

mod next;

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, Hash},
    net::IpAddr,
    sync::Arc,
};

use foldhash::quality::RandomState;

pub use crate::held::Held;
use crate::{
    addresses::{Addresses, Key, octets},
    model::{Service, Str, Workload},
    shelf::Shelf,
    trie::{self, Trie},
};

/// Authorization policies as they were told, by `namespace/name`.
pub type Policies = BTreeMap<Str, Arc<serde_json::Value>>;

/// The state of the mesh at one moment. A clone costs some hundred reference counts at 100,000 workloads.
///
/// Workloads and service names have numbered places on shelves; the indexes hold numbers. So new content of a workload that keeps
/// its uid, addresses and services touches no index.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    hasher: RandomState,
    workloads: Shelf<Arc<Held<Workload>>>,
    uids: Trie<u32>,
    addresses: Addresses,
    /// Numbers of this node's workloads.
    here: Trie<u32>,
    /// Numbers of workloads that have a waypoint of their own.
    behind: Trie<u32>,
    names: Shelf<Arc<Name>>,
    keys: Trie<u32>,
    vips: Addresses,
    hostnames: Trie<u32>,
    service_count: usize,
    policies: Arc<Policies>,
}

/// A service name that is defined, or has endpoints, or both.
#[derive(Clone, Debug)]
struct Name {
    /// `namespace/hostname`.
    key: Str,
    record: Option<Arc<Held<Service>>>,
    /// Numbers of workloads.
    endpoints: Trie<u32>,
}

impl Name {
    fn holds(&self, network: &str, address: IpAddr) -> bool {
        self.record.as_ref().is_some_and(|s| s.vips.iter().any(|v| v.1 == address && v.0 == network))
    }
}

impl Snapshot {
    /// Returns the workload that holds an address: in `network` first, then in the empty network; of several the healthy
    /// before the unhealthy, this node's before others, then the one that took it last.
    pub fn workload_at(&self, network: &str, address: IpAddr) -> Option<&Arc<Held<Workload>>> {
        in_networks(network, |network| {
            let number = self
                .addresses
                .best(self.address_key(network, address), |number| self.workloads.get(number).network == network)?;
            Some(self.workloads.get(number))
        })
    }

    /// Returns the service that holds a virtual address: in `network` first, then in the empty network; of several the one
    /// that took it last.
    pub fn service_at(&self, network: &str, address: IpAddr) -> Option<&Arc<Held<Service>>> {
        in_networks(network, |network| {
            let is = |number| self.names.get(number).holds(network, address.to_canonical());
            self.record(self.vips.best(self.address_key(network, address), is)?)
        })
    }

    /// Returns a workload by uid.
    pub fn workload(&self, uid: &str) -> Option<&Arc<Held<Workload>>> {
        Some(self.workloads.get(self.workload_number(uid)?))
    }

    /// Returns a service by `namespace/hostname`.
    pub fn service(&self, key: &str) -> Option<&Arc<Held<Service>>> {
        self.record(self.name_number(key)?)
    }

    /// Returns the services of a hostname, the canonical one first, then by namespace.
    pub fn services_by_hostname(&self, hostname: &str) -> Vec<&Arc<Held<Service>>> {
        let numbers = self.hostnames.of(self.hash(hostname));
        let mut found: Vec<_> =
            numbers.filter_map(|n| self.record(n)).filter(|s: &&Arc<Held<Service>>| s.hostname == hostname).collect();
        found.sort_by(|a, b| (!a.canonical, &a.namespace).cmp(&(!b.canonical, &b.namespace)));
        found
    }

    /// Returns the workloads that are endpoints of a service, healthy or not, in no particular order, whether or not the service
    /// itself is defined.
    pub fn endpoints(&self, key: &str) -> impl Iterator<Item = &Arc<Held<Workload>>> {
        let name = self.name_number(key).map(|n| self.names.get(n));
        name.into_iter().flat_map(|n| n.endpoints.iter()).map(|number| self.workloads.get(number))
    }

    /// Returns how many endpoints a service has, healthy or not.
    pub fn endpoint_count(&self, key: &str) -> usize {
        self.name_number(key).map_or(0, |n| self.names.get(n).endpoints.len())
    }

    /// Iterates over all workloads, in no particular order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Held<Workload>>> {
        self.workloads.iter()
    }

    /// Iterates over the workloads of this node, in no particular order.
    pub fn workloads_here(&self) -> impl Iterator<Item = &Arc<Held<Workload>>> {
        self.here.iter().map(|number| self.workloads.get(number))
    }

    /// Iterates over the workloads that have a waypoint of their own, in no particular order.
    pub fn workloads_behind_waypoints(&self) -> impl Iterator<Item = &Arc<Held<Workload>>> {
        self.behind.iter().map(|number| self.workloads.get(number))
    }

    /// Iterates over all services that are defined, in no particular order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Held<Service>>> {
        self.names.iter().filter_map(|n| n.record.as_ref())
    }

    /// Returns how many workloads there are.
    pub fn workload_count(&self) -> usize {
        self.workloads.len()
    }

    /// Returns how many services are defined.
    pub fn service_count(&self) -> usize {
        self.service_count
    }

    /// Returns the authorization policies.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Tells whether a workload's content is still the present one.
    pub fn is_current(&self, workload: &Held<Workload>) -> bool {
        self.workload(&workload.uid).is_some_and(|w| w.serial == workload.serial)
    }

    fn record(&self, number: u32) -> Option<&Arc<Held<Service>>> {
        self.names.get(number).record.as_ref()
    }

    fn workload_number(&self, uid: &str) -> Option<u32> {
        self.uids.of(self.hash(uid)).find(|n| self.workloads.get(*n).uid == uid)
    }

    fn name_number(&self, key: &str) -> Option<u32> {
        self.keys.of(self.hash(key)).find(|n| self.names.get(*n).key == key)
    }

    fn address_key(&self, network: &str, address: IpAddr) -> Key {
        let address = octets(address);
        let hash =
            if network.is_empty() { self.hash(u128::from_ne_bytes(address)) } else { self.hash((network, address)) };
        Key::new(hash, network, address)
    }

    fn hash(&self, of: impl Hash) -> trie::Hash {
        trie::Hash::new((self.hasher.hash_one(of) >> 32) as u32).unwrap_or(trie::Hash::MIN)
    }
}

fn in_networks<'a, T>(network: &str, find: impl Fn(&str) -> Option<&'a T>) -> Option<&'a T> {
    match find(network) {
        None if !network.is_empty() => find(""),
        found => found,
    }
}
