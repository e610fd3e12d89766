//! The next snapshot while it is being made.

use std::sync::{Arc, Mutex};

use crate::{
    cache::{Node, lock},
    held::{Held, Rank},
    intern::Interner,
    model::{Health, Service, Str, Workload},
    snapshot::Snapshot,
    subscription::{Change, MAX_NAMES},
};

/// The next snapshot, and what may differ in it from the one before.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    before: &'a Snapshot,
    next: Snapshot,
    node: &'a Node,
    interner: &'a Mutex<Interner>,
    /// It was started from nothing, so anything may differ.
    anew: bool,
    uids: Vec<Str>,
    keys: Vec<Str>,
    policies: bool,
}

impl<'a> Draft<'a> {
    /// Starts from the snapshot before.
    pub(crate) fn on(before: &'a Snapshot, node: &'a Node, interner: &'a Mutex<Interner>) -> Self {
        Self {
            before,
            next: before.clone(),
            node,
            interner,
            anew: false,
            uids: Vec::new(),
            keys: Vec::new(),
            policies: false,
        }
    }

    /// Starts from nothing, but keeps what turns out to be the same.
    pub(crate) fn anew(before: &'a Snapshot, node: &'a Node, interner: &'a Mutex<Interner>) -> Self {
        Self { next: before.without_resources(), anew: true, ..Self::on(before, node, interner) }
    }

    /// Adds or changes a workload; a service of that name goes.
    pub(crate) fn workload(&mut self, mut workload: Workload) {
        let was = self.before.workload(&workload.uid);
        lock(self.interner).workload(&mut workload, was.map(|w| &w.value));
        let held = match was {
            Some(was) if was.value == workload => was.clone(),
            _ => {
                let stays =
                    |w: &&Arc<Held<Workload>>| w.network == workload.network && w.addresses == workload.addresses;
                let since = was.filter(stays).map(|w| w.rank);
                let unhealthy = workload.status == Health::Unhealthy;
                let elsewhere = if workload.node == self.node.name { 0 } else { Rank::ELSEWHERE };
                Held::new(workload, u64::from(unhealthy) << 1 | elsewhere, since)
            }
        };
        if self.next.workload(&held.uid).is_some_and(|present| Arc::ptr_eq(present, &held)) {
            return;
        }
        let uid = held.uid.clone();
        self.next.put_workload(held);
        // While there are no services, as at the begin of a whole state, none can have the name.
        if self.next.service_count() > 0 && self.next.remove_service(&uid) && !self.anew {
            self.keys.push(uid.clone());
        }
        if !self.anew {
            self.uids.push(uid);
        }
    }

    /// Adds or changes a service; a workload of that name goes.
    pub(crate) fn service(&mut self, mut service: Service) {
        let key = lock(self.interner).service(&mut service);
        let was = self.before.service(&key);
        let held = match was {
            Some(was) if was.value == service => was.clone(),
            _ => {
                let since = was.filter(|s| s.vips == service.vips).map(|s| s.rank);
                Held::new(service, 0, since)
            }
        };
        if self.next.service(&key).is_some_and(|present| Arc::ptr_eq(present, &held)) {
            return;
        }
        self.next.put_service(&key, held);
        if self.next.remove_workload(&key) && !self.anew {
            self.uids.push(key.clone());
        }
        if !self.anew {
            self.keys.push(key);
        }
    }

    /// Removes the workload or service of that name, and only what it still owns.
    pub(crate) fn remove(&mut self, name: Str) {
        if self.next.remove_service(&name) {
            self.keys.push(name.clone());
        }
        if self.next.remove_workload(&name) {
            self.uids.push(name);
        }
    }

    pub(crate) fn policy(&mut self, name: Str, policy: serde_json::Value) {
        if self.next.policies().get(&name).is_none_or(|p| **p != policy) {
            self.next.policies_mut().insert(name, Arc::new(policy));
            self.policies = true;
        }
    }

    pub(crate) fn remove_policy(&mut self, name: &str) {
        if self.next.policies().contains_key(name) {
            self.next.policies_mut().remove(name);
            self.policies = true;
        }
    }

    /// Returns the finished snapshot and what differs in it; `None` if nothing does.
    pub(crate) fn finish(self) -> Option<(Snapshot, Change)> {
        let change = if self.anew { self.whole_change() } else { self.named_change() };
        (self.policies || !change.is_empty()).then_some((self.next, change))
    }

    fn named_change(&self) -> Change {
        let mut change = Change::default();
        for uid in &self.uids {
            self.compare_workload(uid, &mut change);
        }
        for key in &self.keys {
            self.compare_service(key, &mut change);
        }
        bounded(change)
    }

    fn whole_change(&self) -> Change {
        let (before, next) = (self.before, &self.next);
        if before.workload_count() == 0 && before.service_count() == 0 {
            let both_empty = next.workload_count() == 0 && next.service_count() == 0;
            return if both_empty { Change::default() } else { Change::full() };
        }
        let mut change = Change::default();
        for workload in next.workloads().chain(before.workloads()) {
            self.compare_workload(&workload.uid, &mut change);
            if change.workloads.len() + change.services.len() > MAX_NAMES {
                return Change::full();
            }
        }
        for service in next.services().chain(before.services()) {
            self.compare_service(&service.key(), &mut change);
        }
        bounded(change)
    }

    /// Notes a workload if it is not what it was, and the services that it is or was an endpoint of.
    fn compare_workload(&self, uid: &Str, change: &mut Change) {
        let (before, next) = (self.before.workload(uid), self.next.workload(uid));
        if before.map(Arc::as_ptr) == next.map(Arc::as_ptr) {
            return;
        }
        for held in [before, next].into_iter().flatten() {
            change.services.extend(held.services.iter().map(|s| s.0.clone()));
        }
        change.workloads.insert(uid.clone());
    }

    fn compare_service(&self, key: &Str, change: &mut Change) {
        if self.before.service(key).map(Arc::as_ptr) != self.next.service(key).map(Arc::as_ptr) {
            change.services.insert(key.clone());
        }
    }
}

fn bounded(change: Change) -> Change {
    if change.services.len() + change.workloads.len() > MAX_NAMES { Change::full() } else { change }
}
