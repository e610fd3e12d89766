//! Workloads.

use std::sync::Arc;

use cache::{
    Health, Interner, NetworkMode, Ports, Str, Workload,
    model::{Locality, Protocol, WorkloadExtra},
};

use super::{Unusable, brief, enumeration, gateway, ip, port, ports, text, texts};
use crate::proto::workload as proto;

/// Makes a workload of its message. The uid must be the resource's name; trust domain and account get their defaults.
pub(super) fn convert(name: &Str, from: proto::Workload, names: &mut Interner) -> Result<Workload, Unusable> {
    if from.uid.is_empty() {
        return Err(Unusable::Missing("uid"));
    }
    if from.uid != *name {
        return Err(Unusable::Name(brief(&from.uid)));
    }
    let extra = extra(&from, names)?;
    let services = from.services.iter().map(|(key, list)| service(key, list, names));
    let services: Vec<_> = services.collect::<Result<_, _>>()?;
    super::short("name", &from.name)?;
    let mut text = |field, value: &str| text(field, value, names);
    Ok(Workload {
        uid: name.clone(),
        name: Str::from(from.name),
        namespace: text("namespace", &from.namespace)?,
        service_account: text("service_account", or(&from.service_account, "default"))?,
        trust_domain: text("trust_domain", or(&from.trust_domain, "cluster.local"))?,
        network: text("network", &from.network)?,
        node: text("node", &from.node)?,
        cluster_id: text("cluster_id", &from.cluster_id)?,
        workload_name: text("workload_name", &from.workload_name)?,
        workload_type: text("workload_type", kind(from.workload_type)?)?,
        canonical_name: text("canonical_name", &from.canonical_name)?,
        canonical_revision: text("canonical_revision", &from.canonical_revision)?,
        hostname: text("hostname", &from.hostname)?,
        addresses: from.addresses.iter().map(|bytes| ip(bytes)).collect::<Result<_, _>>()?,
        network_mode: match enumeration("network_mode", from.network_mode)? {
            proto::NetworkMode::Standard => NetworkMode::Standard,
            proto::NetworkMode::HostNetwork => NetworkMode::HostNetwork,
        },
        status: match enumeration("status", from.status)? {
            proto::WorkloadStatus::Healthy => Health::Healthy,
            proto::WorkloadStatus::Unhealthy => Health::Unhealthy,
        },
        protocol: match enumeration("tunnel_protocol", from.tunnel_protocol)? {
            proto::TunnelProtocol::None => Protocol::Tcp,
            proto::TunnelProtocol::Hbone => Protocol::Hbone,
        },
        services: names.services(&services),
        extra,
    })
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

fn kind(value: i32) -> Result<&'static str, Unusable> {
    Ok(match enumeration("workload_type", value)? {
        proto::WorkloadType::Deployment => "deployment",
        proto::WorkloadType::Cronjob => "cronjob",
        proto::WorkloadType::Pod => "pod",
        proto::WorkloadType::Job => "job",
    })
}

fn service(key: &str, list: &proto::PortList, names: &mut Interner) -> Result<(Str, Ports), Unusable> {
    if !key.split_once('/').is_some_and(|(namespace, hostname)| !namespace.is_empty() && !hostname.is_empty()) {
        return Err(Unusable::Hostname(brief(key)));
    }
    Ok((text("services", key, names)?, ports(&list.ports)?))
}

fn extra(from: &proto::Workload, names: &mut Interner) -> Result<Option<Arc<WorkloadExtra>>, Unusable> {
    let extra = WorkloadExtra {
        waypoint: from.waypoint.as_ref().map(|to| gateway(to, names)).transpose()?,
        network_gateway: from.network_gateway.as_ref().map(|to| gateway(to, names)).transpose()?,
        native_tunnel: from.native_tunnel,
        application_tunnel: from.application_tunnel.as_ref().map(|to| tunnel(to, names)).transpose()?,
        authorization_policies: texts("authorization_policies", &from.authorization_policies, names)?,
        locality: match &from.locality {
            Some(at) => Locality {
                region: text("region", &at.region, names)?,
                zone: text("zone", &at.zone, names)?,
                subzone: text("subzone", &at.subzone, names)?,
            },
            None => Locality::default(),
        },
        capacity: from.capacity,
    };
    Ok(names.extra(extra))
}

fn tunnel(from: &proto::ApplicationTunnel, names: &mut Interner) -> Result<(Str, Option<u16>), Unusable> {
    use proto::application_tunnel::Protocol;
    let protocol = match enumeration("application_tunnel", from.protocol)? {
        Protocol::None => "NONE",
        Protocol::Proxy => "PROXY",
    };
    Ok((names.name(protocol), Some(port(from.port)?).filter(|port| *port != 0)))
}
