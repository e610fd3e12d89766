//! Who the two ends of a connection are, and which service was meant.

mod node;
#[cfg(test)]
mod tests;

use std::{net::IpAddr, sync::Arc};

use abi::{Direction, Record};
use cache::{Held, Service, Snapshot, Workload};

pub use node::NodeAddresses;

/// The names of a connection, taken once, when it is first seen, and kept as long as it lives.
#[derive(Clone, Debug, Default)]
pub struct Attribution {
    /// Who opened it; `None` outside the mesh.
    pub source: Option<Arc<Held<Workload>>>,
    /// Who accepted it, after steering; `None` outside the mesh, and while the socket still has the service address.
    pub destination: Option<Arc<Held<Workload>>>,
    /// The service that was dialled, or that the accepting pod's port belongs to.
    pub service: Option<Arc<Held<Service>>>,
}

/// Why a connection is not reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ignored {
    /// Both ends are loopback addresses: a pod talks to itself.
    Loopback,
    /// A pod accepted it from its own node: a probe.
    Node,
}

/// Tells whether a connection is one of those that are not reported.
pub fn ignored(record: &Record, direction: Direction, node: &NodeAddresses, include_node: bool) -> Option<Ignored> {
    let (local, remote) = (record.local.ip(), record.remote.ip());
    if local.is_loopback() && remote.is_loopback() {
        return Some(Ignored::Loopback);
    }
    (direction == Direction::Inbound && !include_node && node.contains(remote)).then_some(Ignored::Node)
}

/// Names the ends of a connection by what the mesh is at this moment; `network` is the node's.
pub fn attribute(record: &Record, direction: Direction, mesh: &Snapshot, network: &str) -> Attribution {
    let at = |address: IpAddr| mesh.workload_at(network, address).cloned();
    let (local, remote) = (record.local.ip(), record.remote.ip());
    if direction == Direction::Inbound {
        let destination = at(local);
        let service = destination.as_ref().and_then(|w| service_of_port(mesh, w, record.local.port()));
        return Attribution { source: at(remote), service: service.cloned(), destination };
    }
    let source = at(local);
    if !record.original.is_none() {
        return Attribution { source, ..steered(record, mesh, network) };
    }
    if let Some(service) = mesh.service_at(network, remote) {
        return Attribution { source, service: Some(service.clone()), ..Attribution::default() };
    }
    let destination = at(remote);
    let service = destination.as_ref().and_then(|w| service_of_port(mesh, w, record.remote.port()));
    Attribution { source, service: service.cloned(), destination }
}

/// Names what was dialled and who was reached where steering changed the destination.
fn steered(record: &Record, mesh: &Snapshot, network: &str) -> Attribution {
    let destination = mesh.workload_at(network, record.remote.ip()).cloned();
    let dialled = record.original.ip();
    if let Some(service) = mesh.service_at(network, dialled) {
        return Attribution { source: None, service: Some(service.clone()), destination };
    }
    let Some(pod) = mesh.workload_at(network, dialled) else {
        return Attribution { destination, ..Attribution::default() };
    };
    let service = service_of_port(mesh, pod, record.original.port()).cloned();
    Attribution { source: None, service, destination }
}

/// Finds the service that a pod's port belongs to: by endpoint port, then by target port; of several the one in the pod's
/// own namespace, then one with a virtual address, then the smallest `namespace/hostname`. Where no port matches, the pod's
/// only service if that is headless.
fn service_of_port<'a>(mesh: &'a Snapshot, pod: &Workload, port: u16) -> Option<&'a Arc<Held<Service>>> {
    let best = |candidates: &mut dyn Iterator<Item = (&str, &'a Arc<Held<Service>>)>| {
        candidates.min_by_key(|(key, s)| (s.namespace != pod.namespace, s.vips.is_empty(), key.to_owned())).map(|c| c.1)
    };
    let to_port = |ports: &[(u16, u16)]| ports.iter().any(|p| p.1 == port);
    let named = |key: &'_ cache::Str| mesh.service(key);
    let by_endpoint =
        &mut pod.services.iter().filter(|s| to_port(&s.1)).filter_map(|s| Some((s.0.as_str(), named(&s.0)?)));
    if let Some(service) = best(by_endpoint) {
        return Some(service);
    }
    let by_target =
        &mut pod.services.iter().filter_map(|s| Some((s.0.as_str(), named(&s.0)?))).filter(|s| to_port(&s.1.ports));
    if let Some(service) = best(by_target) {
        return Some(service);
    }
    match &*pod.services {
        [(only, _)] => named(only).filter(|s| s.vips.is_empty()),
        _ => None,
    }
}
