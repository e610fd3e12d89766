//! The state of the mesh at one moment, as readers see it and as the writer makes the next one from it.

use std::{collections::BTreeMap, hash::BuildHasher, net::IpAddr, sync::Arc};

use foldhash::quality::RandomState;

pub use crate::held::Held;
use crate::{
    held::Holders,
    model::{Service, Str, Workload},
    trie::Trie,
};

/// Authorization policies as they were told, by `namespace/name`.
pub type Policies = BTreeMap<Str, Arc<serde_json::Value>>;

/// The state of the mesh at one moment. A clone costs a few reference counts.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    hasher: RandomState,
    workloads: Trie<Arc<Held<Workload>>>,
    addresses: Trie<Holders<Workload>>,
    services: Trie<Slot>,
    service_count: usize,
    vips: Trie<Holders<Service>>,
    hostnames: Trie<Holders<Service>>,
    policies: Arc<Policies>,
}

/// A service name that is defined, or has endpoints, or both.
#[derive(Clone, Debug)]
struct Slot {
    key: Str,
    record: Option<Arc<Held<Service>>>,
    endpoints: Trie<Arc<Held<Workload>>>,
}

impl Snapshot {
    /// Returns the workload that holds an address: in `network` first, then in the empty network; of several the healthy
    /// before the unhealthy, this node's before others, then the one that took it last.
    pub fn workload_at(&self, network: &str, address: IpAddr) -> Option<&Arc<Held<Workload>>> {
        in_networks(network, |network| {
            let address = address.to_canonical();
            let hash = self.hasher.hash_one((network, address));
            self.addresses.get(hash, |h| workload_holds(h, network, address)).map(Holders::best)
        })
    }

    /// Returns the service that holds a virtual address: in `network` first, then in the empty network; of several the one
    /// that took it last.
    pub fn service_at(&self, network: &str, address: IpAddr) -> Option<&Arc<Held<Service>>> {
        in_networks(network, |network| {
            let address = address.to_canonical();
            let hash = self.hasher.hash_one((network, address));
            self.vips.get(hash, |h| service_holds(h, network, address)).map(Holders::best)
        })
    }

    /// Returns a workload by uid.
    pub fn workload(&self, uid: &str) -> Option<&Arc<Held<Workload>>> {
        self.workloads.get(self.hasher.hash_one(uid), |w| w.uid == uid)
    }

    /// Returns a service by `namespace/hostname`.
    pub fn service(&self, key: &str) -> Option<&Arc<Held<Service>>> {
        self.slot(key)?.record.as_ref()
    }

    /// Returns the services of a hostname, the canonical one first, then by namespace.
    pub fn services_by_hostname(&self, hostname: &str) -> &[Arc<Held<Service>>] {
        let hash = self.hasher.hash_one(hostname);
        self.hostnames.get(hash, |h| h.best().hostname == hostname).map_or(&[], Holders::all)
    }

    /// Returns the workloads that are endpoints of a service, healthy or not, in no particular order, whether or not the service
    /// itself is defined.
    pub fn endpoints(&self, key: &str) -> impl Iterator<Item = &Arc<Held<Workload>>> {
        self.slot(key).into_iter().flat_map(|s| s.endpoints.iter())
    }

    /// Returns how many endpoints a service has, healthy or not.
    pub fn endpoint_count(&self, key: &str) -> usize {
        self.slot(key).map_or(0, |s| s.endpoints.len())
    }

    /// Iterates over all workloads, in no particular order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Held<Workload>>> {
        self.workloads.iter()
    }

    /// Iterates over all services that are defined, in no particular order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Held<Service>>> {
        self.services.iter().filter_map(|s| s.record.as_ref())
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

    fn slot(&self, key: &str) -> Option<&Slot> {
        self.services.get(self.hasher.hash_one(key), |s| s.key == key)
    }
}

/// What the writer does to the next snapshot before anyone sees it.
impl Snapshot {
    /// Returns an empty one that hashes as this one does.
    pub(crate) fn empty(&self) -> Self {
        Self { hasher: self.hasher.clone(), policies: self.policies.clone(), ..Self::default() }
    }

    pub(crate) fn policies_mut(&mut self) -> &mut Policies {
        Arc::make_mut(&mut self.policies)
    }

    /// Adds a workload, in place of what had its uid.
    pub(crate) fn put_workload(&mut self, workload: Arc<Held<Workload>>) {
        let uid = &workload.uid;
        let hash = self.hasher.hash_one(uid.as_str());
        match self.workloads.get_mut(hash, |w| w.uid == *uid) {
            Some(old) => {
                let old = std::mem::replace(old, workload.clone());
                self.unlink_workload(&old);
            }
            None => self.workloads.insert(hash, workload.clone()),
        }
        self.link_workload(&workload);
    }

    /// Removes a workload; false if there was none.
    pub(crate) fn remove_workload(&mut self, uid: &str) -> bool {
        let removed = self.workloads.remove(self.hasher.hash_one(uid), |w| w.uid == uid);
        removed.inspect(|old| self.unlink_workload(old)).is_some()
    }

    /// Adds a service under its key, in place of what had that key.
    pub(crate) fn put_service(&mut self, key: &Str, service: Arc<Held<Service>>) {
        match self.slot_mut(key).record.replace(service.clone()) {
            Some(old) => self.unlink_service(&old),
            None => self.service_count += 1,
        }
        for (network, address) in addresses_of(&service.vips) {
            let hash = self.hasher.hash_one((network.as_str(), address));
            add(&mut self.vips, hash, &service, |h| service_holds(h, network, address), |a, b| a.rank < b.rank);
        }
        let hash = self.hasher.hash_one(service.hostname.as_str());
        let order = |a: &Held<Service>, b: &Held<Service>| (!a.canonical, &a.namespace) < (!b.canonical, &b.namespace);
        add(&mut self.hostnames, hash, &service, |h| h.best().hostname == service.hostname, order);
    }

    /// Removes a service; false if there was none. Workloads that name it stay its endpoints.
    pub(crate) fn remove_service(&mut self, key: &str) -> bool {
        if self.service(key).is_none() {
            return false;
        }
        let hash = self.hasher.hash_one(key);
        if let Some(slot) = self.services.get_mut(hash, |s| s.key == key) {
            let old = slot.record.take();
            self.service_count -= 1;
            self.drop_idle_slot(hash, key);
            if let Some(old) = old {
                self.unlink_service(&old);
            }
        }
        true
    }

    fn link_workload(&mut self, workload: &Arc<Held<Workload>>) {
        let network = &workload.network;
        for address in distinct(&workload.addresses) {
            let hash = self.hasher.hash_one((network.as_str(), address));
            add(&mut self.addresses, hash, workload, |h| workload_holds(h, network, *address), |a, b| a.rank < b.rank);
        }
        let uid_hash = self.hasher.hash_one(workload.uid.as_str());
        for (key, _) in workload.services.iter() {
            self.slot_mut(key).endpoints.insert(uid_hash, workload.clone());
        }
    }

    /// Takes from the indexes what this workload still owns there.
    fn unlink_workload(&mut self, workload: &Arc<Held<Workload>>) {
        let network = &workload.network;
        for address in distinct(&workload.addresses) {
            let hash = self.hasher.hash_one((network.as_str(), address));
            take(&mut self.addresses, hash, workload, |h| workload_holds(h, network, *address));
        }
        let uid_hash = self.hasher.hash_one(workload.uid.as_str());
        for (key, _) in workload.services.iter() {
            let hash = self.hasher.hash_one(key.as_str());
            if let Some(slot) = self.services.get_mut(hash, |s| s.key == *key) {
                slot.endpoints.remove(uid_hash, |w| Arc::ptr_eq(w, workload));
                self.drop_idle_slot(hash, key);
            }
        }
    }

    fn unlink_service(&mut self, service: &Arc<Held<Service>>) {
        for (network, address) in addresses_of(&service.vips) {
            let hash = self.hasher.hash_one((network.as_str(), address));
            take(&mut self.vips, hash, service, |h| service_holds(h, network, address));
        }
        let hash = self.hasher.hash_one(service.hostname.as_str());
        take(&mut self.hostnames, hash, service, |h| h.best().hostname == service.hostname);
    }

    fn slot_mut(&mut self, key: &Str) -> &mut Slot {
        let hash = self.hasher.hash_one(key.as_str());
        if self.services.get(hash, |s| s.key == *key).is_none() {
            self.services.insert(hash, Slot { key: key.clone(), record: None, endpoints: Trie::default() });
        }
        self.services.get_mut(hash, |s| s.key == *key).expect("it was there or has been added")
    }

    fn drop_idle_slot(&mut self, hash: u64, key: &str) {
        let idle = |s: &Slot| s.key == key && s.record.is_none() && s.endpoints.is_empty();
        self.services.remove(hash, idle);
    }
}

fn in_networks<'a, T>(network: &str, find: impl Fn(&str) -> Option<&'a T>) -> Option<&'a T> {
    match find(network) {
        None if !network.is_empty() => find(""),
        found => found,
    }
}

fn workload_holds(holders: &Holders<Workload>, network: &str, address: IpAddr) -> bool {
    let any = holders.best();
    any.network == network && any.addresses.contains(&address)
}

fn service_holds(holders: &Holders<Service>, network: &str, address: IpAddr) -> bool {
    holders.best().vips.iter().any(|v| v.0 == network && v.1 == address)
}

/// Leaves out what an earlier element equals.
fn distinct<T: PartialEq>(all: &[T]) -> impl Iterator<Item = &T> {
    all.iter().enumerate().filter(|(i, a)| !all[..*i].contains(a)).map(|(_, a)| a)
}

fn addresses_of(vips: &[(Str, IpAddr)]) -> impl Iterator<Item = (&Str, IpAddr)> {
    distinct(vips).map(|v| (&v.0, v.1))
}

fn add<T>(
    index: &mut Trie<Holders<T>>,
    hash: u64,
    held: &Arc<Held<T>>,
    is: impl Fn(&Holders<T>) -> bool,
    less: impl Fn(&Held<T>, &Held<T>) -> bool,
) {
    match index.get_mut(hash, is) {
        Some(holders) => holders.add(held.clone(), less),
        None => index.insert(hash, Holders::One(held.clone())),
    }
}

fn take<T>(index: &mut Trie<Holders<T>>, hash: u64, held: &Arc<Held<T>>, is: impl Fn(&Holders<T>) -> bool) {
    if let Some(holders) = index.get_mut(hash, &is)
        && !holders.take(held)
    {
        index.remove(hash, is);
    }
}
