//! What becomes of a connect, by what is dialled.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use cache::{Held, Service, Snapshot, Workload};

use super::{
    balance::{Port, candidates, chosen},
    site::{Site, mode},
    waypoint::Waypoint,
};
use crate::kernel::Target;

/// Who has an address that steering may change.
#[derive(Debug)]
pub(super) enum Holder<'a> {
    /// A service.
    Service(&'a Arc<Held<Service>>),
    /// A workload.
    Workload(&'a Arc<Held<Workload>>),
    /// A service and a workload, which has it for itself: the service is not steered at this address.
    Both(&'a Arc<Held<Service>>, &'a Arc<Held<Workload>>),
}

/// Finds who has an address.
pub(super) fn holder<'a>(site: &Site, mesh: &'a Snapshot, address: IpAddr) -> Option<Holder<'a>> {
    let (service, workload) = (mesh.service_at(&site.network, address), mesh.workload_at(&site.network, address));
    match (service, workload) {
        (Some(service), Some(workload)) => Some(Holder::Both(service, workload)),
        (Some(service), None) => Some(Holder::Service(service)),
        (None, Some(workload)) => Some(Holder::Workload(workload)),
        (None, None) => None,
    }
}

/// Plans a port of a service, as `direct` as for the waypoint that stands before it. None: connects go where they want to.
pub(super) fn service_port(
    site: &Site,
    mesh: &Snapshot,
    service: &Service,
    vip: SocketAddr,
    target: u16,
    waypoint: Option<&Waypoint>,
) -> Option<Target> {
    if let Some(waypoint) = waypoint {
        return Some(through(waypoint));
    }
    if mode(service) == "PASSTHROUGH" {
        return None;
    }
    let port = Port { port: vip.port(), target, v4: vip.is_ipv4() };
    let endpoints = chosen(&candidates(site, mesh, service, port));
    (!endpoints.is_empty() || mode(service) == "STRICT").then_some(Target { endpoints, waypoint: 0 })
}

/// Plans what goes through a waypoint. One that cannot be reached refuses: to go past it would be to go past what it enforces.
pub(super) fn through(waypoint: &Waypoint) -> Target {
    Target { endpoints: waypoint.endpoints.clone(), waypoint: waypoint.number }
}

/// Finds the waypoint of a service, unless the service is the waypoint's own.
pub(super) fn waypoint_of_service(site: &Site, mesh: &Snapshot, service: &Service, vip: IpAddr) -> Option<Waypoint> {
    let waypoint = Waypoint::find(site, mesh, service.waypoint.as_ref()?, vip.is_ipv4());
    let own = super::waypoint::Cause::Service(service.key());
    (!waypoint.causes.contains(&own)).then_some(waypoint)
}

/// Finds the waypoint of a workload, unless the workload is the waypoint's own.
pub(super) fn waypoint_of_workload(site: &Site, mesh: &Snapshot, workload: &Workload, at: IpAddr) -> Option<Waypoint> {
    let waypoint = Waypoint::find(site, mesh, workload.waypoint()?, at.is_ipv4());
    (!waypoint.addresses.contains(&at)).then_some(waypoint)
}
