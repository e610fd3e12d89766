//! The snapshot that readers load, and the cache that swaps it.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use arc_swap::{ArcSwap, Guard};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::model::{Health, Service, Str, Workload};

/// Who we are.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Node name.
    pub name: Str,
    /// The node's network; empty is the default one.
    pub network: Str,
}

/// A workload as held by a snapshot.
#[derive(Debug)]
pub struct Held<T> {
    /// Never used twice in a process: equal serials are the same content.
    pub serial: u64,
    /// The content.
    pub value: T,
}

impl<T> std::ops::Deref for Held<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// Updates and removals, applied in this order.
#[derive(Debug, Default)]
pub struct Delta {
    /// New or changed workloads.
    pub workloads: Vec<Workload>,
    /// New or changed services.
    pub services: Vec<Service>,
    /// Names to remove: a workload's uid or a service's `namespace/hostname`.
    pub removed: Vec<Str>,
}

/// What a swap touched, for those who mirror the state (maps, enrolment).
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Everything may differ.
    pub full: bool,
    /// Services whose own record or endpoints changed, `namespace/hostname`.
    pub services: FxHashSet<Str>,
    /// Workloads that came, changed or went, by uid.
    pub workloads: FxHashSet<Str>,
}

/// The state of the mesh at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    // Filled in by the owner of this crate.
    pub(crate) workloads: FxHashMap<Str, Arc<Held<Workload>>>,
    pub(crate) services: BTreeMap<Str, Arc<Held<Service>>>,
}

impl Snapshot {
    /// Returns the workload that holds an address: in `network` first, then in the empty network; of several the healthy
    /// before the unhealthy, this node's before others, then the newest.
    pub fn workload_at(&self, _network: &str, address: IpAddr) -> Option<&Arc<Held<Workload>>> {
        self.workloads.values().filter(|w| w.addresses.contains(&address)).min_by_key(|w| w.status == Health::Unhealthy)
    }
    /// Returns the service that holds a virtual address: in `network` first, then in the empty network.
    pub fn service_at(&self, _network: &str, address: IpAddr) -> Option<&Arc<Held<Service>>> {
        self.services.values().find(|s| s.vips.iter().any(|v| v.1 == address))
    }
    /// Returns a workload by uid.
    pub fn workload(&self, uid: &str) -> Option<&Arc<Held<Workload>>> {
        self.workloads.get(uid)
    }
    /// Returns a service by `namespace/hostname`.
    pub fn service(&self, key: &str) -> Option<&Arc<Held<Service>>> {
        self.services.get(key)
    }
    /// Returns the services of a hostname, the canonical one first.
    pub fn services_by_hostname(&self, hostname: &str) -> Vec<&Arc<Held<Service>>> {
        self.services.values().filter(|s| s.hostname == hostname).collect()
    }
    /// Returns the workloads that are endpoints of a service, healthy or not.
    pub fn endpoints(&self, key: &str) -> impl Iterator<Item = &Arc<Held<Workload>>> {
        self.workloads.values().filter(move |w| w.services.iter().any(|s| s.0 == key))
    }
    /// Iterates over all workloads.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Held<Workload>>> {
        self.workloads.values()
    }
    /// Iterates over all services.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Held<Service>>> {
        self.services.values()
    }
    /// Tells whether a workload's content is still the present one.
    pub fn is_current(&self, workload: &Held<Workload>) -> bool {
        self.workloads.get(&workload.uid).is_some_and(|w| w.serial == workload.serial)
    }
}

/// The one place that knows the mesh.
#[derive(Debug)]
pub struct Cache {
    node: Node,
    snapshot: ArcSwap<Snapshot>,
}

impl Cache {
    /// Makes an empty cache for a node.
    pub fn new(node: Node) -> Self {
        Self { node, snapshot: ArcSwap::default() }
    }
    /// Returns who we are.
    pub fn node(&self) -> &Node {
        &self.node
    }
    /// Loads the present snapshot; cheap, never waits.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }
}
