//! One copy of what repeats: names, lists of services, localities.

use std::{collections::HashSet, hash::Hash, sync::Arc};

use arcstr::ArcStr;
use rustc_hash::FxBuildHasher;

use crate::model::{Ports, Service, Str, Workload, WorkloadExtra};

/// A table of shared values. What nobody else holds any more is dropped when the table has doubled, so that its size is bounded by
/// what the mesh holds.
#[derive(Debug, Default)]
pub struct Interner {
    names: Table<Str>,
    services: Table<Arc<[(Str, Ports)]>>,
    extras: Table<Arc<WorkloadExtra>>,
}

impl Interner {
    /// Returns the one copy of a name. Worth it for names that repeat; a decoder that uses it need not allocate them.
    pub fn name(&mut self, name: &str) -> Str {
        if name.is_empty() {
            return Str::new();
        }
        if let Some(found) = self.names.set.get(name) {
            return found.clone();
        }
        let name = Str::from(name);
        self.names.set.insert(name.clone());
        name
    }

    /// Returns the one copy of a list of services, in order of their names.
    pub fn services(&mut self, list: &[(Str, Ports)]) -> Arc<[(Str, Ports)]> {
        if let Some(found) = self.services.set.get(list) {
            return found.clone();
        }
        let mut ordered: Vec<_> = list.iter().map(|(key, ports)| (self.name(key), ports.clone())).collect();
        ordered.sort_by(|a, b| a.0.cmp(&b.0));
        ordered.dedup_by(|a, b| a.0 == b.0);
        let mut shared = ordered.into();
        self.services.share(&mut shared);
        shared
    }

    /// Returns the one copy of a seldom-set part; `None` if nothing in it is set.
    pub fn extra(&mut self, extra: WorkloadExtra) -> Option<Arc<WorkloadExtra>> {
        if extra == WorkloadExtra::default() {
            return None;
        }
        let mut shared = self.extras.set.get(&extra).cloned().unwrap_or_else(|| Arc::new(extra));
        self.extras.share(&mut shared);
        Some(shared)
    }

    /// Returns how many names, lists of services and seldom-set parts it holds.
    pub fn len(&self) -> usize {
        self.names.set.len() + self.services.set.len() + self.extras.set.len()
    }

    /// Tells whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shares what a workload repeats, and puts its lists in order. What it has in common with what it was is shared already.
    pub(crate) fn workload(&mut self, w: &mut Workload, was: Option<&Workload>) {
        let of = |field: fn(&Workload) -> &Str| was.map(field);
        let repeated = [
            (&mut w.namespace, of(|w| &w.namespace)),
            (&mut w.service_account, of(|w| &w.service_account)),
            (&mut w.trust_domain, of(|w| &w.trust_domain)),
            (&mut w.network, of(|w| &w.network)),
            (&mut w.node, of(|w| &w.node)),
            (&mut w.cluster_id, of(|w| &w.cluster_id)),
            (&mut w.workload_name, of(|w| &w.workload_name)),
            (&mut w.workload_type, of(|w| &w.workload_type)),
            (&mut w.canonical_name, of(|w| &w.canonical_name)),
            (&mut w.canonical_revision, of(|w| &w.canonical_revision)),
        ];
        for (name, was) in repeated {
            if !was.is_some_and(|was| Str::ptr_eq(was, name)) {
                self.names.share(name);
            }
        }
        for address in &mut w.addresses {
            *address = address.to_canonical();
        }
        match was {
            Some(was) if was.services == w.services => w.services = was.services.clone(),
            _ => w.services = self.services(&w.services),
        }
        if let Some(extra) = &mut w.extra {
            self.extras.share(extra);
        }
    }

    /// Shares what a service repeats; returns its key.
    pub(crate) fn service(&mut self, s: &mut Service) -> Str {
        self.names.share(&mut s.namespace);
        for vip in &mut s.vips {
            self.names.share(&mut vip.0);
            vip.1 = vip.1.to_canonical();
        }
        let mut key = s.key();
        self.names.share(&mut key);
        key
    }

    /// Drops what nobody else holds.
    pub(crate) fn sweep(&mut self) {
        self.services.sweep(|s| Arc::strong_count(s) > 1);
        self.extras.sweep(|e| Arc::strong_count(e) > 1);
        self.names.sweep(|n| ArcStr::strong_count(n).is_none_or(|count| count > 1));
    }

    /// Drops what nobody else holds if the table has doubled since the last time.
    pub(crate) fn maybe_sweep(&mut self) {
        if self.names.full() || self.services.full() || self.extras.full() {
            self.sweep();
        }
    }
}

#[derive(Debug)]
struct Table<T> {
    set: HashSet<T, FxBuildHasher>,
    /// How many were left by the last sweep.
    live: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { set: HashSet::default(), live: 0 }
    }
}

impl<T: Hash + Eq + Clone> Table<T> {
    fn share(&mut self, value: &mut T) {
        match self.set.get(value) {
            Some(found) => *value = found.clone(),
            None => {
                self.set.insert(value.clone());
            }
        }
    }

    fn full(&self) -> bool {
        self.set.len() > 2 * self.live + 1024
    }

    fn sweep(&mut self, is_live: impl Fn(&T) -> bool) {
        self.set.retain(is_live);
        self.live = self.set.len();
        self.set.shrink_to(2 * self.live + 1024);
    }
}
