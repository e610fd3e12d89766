//! Which way a connection would go, and why: by the same rules as the plan.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use cache::{
    Cache, Held, NetworkMode, Service, Snapshot, Str, Workload,
    model::{Gateway, GatewayDestination},
};
use serde::{Serialize, Serializer};

use super::{
    balance::{Excluded, Port, candidates},
    route::{self, Holder, holder},
    site::{Site, mode},
    waypoint::Waypoint,
};
use crate::kernel::{Dialled, Target};

/// Answers where connections go.
#[derive(Clone)]
pub struct Explainer {
    cache: Arc<Cache>,
    site: Arc<Mutex<Site>>,
    /// Tells whether the kernel has an entry.
    has: Arc<dyn Fn(Dialled) -> bool + Send + Sync>,
}

/// Which way a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Where it was dialled.
    Unchanged,
    /// To one of the service's endpoints.
    Endpoint,
    /// To an endpoint of the waypoint.
    Waypoint,
    /// Nowhere: the connect fails with ECONNREFUSED.
    Refused,
}

/// An endpoint that was considered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Considered {
    /// `namespace/name` of its workload; a waypoint's that is no workload has none.
    pub workload: Option<String>,
    /// Where it is reached.
    pub address: Option<SocketAddr>,
    /// Its weight; 0 where it takes nothing.
    pub weight: u32,
    /// Why it takes nothing.
    #[serde(serialize_with = "excluded")]
    excluded: Option<Excluded>,
}

/// What becomes of what is dialled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Who dials: `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What is dialled; port 0 stands for any.
    pub dialled: Option<SocketAddr>,
    /// `namespace/hostname` of the service that has the address.
    pub service: Option<Str>,
    /// `namespace/name` of the workload that has it.
    pub workload: Option<String>,
    /// How the service spreads connections.
    pub mode: Option<String>,
    /// The service's scopes, in order.
    pub routing_preference: Vec<Str>,
    /// The waypoint before it.
    pub waypoint: Option<String>,
    /// The endpoints of the service, or of the waypoint.
    pub endpoints: Vec<Considered>,
    /// Which way it goes.
    pub verdict: Verdict,
    /// Why, in words.
    pub why: String,
}

impl fmt::Debug for Explainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explainer").field("site", &self.site).finish_non_exhaustive()
    }
}

impl Explainer {
    pub(super) fn new(
        cache: Arc<Cache>,
        site: Arc<Mutex<Site>>,
        has: impl Fn(Dialled) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { cache, site, has: Arc::new(has) }
    }

    /// Makes one of a node of which nothing is known and a kernel that has nothing.
    #[cfg(test)]
    pub(crate) fn of_nothing(cache: Arc<Cache>) -> Self {
        Self::new(cache, Arc::default(), |_| false)
    }

    /// Says which way a connection would go.
    pub fn explain(&self, source: IpAddr, dialled: SocketAddr) -> Answer {
        let (mesh, site) = (Arc::clone(&*self.cache.load()), self.site());
        let source = source.to_canonical();
        let dialled = SocketAddr::new(dialled.ip().to_canonical(), dialled.port());
        let from = mesh.workload_at(&site.network, source);
        let mut answer = self.judge(&site, &mesh, dialled, Some(source));
        answer.source = from.map(|w| name(w));
        let unmanaged = match from {
            None => Some("the source is no workload of the mesh, so its connections are not steered"),
            Some(w) if w.node != site.node => Some("the source is on another node"),
            Some(w) if w.network_mode == NetworkMode::HostNetwork => Some("the source uses the host's network"),
            Some(_) => None,
        };
        if let Some(why) = unmanaged {
            (answer.verdict, answer.why) = (Verdict::Unchanged, why.to_owned());
        }
        answer
    }

    /// Says of every port of every service which way connections to it go.
    pub fn services(&self) -> Vec<Answer> {
        let (mesh, site) = (Arc::clone(&*self.cache.load()), self.site());
        let mut answers = Vec::new();
        for service in mesh.services() {
            let near = service.vips.iter().filter(|(network, _)| site.is_near(network));
            let dialled: Vec<_> =
                near.flat_map(|vip| service.ports.iter().map(|(port, _)| SocketAddr::new(vip.1, *port))).collect();
            answers.extend(dialled.iter().map(|dialled| {
                let answer = self.judge(&site, &mesh, *dialled, None);
                // Another service may have the address.
                if answer.service.as_ref() == Some(&service.key()) {
                    return answer;
                }
                let why = "another service has the address".to_owned();
                Answer { why, ..unsteered(service, Some(*dialled)) }
            }));
            if dialled.is_empty() {
                let why = match () {
                    () if service.vips.is_empty() => "it is headless: its pods are dialled as they are",
                    () if service.ports.is_empty() => "it has no ports",
                    () => "none of its addresses is in this node's network",
                };
                answers.push(Answer { why: why.to_owned(), ..unsteered(service, None) });
            }
        }
        answers.sort_by(|a, b| (&a.service, a.dialled).cmp(&(&b.service, b.dialled)));
        answers
    }

    fn site(&self) -> Site {
        self.site.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn judge(&self, site: &Site, mesh: &Snapshot, dialled: SocketAddr, source: Option<IpAddr>) -> Answer {
        let at = dialled.ip();
        let mut answer = nobody(dialled);
        let (entry, target, waypoint) = match holder(site, mesh, at) {
            None => {
                answer.why = "no service or workload of the mesh has the address".to_owned();
                return answer;
            }
            Some(Holder::Service(service)) => {
                let why = std::mem::take(&mut answer.why);
                answer = Answer { why, ..unsteered(service, Some(dialled)) };
                let Some((_, target)) = service.ports.iter().find(|(port, _)| *port == dialled.port()) else {
                    answer.why = "the service does not declare the port".to_owned();
                    return answer;
                };
                let waypoint = route::waypoint_of_service(site, mesh, service, at);
                let past = is_own(waypoint.as_ref(), source);
                let on_the_way = waypoint.as_ref().filter(|_| !past);
                if on_the_way.is_none() {
                    let port = Port { port: dialled.port(), target: *target, v4: at.is_ipv4() };
                    answer.endpoints = considered(site, mesh, service, port);
                }
                let planned = route::service_port(site, mesh, service, dialled, *target, on_the_way);
                answer.waypoint = service.waypoint.as_ref().map(shown);
                (Dialled { address: dialled, direct: past }, planned, waypoint)
            }
            Some(Holder::Workload(workload) | Holder::Both(_, workload)) => {
                if let Some(Holder::Both(service, _)) = holder(site, mesh, at) {
                    answer.service = Some(service.key());
                }
                answer.workload = Some(name(workload));
                let waypoint = route::waypoint_of_workload(site, mesh, workload, at);
                answer.waypoint = workload.waypoint().map(shown);
                let planned = waypoint.as_ref().filter(|w| !is_own(Some(w), source)).map(route::through);
                (SocketAddr::new(at, 0).into(), planned, waypoint)
            }
        };
        let past = is_own(waypoint.as_ref(), source);
        self.decide(&mut answer, entry, target, past);
        answer
    }

    /// Fills in the verdict.
    fn decide(&self, answer: &mut Answer, entry: Dialled, target: Option<Target>, past: bool) {
        let strict = answer.mode.as_deref() == Some("STRICT");
        let (verdict, why) = match &target {
            None if answer.service.is_some() && answer.workload.is_some() => {
                (Verdict::Unchanged, "a workload has the service's address: the service is not steered there")
            }
            None if past => (Verdict::Unchanged, "the source is the waypoint itself, which goes on directly"),
            None if answer.workload.is_some() => (Verdict::Unchanged, "a workload is dialled as it is"),
            None if answer.mode.as_deref() == Some("PASSTHROUGH") => {
                (Verdict::Unchanged, "the service passes connections through")
            }
            None => (Verdict::Unchanged, "no endpoint can take it, and only a strict service refuses"),
            Some(_) if !(self.has)(entry) => {
                (Verdict::Unchanged, "the kernel does not have it: it is not programmed yet, or a map is full")
            }
            Some(target) if target.waypoint != 0 && target.endpoints.is_empty() => {
                (Verdict::Refused, "the waypoint has no endpoint that can take it")
            }
            Some(target) if target.waypoint != 0 => (Verdict::Waypoint, "a waypoint stands before it"),
            Some(target) if target.endpoints.is_empty() && strict => {
                (Verdict::Refused, "no endpoint can take it, and the service is strict")
            }
            Some(_) if past => (Verdict::Endpoint, "the source is the waypoint itself, which goes on directly"),
            Some(_) => (Verdict::Endpoint, "one of the endpoints, at random by weight"),
        };
        if let Some(target) = target.filter(|target| target.waypoint != 0) {
            let way = |(address, weight): &(SocketAddr, u32)| Considered {
                workload: None,
                address: Some(*address),
                weight: *weight,
                excluded: None,
            };
            answer.endpoints = target.endpoints.iter().map(way).collect();
        }
        (answer.verdict, answer.why) = (verdict, why.to_owned());
    }
}

/// Tells whether who dials is an endpoint of the waypoint on this node.
fn is_own(waypoint: Option<&Waypoint>, source: Option<IpAddr>) -> bool {
    waypoint.zip(source).is_some_and(|(waypoint, source)| waypoint.own.contains(&source))
}

fn considered(site: &Site, mesh: &Snapshot, service: &Service, port: Port) -> Vec<Considered> {
    let one = |candidate: super::balance::Candidate<'_>| Considered {
        workload: Some(name(candidate.workload)),
        address: candidate.chosen.ok().map(|(address, _)| address),
        weight: candidate.chosen.map_or(0, |(_, weight)| weight),
        excluded: candidate.chosen.err(),
    };
    let mut all: Vec<_> = candidates(site, mesh, service, port).into_iter().map(one).collect();
    all.sort_by(|a, b| (a.excluded.is_some(), &a.workload).cmp(&(b.excluded.is_some(), &b.workload)));
    all
}

fn nobody(dialled: SocketAddr) -> Answer {
    Answer {
        source: None,
        dialled: Some(dialled),
        service: None,
        workload: None,
        mode: None,
        routing_preference: Vec::new(),
        waypoint: None,
        endpoints: Vec::new(),
        verdict: Verdict::Unchanged,
        why: String::new(),
    }
}

fn unsteered(service: &Held<Service>, dialled: Option<SocketAddr>) -> Answer {
    Answer {
        source: None,
        dialled,
        service: Some(service.key()),
        workload: None,
        mode: Some(mode(service).to_owned()),
        routing_preference: service
            .load_balancing
            .iter()
            .flat_map(|lb| lb.routing_preference.iter().cloned())
            .collect(),
        waypoint: service.waypoint.as_ref().map(shown),
        endpoints: Vec::new(),
        verdict: Verdict::Unchanged,
        why: String::new(),
    }
}

fn name(workload: &Workload) -> String {
    format!("{}/{}", workload.namespace, workload.name)
}

fn shown(gateway: &Gateway) -> String {
    match &gateway.destination {
        GatewayDestination::Hostname(name) => name.to_string(),
        GatewayDestination::Address(network, address) if network.is_empty() => address.to_string(),
        GatewayDestination::Address(network, address) => format!("{network}/{address}"),
    }
}

fn excluded<S: Serializer>(excluded: &Option<Excluded>, serializer: S) -> Result<S::Ok, S::Error> {
    excluded.serialize(serializer)
}

#[cfg(test)]
mod tests;
