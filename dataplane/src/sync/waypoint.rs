//! Where the waypoint before a service or workload is reached.

use std::{
    hash::{Hash as _, Hasher as _},
    net::{IpAddr, SocketAddr},
};

use cache::{
    Health, Service, Snapshot, Str,
    model::{Gateway, GatewayDestination},
};
use rustc_hash::FxHasher;

use super::{
    balance::{self, Port, candidates},
    site::Site,
};

/// The port of waypoints that name none.
const HBONE: u16 = 15008;

/// What, when it changes, may change a plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Cause {
    /// The service of this name, or an endpoint of it.
    Service(Str),
    /// The workload of this uid.
    Workload(Str),
    /// Who has this address.
    Address(IpAddr),
}

/// A waypoint as it is dialled from here.
#[derive(Debug, Default)]
pub(super) struct Waypoint {
    /// Its number, the same for as long as it has its name or address.
    pub(super) number: u32,
    /// Where it is reached, with weights.
    pub(super) endpoints: Vec<(SocketAddr, u32)>,
    /// What this depends on.
    pub(super) causes: Vec<Cause>,
    /// The addresses of all its endpoints.
    pub(super) addresses: Vec<IpAddr>,
    /// The addresses of those on this node.
    pub(super) own: Vec<IpAddr>,
}

impl Waypoint {
    /// Finds a waypoint: by name or address it is a service, which spreads connections as it says, or else by address a workload.
    pub(super) fn find(site: &Site, mesh: &Snapshot, gateway: &Gateway, v4: bool) -> Self {
        let port = if gateway.hbone_mtls_port == 0 { HBONE } else { gateway.hbone_mtls_port };
        let mut found = Self { number: number(&gateway.destination), ..Self::default() };
        match &gateway.destination {
            GatewayDestination::Hostname(key) => {
                found.causes.push(Cause::Service(key.clone()));
                if let Some(service) = mesh.service(key) {
                    found.behind(site, mesh, service, port, v4);
                }
            }
            GatewayDestination::Address(network, address) => {
                found.causes.push(Cause::Address(*address));
                let address = address.to_canonical();
                if !site.is_near(network) {
                    return found;
                }
                if let Some(service) = mesh.service_at(network, address) {
                    found.causes.push(Cause::Service(service.key()));
                    found.behind(site, mesh, service, port, v4);
                } else if let Some(workload) = mesh.workload_at(network, address) {
                    found.causes.push(Cause::Workload(workload.uid.clone()));
                    found.addresses = workload.addresses.to_vec();
                    if workload.node == site.node {
                        found.own = workload.addresses.to_vec();
                    }
                    if workload.status == Health::Healthy {
                        let reached = workload.addresses.iter().find(|a| a.is_ipv4() == v4);
                        found.endpoints = reached.map(|a| (SocketAddr::new(*a, port), 1)).into_iter().collect();
                    }
                } else if address.is_ipv4() == v4 {
                    found.addresses = vec![address];
                    found.endpoints = vec![(SocketAddr::new(address, port), 1)];
                }
            }
        }
        found
    }

    fn behind(&mut self, site: &Site, mesh: &Snapshot, service: &Service, port: u16, v4: bool) {
        let target = service.ports.iter().find(|(declared, _)| *declared == port).map_or(port, |(_, target)| *target);
        let candidates = candidates(site, mesh, service, Port { port, target, v4 });
        self.endpoints = balance::chosen(&candidates);
        for workload in candidates.iter().map(|candidate| candidate.workload) {
            self.addresses.extend(&workload.addresses);
            if workload.node == site.node {
                self.own.extend(&workload.addresses);
            }
        }
    }
}

/// Numbers a waypoint. Daemons of one version number it alike, so that what one has left is what the next one means.
fn number(destination: &GatewayDestination) -> u32 {
    let mut hasher = FxHasher::default();
    destination.hash(&mut hasher);
    ((hasher.finish() >> 32) as u32).max(1)
}
