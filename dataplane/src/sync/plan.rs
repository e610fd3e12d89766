//! What the steering maps should hold, and the steps from what they hold to that.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, SocketAddr},
};

use cache::{Change, Service, Snapshot, Str};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    route::{self, Holder, holder},
    site::Site,
    waypoint::{Cause, Waypoint},
};
use crate::kernel::{Dialled, Target};

/// One change of the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// What is dialled goes there.
    Set(Dialled, Target),
    /// What is dialled is not steered any more.
    Remove(Dialled),
}

/// What was programmed, by address; an address has one holder at a time.
#[derive(Debug)]
pub(super) struct Plan {
    site: Site,
    fingerprints: RandomState,
    addresses: FxHashMap<IpAddr, Programmed>,
    /// The addresses that a service or workload holds in the plan.
    holders: FxHashMap<Str, Vec<IpAddr>>,
    /// Addresses whose plan depends on something else than their holder.
    depend: FxHashMap<Cause, FxHashSet<IpAddr>>,
    /// Addresses of this node's workloads that are a waypoint's endpoints, by the waypoint's number.
    own: FxHashMap<u32, Vec<IpAddr>>,
    /// Entries in the plan.
    entries: usize,
    /// Addresses in it that a service and a workload have.
    contested: usize,
}

#[derive(Debug)]
struct Programmed {
    /// A service's name or a workload's uid.
    holder: Str,
    /// What is dialled, as port and whether past the waypoint, and a fingerprint of where that goes.
    ports: Box<[((u16, bool), u64)]>,
    causes: Box<[Cause]>,
    /// A service has it too.
    both: bool,
}

/// What an address should have.
#[derive(Default)]
struct Wanted {
    holder: Option<Str>,
    ports: BTreeMap<(u16, bool), Target>,
    causes: Vec<Cause>,
    both: bool,
}

impl Plan {
    /// Makes an empty plan for a node.
    pub(super) fn new(site: Site) -> Self {
        Self {
            site,
            fingerprints: RandomState::new(),
            addresses: FxHashMap::default(),
            holders: FxHashMap::default(),
            depend: FxHashMap::default(),
            own: FxHashMap::default(),
            entries: 0,
            contested: 0,
        }
    }

    /// Returns how many entries are planned.
    pub(super) fn len(&self) -> usize {
        self.entries
    }

    /// Returns where this node is.
    pub(super) fn site(&self) -> &Site {
        &self.site
    }

    /// Returns the waypoints of which this node has endpoints, with their addresses.
    pub(super) fn own_waypoints(&self) -> &FxHashMap<u32, Vec<IpAddr>> {
        &self.own
    }

    /// Counts the addresses of services that workloads have too.
    pub(super) fn contested(&self) -> usize {
        self.contested
    }

    /// Tells whether something is planned.
    pub(super) fn has(&self, dialled: Dialled) -> bool {
        let key = (dialled.address.port(), dialled.direct);
        self.addresses.get(&dialled.address.ip()).is_some_and(|a| a.ports.iter().any(|(port, _)| *port == key))
    }

    /// Returns the steps that bring what was planned before to a changed mesh, in no order that matters.
    pub(super) fn steps(&mut self, mesh: &Snapshot, change: &Change) -> Vec<Step> {
        // Everything may have another rank from a node that is elsewhere.
        let moved = self.site.follow(mesh, change);
        let mut addresses = FxHashSet::default();
        if change.full || moved {
            self.own.clear();
            addresses.extend(self.addresses.keys());
            addresses.extend(mesh.services().flat_map(|service| self.addresses_of(service)));
            addresses.extend(mesh.workloads_behind_waypoints().flat_map(|w| w.addresses.iter().copied()));
        } else {
            self.affected(mesh, change, &mut addresses);
        }
        let mut steps = Vec::new();
        for address in addresses {
            self.address(mesh, address, &mut steps);
        }
        steps
    }

    /// Plans one entry anew: what was programmed was not taken.
    pub(super) fn target(&self, mesh: &Snapshot, dialled: Dialled) -> Option<Target> {
        let key = (dialled.address.port(), dialled.direct);
        self.has(dialled).then(|| self.wanted(mesh, dialled.address.ip(), &mut Vec::new()).ports.remove(&key))?
    }

    /// Finds the addresses that a change may have changed the plan of.
    fn affected(&self, mesh: &Snapshot, change: &Change, addresses: &mut FxHashSet<IpAddr>) {
        let depend = |cause: Cause| self.depend.get(&cause).into_iter().flatten();
        for key in &change.services {
            addresses.extend(self.holders.get(key).into_iter().flatten());
            addresses.extend(depend(Cause::Service(key.clone())));
            for address in mesh.service(key).into_iter().flat_map(|service| self.addresses_of(service)) {
                addresses.insert(address);
                addresses.extend(depend(Cause::Address(address)));
            }
        }
        for uid in &change.workloads {
            addresses.extend(self.holders.get(uid).into_iter().flatten());
            addresses.extend(depend(Cause::Workload(uid.clone())));
            let Some(workload) = mesh.workload(uid) else { continue };
            for address in &workload.addresses {
                addresses.extend(depend(Cause::Address(*address)));
                if workload.waypoint().is_some() || self.addresses.contains_key(address) {
                    addresses.insert(*address);
                }
            }
        }
    }

    fn address(&mut self, mesh: &Snapshot, address: IpAddr, steps: &mut Vec<Step>) {
        let mut own = Vec::new();
        let wanted = self.wanted(mesh, address, &mut own);
        for (number, addresses) in own {
            match addresses.is_empty() {
                true => self.own.remove(&number),
                false => self.own.insert(number, addresses),
            };
        }
        let old = self.addresses.remove(&address);
        let old_ports: BTreeMap<_, u64> = old.iter().flat_map(|old| old.ports.iter().copied()).collect();
        self.entries -= old_ports.len();
        let dialled = |(port, direct)| Dialled { address: SocketAddr::new(address, port), direct };
        let gone = old_ports.keys().filter(|old| !wanted.ports.contains_key(old));
        steps.extend(gone.map(|port| Step::Remove(dialled(*port))));
        let mut ports = Vec::with_capacity(wanted.ports.len());
        for (port, target) in wanted.ports {
            let fingerprint = self.fingerprints.hash_one(&target);
            if old_ports.get(&port) != Some(&fingerprint) {
                steps.push(Step::Set(dialled(port), target));
            }
            ports.push((port, fingerprint));
        }

        if let Some(old) = &old {
            self.forget(old, address);
        }
        let Some(holder) = wanted.holder else { return };
        if wanted.both && old.is_none_or(|old| !old.both) {
            tracing::warn!(%address, service = %holder, "a workload has the service's address: the service is not steered there");
        }
        self.holders.entry(holder.clone()).or_default().push(address);
        for cause in &wanted.causes {
            self.depend.entry(cause.clone()).or_default().insert(address);
        }
        self.entries += ports.len();
        self.contested += usize::from(wanted.both);
        let (ports, causes) = (ports.into(), wanted.causes.into());
        self.addresses.insert(address, Programmed { holder, ports, causes, both: wanted.both });
    }

    /// What an address should have; `own` is told which waypoints were met, with their endpoints on this node.
    fn wanted(&self, mesh: &Snapshot, address: IpAddr, own: &mut Vec<(u32, Vec<IpAddr>)>) -> Wanted {
        let mut wanted = Wanted::default();
        let workload = match holder(&self.site, mesh, address) {
            None => return wanted,
            Some(Holder::Service(service)) => {
                let waypoint = route::waypoint_of_service(&self.site, mesh, service, address);
                wanted.holder = Some(service.key());
                wanted.ports = self.ports(mesh, service, address, waypoint.as_ref());
                self.met(waypoint, &mut wanted, own);
                return wanted;
            }
            Some(Holder::Workload(workload)) => {
                wanted.holder = workload.waypoint().is_some().then(|| workload.uid.clone());
                workload
            }
            Some(Holder::Both(service, workload)) => {
                wanted.holder = Some(service.key());
                wanted.both = true;
                wanted.causes.push(Cause::Workload(workload.uid.clone()));
                workload
            }
        };
        let waypoint = route::waypoint_of_workload(&self.site, mesh, workload, address);
        wanted.ports.extend(waypoint.as_ref().map(|waypoint| ((0, false), route::through(waypoint))));
        self.met(waypoint, &mut wanted, own);
        wanted
    }

    fn ports(
        &self,
        mesh: &Snapshot,
        service: &Service,
        address: IpAddr,
        waypoint: Option<&Waypoint>,
    ) -> BTreeMap<(u16, bool), Target> {
        let mut ports = BTreeMap::new();
        // A port that is declared twice is what it was declared to be first.
        for &(port, target) in service.ports.iter().rev() {
            let plan = |waypoint| {
                route::service_port(&self.site, mesh, service, SocketAddr::new(address, port), target, waypoint)
            };
            // The waypoint's own namespaces go past it, if any is here.
            let direct = waypoint.filter(|waypoint| !waypoint.own.is_empty()).and_then(|_| plan(None));
            for (key, target) in [((port, false), plan(waypoint)), ((port, true), direct)] {
                match target {
                    Some(target) => drop(ports.insert(key, target)),
                    None => drop(ports.remove(&key)),
                }
            }
        }
        ports
    }

    fn met(&self, waypoint: Option<Waypoint>, wanted: &mut Wanted, own: &mut Vec<(u32, Vec<IpAddr>)>) {
        let Some(waypoint) = waypoint else { return };
        wanted.causes.extend(waypoint.causes);
        own.push((waypoint.number, waypoint.own));
    }

    fn forget(&mut self, old: &Programmed, address: IpAddr) {
        self.contested -= usize::from(old.both);
        if let Some(held) = self.holders.get_mut(&old.holder) {
            held.retain(|other| *other != address);
            if held.is_empty() {
                self.holders.remove(&old.holder);
            }
        }
        for cause in &old.causes {
            if let Some(addresses) = self.depend.get_mut(cause) {
                addresses.remove(&address);
                if addresses.is_empty() {
                    self.depend.remove(cause);
                }
            }
        }
    }

    /// The virtual addresses that this node's look-ups may find: of its own network and of the empty one.
    fn addresses_of<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = IpAddr> + 'a {
        service.vips.iter().filter(|(network, _)| self.site.is_near(network)).map(|(_, address)| *address)
    }
}

#[cfg(test)]
mod tests;
