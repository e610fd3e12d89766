//! Fragments by who they describe, so that the record path renders nothing twice.

use std::{hash::Hash, net::IpAddr};

use ::cache::{Held, Service, Str, Workload};
use rustc_hash::FxHashMap;

use super::{PodLabels, ServiceLabels, Side, WorkloadLabels, shown};
use crate::fragment::{Fragment, Fragments};

/// Entries of one kind; when there are more, all go and those in use are rendered again.
const MOST: usize = 1 << 16;

/// Fragments by the serial of what they describe; a serial is never used twice, so an entry is never wrong.
///
/// Entries that nobody asked for between two sweeps go, so what left the mesh leaves here too.
#[derive(Debug)]
pub struct LabelCache {
    fragments: Fragments,
    cluster_id: Str,
    sources: Kind<u64>,
    destinations: Kind<u64>,
    pods: Kind<(u64, IpAddr)>,
    services: Kind<u64>,
    /// What stands where nobody is known.
    pub(crate) unknown: Fixed,
    /// What stands in the overflow series.
    pub(crate) other: Fixed,
    scratch: String,
}

/// One value in every label, each group once.
#[derive(Clone, Debug)]
pub(crate) struct Fixed {
    pub(crate) source: Fragment,
    pub(crate) destination: Fragment,
    pub(crate) pod: Fragment,
    pub(crate) service: Fragment,
}

impl Fixed {
    fn new(fragments: &mut Fragments, value: &str) -> Self {
        let mut render = |write: &dyn Fn(&mut String)| {
            let mut text = String::new();
            write(&mut text);
            fragments.intern(&text)
        };
        Self {
            source: render(&|out| WorkloadLabels::all(value).render(Side::Source, out)),
            destination: render(&|out| WorkloadLabels::all(value).render(Side::Destination, out)),
            pod: render(&|out| PodLabels::all(value).render(out)),
            service: render(&|out| ServiceLabels::all(value).render(out)),
        }
    }
}

impl LabelCache {
    /// Makes an empty cache; `cluster_id` is the cluster of workloads that name none.
    pub fn new(cluster_id: Str) -> Self {
        let mut fragments = Fragments::default();
        Self {
            cluster_id,
            sources: Kind::default(),
            destinations: Kind::default(),
            pods: Kind::default(),
            services: Kind::default(),
            unknown: Fixed::new(&mut fragments, ""),
            other: Fixed::new(&mut fragments, "other"),
            fragments,
            scratch: String::new(),
        }
    }

    /// Returns the fragment of a text that was rendered before this process began.
    pub(crate) fn fragment(&mut self, text: &str) -> Fragment {
        self.fragments.intern(text)
    }

    /// Returns the `source_*` labels of a workload.
    pub fn source(&mut self, workload: Option<&Held<Workload>>) -> Fragment {
        let Some(workload) = workload else { return self.unknown.source.clone() };
        self.sources.get_or_render(workload.serial, &mut self.scratch, &mut self.fragments, |out| {
            WorkloadLabels::of(workload, &workload.principal(), &self.cluster_id).render(Side::Source, out);
        })
    }

    /// Returns the eight `destination_*` labels of a workload.
    pub fn destination(&mut self, workload: Option<&Held<Workload>>) -> Fragment {
        let Some(workload) = workload else { return self.unknown.destination.clone() };
        self.destinations.get_or_render(workload.serial, &mut self.scratch, &mut self.fragments, |out| {
            WorkloadLabels::of(workload, &workload.principal(), &self.cluster_id).render(Side::Destination, out);
        })
    }

    /// Returns the `destination_pod_*` labels of a workload reached at an address.
    pub fn pod(&mut self, workload: Option<&Held<Workload>>, address: IpAddr) -> Fragment {
        let Some(workload) = workload else { return self.unknown.pod.clone() };
        self.pods.get_or_render((workload.serial, address), &mut self.scratch, &mut self.fragments, |out| {
            PodLabels { address: &shown(address), namespace: &workload.namespace, name: &workload.name }.render(out);
        })
    }

    /// Returns the `destination_service*` labels of a service.
    pub fn service(&mut self, service: Option<&Held<Service>>) -> Fragment {
        let Some(service) = service else { return self.unknown.service.clone() };
        self.services.get_or_render(service.serial, &mut self.scratch, &mut self.fragments, |out| {
            ServiceLabels::of(service).render(out);
        })
    }

    /// Forgets what nobody asked for since the last sweep, and the fragments that nobody holds.
    pub fn sweep(&mut self) {
        self.sources.sweep();
        self.destinations.sweep();
        self.pods.sweep();
        self.services.sweep();
        self.fragments.sweep();
    }

    /// Returns how many fragments are in use.
    pub fn fragments(&self) -> usize {
        self.fragments.len()
    }
}

/// Fragments of one kind, each with whether it was asked for since the last sweep.
#[derive(Debug)]
struct Kind<K> {
    entries: FxHashMap<K, (Fragment, bool)>,
}

impl<K> Default for Kind<K> {
    fn default() -> Self {
        Self { entries: FxHashMap::default() }
    }
}

impl<K: Eq + Hash> Kind<K> {
    fn get_or_render(
        &mut self,
        key: K,
        scratch: &mut String,
        fragments: &mut Fragments,
        render: impl FnOnce(&mut String),
    ) -> Fragment {
        if let Some((fragment, asked)) = self.entries.get_mut(&key) {
            *asked = true;
            return fragment.clone();
        }
        if self.entries.len() >= MOST {
            self.entries.clear();
        }
        scratch.clear();
        render(scratch);
        let fragment = fragments.intern(scratch);
        self.entries.insert(key, (fragment.clone(), true));
        fragment
    }

    fn sweep(&mut self) {
        self.entries.retain(|_, (_, asked)| std::mem::take(asked));
        if self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to_fit();
        }
    }
}
