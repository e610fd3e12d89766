//! What the writer does to the next snapshot before anyone sees it.

use std::{net::IpAddr, sync::Arc};

use super::{Held, Name, Policies, Snapshot};
use crate::{
    model::{Service, Str, Workload},
    shelf::Shelf,
    trie::{Hash, Trie},
};

impl Snapshot {
    /// Returns an empty one with the policies of this one.
    pub(crate) fn without_resources(&self) -> Self {
        Self { hasher: self.hasher.clone(), policies: self.policies.clone(), ..Self::default() }
    }

    pub(crate) fn policies_mut(&mut self) -> &mut Policies {
        Arc::make_mut(&mut self.policies)
    }

    /// Adds a workload, in place of what had its uid.
    pub(crate) fn put_workload(&mut self, workload: Arc<Held<Workload>>) {
        let Some(number) = self.workload_number(&workload.uid) else {
            let hash = self.hash(workload.uid.as_str());
            let number = self.workloads.add(workload.clone());
            self.uids.insert(hash, number);
            self.sort_workload(number, None, Some(&workload));
            self.link_addresses(number, &workload);
            return self.link_services(number, &workload);
        };
        let old = self.workloads.get(number).clone();
        let moved = old.network != workload.network || old.addresses != workload.addresses;
        let rewired = !same_services(&old, &workload);
        if moved {
            self.unlink_addresses(number, &old);
        }
        if rewired {
            self.unlink_services(number, &old);
        }
        self.sort_workload(number, Some(&old), Some(&workload));
        *self.workloads.get_mut(number) = workload.clone();
        if moved {
            self.link_addresses(number, &workload);
        } else if old.rank != workload.rank {
            self.rank_addresses(number, &old, &workload);
        }
        if rewired {
            self.link_services(number, &workload);
        }
    }

    /// Removes a workload; false if there was none.
    pub(crate) fn remove_workload(&mut self, uid: &str) -> bool {
        let Some(number) = self.workload_number(uid) else { return false };
        self.uids.remove(self.hash(uid), |n| n == number);
        let old = self.workloads.get(number).clone();
        self.sort_workload(number, Some(&old), None);
        self.unlink_addresses(number, &old);
        self.unlink_services(number, &old);
        self.workloads.remove(number);
        true
    }

    /// Adds a service under its key, in place of what had that key.
    pub(crate) fn put_service(&mut self, key: &Str, service: Arc<Held<Service>>) {
        let number = self.name_or_new(key);
        let old = self.names.get(number).record.clone();
        if let Some(old) = &old {
            self.unlink_service(number, old);
        }
        Arc::make_mut(self.names.get_mut(number)).record = Some(service.clone());
        self.service_count += usize::from(old.is_none());
        for (network, address) in distinct(&service.vips) {
            let key = self.address_key(network, *address);
            let rank = |n: u32| self.names.get(n).record.as_ref().map_or(service.rank, |s| s.rank);
            self.vips.add(key, (service.rank, number), holds_vip(&self.names, network, *address), rank);
        }
        self.hostnames.insert(self.hash(service.hostname.as_str()), number);
    }

    /// Removes a service; false if there was none. Workloads that name it stay its endpoints.
    pub(crate) fn remove_service(&mut self, key: &str) -> bool {
        let Some(number) = self.name_number(key) else { return false };
        let Some(old) = self.names.get(number).record.clone() else { return false };
        self.unlink_service(number, &old);
        Arc::make_mut(self.names.get_mut(number)).record = None;
        self.service_count -= 1;
        self.drop_idle_name(number);
        true
    }

    /// Has the indexes of some kinds of workloads follow one that comes, changes or goes.
    fn sort_workload(&mut self, number: u32, old: Option<&Held<Workload>>, new: Option<&Held<Workload>>) {
        let hash = self.hash(number);
        let here = |w: &Held<Workload>| w.rank.is_here();
        let behind = |w: &Held<Workload>| w.waypoint().is_some();
        sort(&mut self.here, hash, number, [old, new].map(|w| w.is_some_and(here)));
        sort(&mut self.behind, hash, number, [old, new].map(|w| w.is_some_and(behind)));
    }

    fn link_addresses(&mut self, number: u32, workload: &Held<Workload>) {
        for address in distinct(&workload.addresses) {
            let key = self.address_key(&workload.network, *address);
            let rank = |n: u32| self.workloads.get(n).rank;
            self.addresses.add(key, (workload.rank, number), is_in(&self.workloads, &workload.network), rank);
        }
    }

    /// Takes the addresses that this workload has, and no one else's claim to them.
    fn unlink_addresses(&mut self, number: u32, workload: &Held<Workload>) {
        for address in distinct(&workload.addresses) {
            let key = self.address_key(&workload.network, *address);
            self.addresses.take(key, (workload.rank, number), is_in(&self.workloads, &workload.network));
        }
    }

    fn rank_addresses(&mut self, number: u32, old: &Held<Workload>, workload: &Held<Workload>) {
        for address in distinct(&workload.addresses) {
            let key = self.address_key(&workload.network, *address);
            let is_in = is_in(&self.workloads, &workload.network);
            self.addresses.rank(key, (old.rank, number), workload.rank, is_in);
        }
    }

    fn link_services(&mut self, number: u32, workload: &Workload) {
        let hash = self.hash(number);
        for (key, _) in workload.services.iter() {
            let name = self.name_or_new(key);
            Arc::make_mut(self.names.get_mut(name)).endpoints.insert(hash, number);
        }
    }

    fn unlink_services(&mut self, number: u32, workload: &Workload) {
        let hash = self.hash(number);
        for (key, _) in workload.services.iter() {
            if let Some(name) = self.name_number(key) {
                Arc::make_mut(self.names.get_mut(name)).endpoints.remove(hash, |n| n == number);
                self.drop_idle_name(name);
            }
        }
    }

    fn unlink_service(&mut self, number: u32, service: &Held<Service>) {
        for (network, address) in distinct(&service.vips) {
            let key = self.address_key(network, *address);
            self.vips.take(key, (service.rank, number), holds_vip(&self.names, network, *address));
        }
        self.hostnames.remove(self.hash(service.hostname.as_str()), |n| n == number);
    }

    fn name_or_new(&mut self, key: &Str) -> u32 {
        self.name_number(key).unwrap_or_else(|| {
            let name = Name { key: key.clone(), record: None, endpoints: Trie::default() };
            let number = self.names.add(Arc::new(name));
            self.keys.insert(self.hash(key.as_str()), number);
            number
        })
    }

    fn drop_idle_name(&mut self, number: u32) {
        let name = self.names.get(number);
        if name.record.is_none() && name.endpoints.is_empty() {
            let hash = self.hash(name.key.as_str());
            self.keys.remove(hash, |n| n == number);
            self.names.remove(number);
        }
    }
}

/// Puts a number into an index, or takes it out, where it was not, or was, one of its kind.
fn sort(index: &mut Trie<u32>, hash: Hash, number: u32, [was, is]: [bool; 2]) {
    match (was, is) {
        (false, true) => index.insert(hash, number),
        (true, false) => drop(index.remove(hash, |n| n == number)),
        _ => {}
    }
}

fn is_in(workloads: &Shelf<Arc<Held<Workload>>>, network: &str) -> impl Fn(u32) -> bool {
    move |number| workloads.get(number).network == network
}

fn holds_vip(names: &Shelf<Arc<Name>>, network: &str, address: IpAddr) -> impl Fn(u32) -> bool {
    move |number| names.get(number).holds(network, address)
}

/// Tells whether two workloads are endpoints of the same services, whatever the ports.
fn same_services(a: &Workload, b: &Workload) -> bool {
    Arc::ptr_eq(&a.services, &b.services) || a.services.iter().map(|s| &s.0).eq(b.services.iter().map(|s| &s.0))
}

/// Leaves out what an earlier element equals.
fn distinct<T: PartialEq>(all: &[T]) -> impl Iterator<Item = &T> {
    all.iter().enumerate().filter(|(i, a)| !all[..*i].contains(a)).map(|(_, a)| a)
}
