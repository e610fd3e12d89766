//! What is said to the control plane and what is made of what it says, apart from how it gets there and back.
//!
//! A session outlives its streams: it knows what is held, so that a new stream asks only for what differs.

mod response;

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use bytes::Bytes;
use cache::{Cache, Delta, Str};
use rustc_hash::FxHashSet;

use crate::{
    node::Identity,
    proto::discovery::{DeltaDiscoveryRequest, Status as Detail},
    session::response::{Rejection, Resources, Response},
    status::{Kind, Status},
    versions::{Version, Versions},
};

/// Workloads and services.
pub(crate) const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
/// Authorization policies.
pub(crate) const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";

/// The most bytes istiod takes in one request, as gRPC's default has it.
const LARGEST_REQUEST: usize = 4 << 20;
/// Of these, what is kept free for all but the versions.
const REQUEST_RESERVE: usize = 64 << 10;

/// The state of the conversation.
#[derive(Debug)]
pub(crate) struct Session {
    cache: Arc<Cache>,
    status: Arc<Status>,
    versions: Versions,
    /// What the first response of this stream will be.
    addresses: Awaited,
    policies: Awaited,
    /// The versions were refused as too long, so the next stream asks for everything.
    versions_refused: bool,
    response: Response,
}

/// What the next response of a type is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Awaited {
    /// Everything there is.
    Everything,
    /// What differs from the versions that were sent; of these names none was sent, so they come or are gone.
    Difference(Vec<Str>),
    /// What has changed since the last one.
    Change,
}

impl Session {
    pub(crate) fn new(cache: Arc<Cache>, status: Arc<Status>) -> Self {
        Self {
            cache,
            status,
            versions: Versions::default(),
            addresses: Awaited::Everything,
            policies: Awaited::Everything,
            versions_refused: false,
            response: Response::default(),
        }
    }

    /// Begins a stream: returns its first requests. What an earlier stream left unfinished is forgotten.
    pub(crate) fn begin(&mut self, identity: &Identity) -> [DeltaDiscoveryRequest; 2] {
        self.response = Response::default();
        self.policies = Awaited::Everything;
        let limit = if std::mem::take(&mut self.versions_refused) { 0 } else { LARGEST_REQUEST - REQUEST_RESERVE };
        let initial_resource_versions = self.versions.initial(limit).unwrap_or_default();
        self.addresses = match initial_resource_versions.is_empty() {
            true => Awaited::Everything,
            false => Awaited::Difference(self.versions.stale()),
        };
        let node = Some(identity.message());
        let addresses = DeltaDiscoveryRequest {
            node,
            type_url: ADDRESS.to_owned(),
            initial_resource_versions,
            ..DeltaDiscoveryRequest::default()
        };
        let policies = DeltaDiscoveryRequest { type_url: AUTHORIZATION.to_owned(), ..DeltaDiscoveryRequest::default() };
        [addresses, policies]
    }

    /// Notes that the first request was too long for the server: the next stream sends no versions.
    pub(crate) fn request_refused(&mut self) {
        self.versions_refused = matches!(self.addresses, Awaited::Difference(_));
    }

    /// Tells whether the stream has brought the workloads and services, or said how they differ from what is held.
    pub(crate) fn is_current(&self) -> bool {
        self.addresses == Awaited::Change
    }

    /// Takes one field of a response.
    pub(crate) fn field(&mut self, number: u32, content: Bytes) {
        self.response.field(number, content, &self.versions, &mut self.cache.interner());
    }

    /// Takes the end of a response, which came at `received`: applies it and returns the request that acknowledges it.
    pub(crate) fn finish(&mut self, bytes: usize, received: Instant) -> DeltaDiscoveryRequest {
        let response = std::mem::take(&mut self.response);
        let type_url = response.type_url.clone();
        let response_nonce = response.nonce.clone();
        let kind = Kind::of(&type_url);
        let resources = response.into_resources(kind);
        let (count, removed, rejected) = (resources.count(), resources.removed.len(), resources.rejected.len());
        self.status.message(kind, bytes, count, removed, rejected);
        let error_detail = resources.complaint().map(|message| {
            self.status.nack(kind);
            Detail { code: tonic::Code::InvalidArgument.into(), message, details: Vec::new() }
        });
        let changed = match kind {
            Kind::Address => self.apply_addresses(resources),
            Kind::Authorization => self.apply_policies(resources),
            Kind::Other => false,
        };
        if changed {
            self.status.applied(received);
        }
        DeltaDiscoveryRequest { type_url, response_nonce, error_detail, ..DeltaDiscoveryRequest::default() }
    }

    fn apply_addresses(&mut self, resources: Resources) -> bool {
        match std::mem::replace(&mut self.addresses, Awaited::Change) {
            Awaited::Everything => self.replace(resources),
            Awaited::Difference(unsent) => self.change(resources, unsent),
            Awaited::Change => self.change(resources, Vec::new()),
        }
    }

    /// Makes a response all there is.
    fn replace(&mut self, resources: Resources) -> bool {
        let Resources { mut workloads, mut services, versions, rejected, removed, .. } = resources;
        self.versions = versions.into_iter().collect();
        // What was held under a rejected name stays until something usable comes.
        let before = self.cache.load();
        for Rejection { name, .. } in rejected {
            if self.versions.set_stale(&name) {
                continue;
            }
            match (before.workload(&name), before.service(&name)) {
                (Some(workload), _) => workloads.push(workload.value.clone()),
                (None, Some(service)) => services.push(service.value.clone()),
                (None, None) => continue,
            }
            self.versions.set(name, Version::Stale);
        }
        drop(before);
        if !removed.is_empty() {
            let removed: FxHashSet<&str> = removed.iter().map(String::as_str).collect();
            removed.iter().for_each(|name| self.versions.remove(name));
            workloads.retain(|workload| !removed.contains(&*workload.uid));
            services.retain(|service| !removed.contains(&*service.key()));
        }
        let changed = self.cache.replace(workloads, services);
        self.status.synced();
        changed
    }

    /// Applies a response to what is held; of the names in `unsent`, those that it does not mention are gone.
    fn change(&mut self, resources: Resources, unsent: Vec<Str>) -> bool {
        let Resources { workloads, services, versions, rejected, removed, .. } = resources;
        let mut gone = unsent;
        if !gone.is_empty() {
            let came = versions.iter().map(|(name, _)| name).chain(rejected.iter().map(|rejection| &rejection.name));
            let came: FxHashSet<_> = came.collect();
            gone.retain(|name| !came.contains(name));
        }
        for (name, version) in versions {
            self.versions.set(name, version);
        }
        for rejection in &rejected {
            self.versions.set_stale(&rejection.name);
        }
        gone.extend(removed.iter().filter_map(|name| self.versions.name(name).cloned()));
        gone.iter().for_each(|name| self.versions.remove(name));
        self.cache.apply(Delta { workloads, services, removed: gone, ..Delta::default() })
    }

    fn apply_policies(&mut self, resources: Resources) -> bool {
        let Resources { policies, removed, rejected, .. } = resources;
        let removed = removed.iter().map(|name| Str::from(name.as_str()));
        if std::mem::replace(&mut self.policies, Awaited::Change) == Awaited::Change {
            return self.cache.apply(Delta { policies, removed_policies: removed.collect(), ..Delta::default() });
        }
        let before = self.cache.load();
        let held =
            |rejection: Rejection| Some((rejection.name.clone(), (**before.policies().get(&rejection.name)?).clone()));
        let mut all: BTreeMap<_, _> = rejected.into_iter().filter_map(held).chain(policies).collect();
        removed.for_each(|name| drop(all.remove(&name)));
        self.cache.replace_policies(all)
    }
}
