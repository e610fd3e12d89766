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
    session::response::{Before, Rejection, Resources, Response},
    status::{Kind, Status},
    versions::Versions,
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
    /// What the next response of workloads and services is.
    addresses: Awaited,
    /// The next response of policies is all there is.
    all_policies: bool,
    /// This stream's first request had versions.
    versions_sent: bool,
    /// The versions were refused as too long, so the next stream asks for everything.
    versions_refused: bool,
    response: Response,
}

/// What the next response of workloads and services is.
#[derive(Debug, PartialEq, Eq)]
enum Awaited {
    /// The first state.
    First,
    /// What differs from the versions that were sent. These names are held but none of them was sent, so they come or are gone.
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
            addresses: Awaited::First,
            all_policies: true,
            versions_sent: false,
            versions_refused: false,
            response: Response::default(),
        }
    }

    /// Begins a stream: returns its first requests. What an earlier stream left unfinished is forgotten.
    pub(crate) fn begin(&mut self, identity: &Identity) -> [DeltaDiscoveryRequest; 2] {
        self.response = Response::default();
        self.all_policies = true;
        let limit = if std::mem::take(&mut self.versions_refused) { 0 } else { LARGEST_REQUEST - REQUEST_RESERVE };
        let (initial_resource_versions, unsent) = self.versions.initial(limit);
        self.versions_sent = !initial_resource_versions.is_empty();
        if self.addresses != Awaited::First {
            self.addresses = Awaited::Difference(unsent);
        }
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
        self.versions_refused = self.versions_sent && !self.is_current();
    }

    /// Tells whether the stream has brought the workloads and services, or said how they differ from what is held.
    pub(crate) fn is_current(&self) -> bool {
        self.addresses == Awaited::Change
    }

    /// Takes one field of a response.
    pub(crate) fn field(&mut self, number: u32, content: Bytes) {
        let before = Before { versions: &self.versions, snapshot: &self.cache.load() };
        self.response.field(number, content, before, &mut self.cache.interner());
    }

    /// Takes the end of a response, which came at `received`: applies it and returns the request that acknowledges it.
    pub(crate) fn finish(&mut self, bytes: usize, received: Instant) -> DeltaDiscoveryRequest {
        let response = std::mem::take(&mut self.response);
        let type_url = response.type_url.clone();
        let response_nonce = response.nonce.clone();
        let kind = Kind::of(&type_url);
        let resources = response.into_resources(kind);
        let (count, removed, rejected) = (resources.count, resources.removed.len(), resources.rejected.len());
        self.status.message(kind, bytes, count, removed, rejected);
        let error_detail = resources.complaint().map(|message| {
            self.status.nack(kind);
            Detail { code: tonic::Code::InvalidArgument.into(), message, details: Vec::new() }
        });
        let changed = match kind {
            Kind::Address => self.apply_addresses(resources, received),
            Kind::Authorization => self.apply_policies(resources),
            Kind::Other => false,
        };
        if changed {
            self.status.applied(received);
        }
        DeltaDiscoveryRequest { type_url, response_nonce, error_detail, ..DeltaDiscoveryRequest::default() }
    }

    fn apply_addresses(&mut self, mut resources: Resources, received: Instant) -> bool {
        match std::mem::replace(&mut self.addresses, Awaited::Change) {
            Awaited::First => {
                let (workloads, services) =
                    (std::mem::take(&mut resources.workloads), std::mem::take(&mut resources.services));
                let changed = self.cache.replace_received(workloads, services, Some(received));
                self.status.synced();
                self.change(resources, Vec::new(), received) || changed
            }
            Awaited::Difference(unsent) => self.change(resources, unsent, received),
            Awaited::Change => self.change(resources, Vec::new(), received),
        }
    }

    /// Applies a response to what is held; of the names in `unsent`, those that it does not mention are gone.
    fn change(&mut self, resources: Resources, unsent: Vec<Str>, received: Instant) -> bool {
        let Resources { workloads, services, versions, rejected, removed, .. } = resources;
        let mut gone = unsent;
        if !gone.is_empty() {
            let rejected: FxHashSet<_> = rejected.iter().map(|rejection| &rejection.name).collect();
            gone.retain(|name| versions.name(name).is_none() && !rejected.contains(name));
        }
        self.versions.take(versions);
        for rejection in &rejected {
            self.versions.set_stale(&rejection.name);
        }
        gone.extend(removed.iter().filter_map(|name| self.versions.name(name).cloned()));
        gone.iter().for_each(|name| self.versions.remove(name));
        let received = Some(received);
        self.cache.apply(Delta { workloads, services, removed: gone, received, ..Delta::default() })
    }

    fn apply_policies(&mut self, resources: Resources) -> bool {
        let Resources { policies, removed, rejected, .. } = resources;
        let removed = removed.iter().map(|name| Str::from(name.as_str()));
        if !std::mem::take(&mut self.all_policies) {
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

#[cfg(test)]
mod tests;
