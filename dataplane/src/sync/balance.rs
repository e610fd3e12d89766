//! Which endpoints of a service take connections, and why the others do not.

use std::{net::SocketAddr, sync::Arc};

use cache::{Health, Held, Service, Snapshot, Workload};

use super::site::{Site, mode};

/// Why an endpoint takes no connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Excluded {
    /// It is not ready.
    Unhealthy,
    /// It cannot be reached from the node's network.
    OtherNetwork,
    /// It has no address of the family that is dialled.
    NoAddress,
    /// The target port has a name, which nobody resolved.
    NoTargetPort,
    /// Its capacity is 0.
    NoCapacity,
    /// It does not match the service's routing preference as well as it must.
    Locality,
}

/// An endpoint of a service: where it is reached and with which weight, or why it is not.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub(super) workload: &'a Arc<Held<Workload>>,
    pub(super) chosen: Result<(SocketAddr, u32), Excluded>,
}

/// A service's port as it is dialled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Port {
    /// The port of the service.
    pub(super) port: u16,
    /// The service's target port; 0 where each endpoint has its own.
    pub(super) target: u16,
    /// Dialled over IPv4.
    pub(super) v4: bool,
}

/// Judges all endpoints of a service.
///
/// A workload's own target port wins over the service's. `STRICT` takes those that match every scope of the routing preference, `FAILOVER`
/// those that match most of them, from the first on, of those that can take connections at all.
pub(super) fn candidates<'a>(site: &Site, mesh: &'a Snapshot, service: &Service, port: Port) -> Vec<Candidate<'a>> {
    let key = service.key();
    let any = service.load_balancing.as_ref().is_some_and(|lb| lb.allow_unhealthy);
    let judge = |workload: &Workload| {
        if !any && workload.status != Health::Healthy {
            return Err(Excluded::Unhealthy);
        }
        if !site.is_near(&workload.network) {
            return Err(Excluded::OtherNetwork);
        }
        let address = workload.addresses.iter().find(|a| a.is_ipv4() == port.v4).ok_or(Excluded::NoAddress)?;
        let own = workload.services.iter().find(|(name, _)| *name == key);
        let own = own.and_then(|(_, ports)| ports.iter().find(|(own, _)| *own == port.port));
        let target = own.map(|(_, target)| *target).filter(|target| *target != 0).unwrap_or(port.target);
        if target == 0 {
            return Err(Excluded::NoTargetPort);
        }
        let weight = workload.extra.as_ref().and_then(|extra| extra.capacity).unwrap_or(1);
        if weight == 0 { Err(Excluded::NoCapacity) } else { Ok((SocketAddr::new(*address, target), weight)) }
    };
    let mut candidates: Vec<_> =
        mesh.endpoints(&key).map(|workload| Candidate { workload, chosen: judge(workload) }).collect();
    if let Some(lb) = &service.load_balancing
        && matches!(mode(service), "STRICT" | "FAILOVER")
    {
        let rank = |c: &Candidate<'_>| site.rank(&lb.routing_preference, c.workload);
        let usable = candidates.iter().filter(|c| c.chosen.is_ok());
        let least = match mode(service) {
            "STRICT" => lb.routing_preference.len(),
            _ => usable.map(rank).max().unwrap_or(0),
        };
        for candidate in &mut candidates {
            if candidate.chosen.is_ok() && rank(candidate) < least {
                candidate.chosen = Err(Excluded::Locality);
            }
        }
    }
    candidates
}

/// Returns those that take connections, sorted, each address once.
pub(super) fn chosen(candidates: &[Candidate<'_>]) -> Vec<(SocketAddr, u32)> {
    let mut chosen: Vec<_> = candidates.iter().filter_map(|candidate| candidate.chosen.ok()).collect();
    // For a while two workloads may have one address: it has the larger weight.
    chosen.sort_unstable_by_key(|(address, weight)| (*address, std::cmp::Reverse(*weight)));
    chosen.dedup_by_key(|(address, _)| *address);
    chosen
}
