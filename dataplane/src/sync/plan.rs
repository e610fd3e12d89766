//! What the steering maps should hold, and the steps from what they hold to that.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, SocketAddr},
};

use cache::{Change, Health, Service, Snapshot, Str, Workload};
use rustc_hash::{FxHashMap, FxHashSet};

/// One change of the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A service address and port goes to these endpoints; none refuses the connect.
    Set(SocketAddr, Vec<SocketAddr>),
    /// A service address and port is not steered any more.
    Remove(SocketAddr),
}

/// What was programmed, by virtual address; an address has one service at a time.
#[derive(Debug)]
pub(super) struct Plan {
    network: Str,
    fingerprints: RandomState,
    addresses: FxHashMap<IpAddr, Programmed>,
    /// The addresses that a service holds in the plan.
    services: FxHashMap<Str, Vec<IpAddr>>,
    /// Service addresses and ports in the plan.
    ports: usize,
}

#[derive(Debug)]
struct Programmed {
    service: Str,
    /// Port, and a fingerprint of the endpoints.
    ports: Box<[(u16, u64)]>,
}

impl Plan {
    /// Makes an empty plan for a node of this network.
    pub(super) fn new(network: Str) -> Self {
        let (addresses, services) = (FxHashMap::default(), FxHashMap::default());
        Self { network, fingerprints: RandomState::new(), addresses, services, ports: 0 }
    }

    /// Returns how many service addresses and ports are planned.
    pub(super) fn len(&self) -> usize {
        self.ports
    }

    /// Returns the steps that bring what was planned before to a changed mesh, in no order that matters.
    pub(super) fn steps(&mut self, mesh: &Snapshot, change: &Change) -> Vec<Step> {
        let mut addresses = FxHashSet::default();
        if change.full {
            addresses.extend(self.addresses.keys());
            addresses.extend(mesh.services().flat_map(|service| self.addresses_of(service)));
        } else {
            for key in &change.services {
                addresses.extend(self.services.get(key).into_iter().flatten());
                addresses.extend(mesh.service(key).into_iter().flat_map(|service| self.addresses_of(service)));
            }
        }
        let mut steps = Vec::new();
        for address in addresses {
            self.address(mesh, address, &mut steps);
        }
        steps
    }

    /// Plans the endpoints of one service address and port anew: what was programmed was not taken.
    pub(super) fn endpoints(&self, mesh: &Snapshot, address: SocketAddr) -> Option<Vec<SocketAddr>> {
        let service = mesh.service_at(&self.network, address.ip()).filter(|service| steered(service))?;
        let (_, target) = *service.ports.iter().find(|(port, _)| *port == address.port())?;
        Some(self.reachable(mesh, service, address, target))
    }

    fn address(&mut self, mesh: &Snapshot, address: IpAddr, steps: &mut Vec<Step>) {
        let service = mesh.service_at(&self.network, address).filter(|service| steered(service));
        let old = self.addresses.remove(&address);
        let old_ports: BTreeMap<u16, u64> = old.iter().flat_map(|old| old.ports.iter().copied()).collect();
        let mut ports = Vec::new();
        self.ports -= old_ports.len();
        for &(port, target) in service.iter().flat_map(|service| service.ports.iter()) {
            if ports.iter().any(|(known, _)| *known == port) {
                continue;
            }
            let vip = SocketAddr::new(address, port);
            let endpoints = service.map(|service| self.reachable(mesh, service, vip, target)).unwrap_or_default();
            let fingerprint = self.fingerprints.hash_one(&endpoints);
            if old_ports.get(&port) != Some(&fingerprint) {
                steps.push(Step::Set(vip, endpoints));
            }
            ports.push((port, fingerprint));
        }
        let gone = old_ports.keys().filter(|old| !ports.iter().any(|(port, _)| port == *old));
        steps.extend(gone.map(|port| Step::Remove(SocketAddr::new(address, *port))));

        let owner = service.map(|service| service.key());
        if let Some(old) = old.filter(|old| owner.as_ref() != Some(&old.service)) {
            self.forget(&old.service, address);
        }
        if let Some(service) = owner {
            let held = self.services.entry(service.clone()).or_default();
            if !held.contains(&address) {
                held.push(address);
            }
            self.ports += ports.len();
            self.addresses.insert(address, Programmed { service, ports: ports.into() });
        }
    }

    fn forget(&mut self, service: &Str, address: IpAddr) {
        if let Some(held) = self.services.get_mut(service) {
            held.retain(|other| *other != address);
            if held.is_empty() {
                self.services.remove(service);
            }
        }
    }

    /// The virtual addresses that this node's look-ups may find: of its own network and of the empty one.
    fn addresses_of<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = IpAddr> + 'a {
        service.vips.iter().filter(|(network, _)| self.is_near(network)).map(|(_, address)| *address)
    }

    fn is_near(&self, network: &str) -> bool {
        network.is_empty() || network == self.network.as_str()
    }

    /// The endpoints of one service port, sorted: healthy (unless the service allows all), near, of the same address
    /// family. A workload's own target port wins over the service's; without either it is left out.
    fn reachable(&self, mesh: &Snapshot, service: &Service, vip: SocketAddr, target: u16) -> Vec<SocketAddr> {
        let key = service.key();
        let any = service.load_balancing.as_ref().is_some_and(|lb| lb.allow_unhealthy);
        let endpoint = |workload: &Workload| {
            let address = workload.addresses.iter().find(|a| a.is_ipv4() == vip.is_ipv4())?;
            let own = workload.services.iter().find(|(name, _)| *name == key);
            let own = own.and_then(|(_, ports)| ports.iter().find(|(port, _)| *port == vip.port()));
            let target = own.map(|(_, target)| *target).filter(|target| *target != 0).unwrap_or(target);
            (target != 0).then(|| SocketAddr::new(*address, target))
        };
        let usable = mesh.endpoints(&key).filter(|w| (any || w.status == Health::Healthy) && self.is_near(&w.network));
        let mut endpoints: Vec<_> = usable.filter_map(|workload| endpoint(workload)).collect();
        endpoints.sort_unstable();
        endpoints.dedup();
        endpoints
    }
}

/// A service that passes connections through keeps the address that was dialled.
fn steered(service: &Service) -> bool {
    service.load_balancing.as_ref().is_none_or(|lb| lb.mode.as_str() != "PASSTHROUGH")
}

#[cfg(test)]
mod tests;
