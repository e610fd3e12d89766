//! What steering costs at size: memory of its maps, and the way of one endpoint's change into them.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tests::{Meshd, Scrape};
use xds::proto::{
    discovery::Resource,
    workload::{self as api, address::Type},
};

use super::{
    maps,
    plane::{ADDRESS, Plane},
    process,
    world::World,
};
use crate::{
    figure::{Figures, Number, Target, median},
    machine,
};

/// How much is programmed and changed.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Services, one port each.
    pub services: u32,
    /// How often one endpoint changes.
    pub changes: u32,
}

/// Endpoints of a service.
pub const ENDPOINTS: u32 = 20;
/// The maps that hold services and their endpoints.
const MAPS: [&str; 2] = [abi::maps::SERVICES, abi::maps::ENDPOINTS];
/// Longer than changes are gathered: each is programmed by itself.
const PAUSE: Duration = Duration::from_millis(50);

/// Has a `meshd` follow a control plane with so many services, and then with one endpoint after the other leaving and coming back.
pub fn run(world: &World, plan: Plan, figures: &mut Figures) -> Result<()> {
    let Plan { services, changes } = plan;
    let mut plane = Plane::start(world.node())?;
    let room = format!("--max-endpoints={}", (services * ENDPOINTS).next_power_of_two());
    let mut meshd = world.meshd_of(&plane.url(), &[&room])?;
    plane.send((0..services).map(service).chain((0..services * ENDPOINTS).map(|n| pod(n, true))).collect())?;
    meshd.ready()?;
    meshd.eventually(|scrape| scrape.shows("meshd_steering_services", &[], services.into()))?;
    memory(&meshd, plan, figures)?;
    let mut took = Vec::new();
    for change in 0..changes {
        // Each of a service of its own, half of them leaving and half coming back.
        let n = change / 2 * (services / changes.div_ceil(2)).max(1) * ENDPOINTS;
        took.push(programmed(&meshd, || plane.send(vec![pod(n, change % 2 == 1)]))?);
    }
    ensure!(!took.is_empty(), "nothing was changed");
    let slowest = took.iter().copied().fold(0.0, f64::max);
    let name = format!("one endpoint's change among {services} services of {ENDPOINTS}, response to programmed maps");
    let note = format!("median of {changes}; the slowest {} ms", Number(slowest));
    figures.add(&name, Target::AtMost(5.0), median(&took), "ms", note);
    Ok(())
}

fn memory(meshd: &Meshd<'_>, plan: Plan, figures: &mut Figures) -> Result<()> {
    let held = maps::mebibytes(meshd.pid())?;
    let of = |name: &str| held.get(name).copied().with_context(|| format!("no map is called {name} in {held:?}"));
    let each = MAPS.map(|name| of(name).map(|size| (name, size)));
    let each = each.into_iter().collect::<Result<Vec<_>>>()?;
    let list: Vec<_> = each.iter().map(|(name, size)| format!("{name} {}", Number(*size))).collect();
    let rss = process::mebibytes(meshd.pid(), "VmRSS")?;
    let note = format!("{}; meshd itself {} MiB", list.join(", "), Number(rss));
    let name = format!("memory of the maps, {} services of {ENDPOINTS} endpoints", plan.services);
    figures.add(&name, Target::AtMost(40.0), each.iter().map(|(_, size)| size).sum(), "MiB", note);
    Ok(())
}

/// Makes one change and returns how long it took `meshd`, from the response to the programmed maps, ms.
fn programmed(meshd: &Meshd<'_>, change: impl FnOnce() -> Result<()>) -> Result<f64> {
    let read = |scrape: &Scrape| {
        ["count", "sum"].map(|what| scrape.total(&format!("meshd_xds_propagation_seconds_{what}"), &[]))
    };
    machine::wait(PAUSE);
    let [count, sum] = read(&meshd.scrape()?);
    change()?;
    let after = meshd.eventually(|scrape| {
        ensure!(read(scrape)[0] > count, "it is not programmed");
        Ok(())
    })?;
    let [now, total] = read(&after);
    ensure!(now == count + 1.0, "{} changes at once", now - count);
    Ok((total - sum) * 1e3)
}

/// The nth service, at a virtual address of its own.
fn service(n: u32) -> Resource {
    let hostname = hostname(n);
    let vip = Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 0).to_bits() + n);
    let service = api::Service {
        name: format!("service-{n}"),
        namespace: "bench".to_owned(),
        hostname: hostname.clone(),
        addresses: vec![api::NetworkAddress { address: vip.octets().to_vec().into(), ..Default::default() }],
        ports: vec![api::Port { service_port: 80, target_port: 8080 }],
        ..Default::default()
    };
    resource(format!("bench/{hostname}"), 0, Type::Service(service))
}

/// The nth pod, on another node; each so many are the endpoints of a service.
fn pod(n: u32, healthy: bool) -> Resource {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 128, 0, 0).to_bits() + n);
    let name = format!("service-{}-{n}", n / ENDPOINTS);
    let ports = api::PortList { ports: vec![api::Port { service_port: 80, target_port: 8080 }] };
    let status = if healthy { api::WorkloadStatus::Healthy } else { api::WorkloadStatus::Unhealthy };
    let workload = api::Workload {
        uid: format!("Kubernetes//Pod/bench/{name}"),
        name,
        namespace: "bench".to_owned(),
        addresses: vec![address.octets().to_vec().into()],
        node: format!("node-{}", n % 100 + 1000),
        services: [(format!("bench/{}", hostname(n / ENDPOINTS)), ports)].into(),
        status: status.into(),
        ..Default::default()
    };
    resource(workload.uid.clone(), healthy.into(), Type::Workload(workload))
}

fn hostname(n: u32) -> String {
    format!("service-{n}.bench.svc.cluster.local")
}

fn resource(name: String, version: u32, of: Type) -> Resource {
    let value = prost::Message::encode_to_vec(&api::Address { r#type: Some(of) });
    let resource = prost_types::Any { type_url: ADDRESS.to_owned(), value };
    Resource { name, version: version.to_string(), resource: Some(resource), ..Default::default() }
}
