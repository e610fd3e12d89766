//! Workloads, read in place: there are many, and most of what they say has been said before.

use cache::{
    Health, Interner, NetworkMode, Ports, Str, Workload,
    model::{Gateway, Locality, Protocol, WorkloadExtra},
};
use prost::Message;

use super::{Unusable, brief, enumeration, gateway, ip, port, service_port, short, text};
use crate::{
    proto::workload as proto,
    wire::{self, Fields, Value},
};

/// Makes a workload of its message (`istio.workload.Workload`). The uid must be the resource's name; trust domain and account get
/// their defaults.
pub(super) fn convert(name: &Str, message: &[u8], names: &mut Interner) -> Result<Workload, Unusable> {
    let mut w = Workload { uid: name.clone(), ..Workload::default() };
    let (mut uid, mut kind) = ("", 0);
    let (mut addresses, mut services) = (Vec::with_capacity(1), Vec::with_capacity(1));
    let (mut extra, mut policies) = (WorkloadExtra::default(), Vec::new());
    for field in Fields::new(message) {
        match field? {
            (20, Value::Bytes(bytes)) => uid = wire::text(bytes)?,
            (1, Value::Bytes(bytes)) => w.name = own("name", bytes)?,
            (2, Value::Bytes(bytes)) => w.namespace = shared("namespace", bytes, names)?,
            (3, Value::Bytes(bytes)) => addresses.push(ip(bytes)?),
            (21, Value::Bytes(bytes)) => w.hostname = shared("hostname", bytes, names)?,
            (4, Value::Bytes(bytes)) => w.network = shared("network", bytes, names)?,
            (5, Value::Varint(value)) => w.protocol = protocol(value)?,
            (6, Value::Bytes(bytes)) => w.trust_domain = shared("trust_domain", bytes, names)?,
            (7, Value::Bytes(bytes)) => w.service_account = shared("service_account", bytes, names)?,
            (8, Value::Bytes(bytes)) => extra.waypoint = Some(to(bytes, names)?),
            (19, Value::Bytes(bytes)) => extra.network_gateway = Some(to(bytes, names)?),
            (9, Value::Bytes(bytes)) => w.node = shared("node", bytes, names)?,
            (10, Value::Bytes(bytes)) => w.canonical_name = shared("canonical_name", bytes, names)?,
            (11, Value::Bytes(bytes)) => w.canonical_revision = shared("canonical_revision", bytes, names)?,
            (12, Value::Varint(value)) => kind = value,
            (13, Value::Bytes(bytes)) => w.workload_name = shared("workload_name", bytes, names)?,
            (14, Value::Varint(value)) => extra.native_tunnel = value != 0,
            (23, Value::Bytes(bytes)) => extra.application_tunnel = Some(tunnel(bytes, names)?),
            (22, Value::Bytes(bytes)) => services.push(service(bytes, names)?),
            (16, Value::Bytes(bytes)) => policies.push(shared("authorization_policies", bytes, names)?),
            (17, Value::Varint(value)) => w.status = health(value)?,
            (18, Value::Bytes(bytes)) => w.cluster_id = shared("cluster_id", bytes, names)?,
            (24, Value::Bytes(bytes)) => extra.locality = locality(bytes, names)?,
            (25, Value::Varint(value)) => w.network_mode = network_mode(value)?,
            (27, Value::Bytes(bytes)) => extra.capacity = Some(capacity(bytes)?),
            _ => {}
        }
    }
    if uid.is_empty() {
        return Err(Unusable::Missing("uid"));
    }
    if uid != *name {
        return Err(Unusable::Name(brief(uid)));
    }
    if addresses.is_empty() && w.hostname.is_empty() && !services.is_empty() {
        return Err(Unusable::Missing("addresses of an endpoint"));
    }
    for (field, default) in [(&mut w.trust_domain, "cluster.local"), (&mut w.service_account, "default")] {
        if field.is_empty() {
            *field = names.name(default);
        }
    }
    w.workload_type = names.name(workload_type(kind)?);
    w.addresses = addresses.into();
    w.services = names.services(in_order(&mut services));
    extra.authorization_policies = policies.into();
    w.extra = names.extra(extra);
    Ok(w)
}

/// Sorts by name; of equal ones the last counts, as in any map of a message.
fn in_order(services: &mut Vec<(Str, Ports)>) -> &[(Str, Ports)] {
    if services.len() > 1 {
        services.reverse();
        services.sort_by(|a, b| a.0.cmp(&b.0));
        services.dedup_by(|a, b| a.0 == b.0);
    }
    services
}

fn own(field: &'static str, bytes: &[u8]) -> Result<Str, Unusable> {
    let value = wire::text(bytes)?;
    short(field, value)?;
    Ok(Str::from(value))
}

fn shared(field: &'static str, bytes: &[u8], names: &mut Interner) -> Result<Str, Unusable> {
    text(field, wire::text(bytes)?, names)
}

/// A number as its type has it: 32 bits of what the wire may say in 64.
#[expect(clippy::cast_possible_truncation, reason = "that is how protobuf reads an int32")]
fn int(value: u64) -> i32 {
    value as i32
}

fn protocol(value: u64) -> Result<Protocol, Unusable> {
    Ok(match enumeration("tunnel_protocol", int(value))? {
        proto::TunnelProtocol::None => Protocol::Tcp,
        proto::TunnelProtocol::Hbone => Protocol::Hbone,
    })
}

fn health(value: u64) -> Result<Health, Unusable> {
    Ok(match enumeration("status", int(value))? {
        proto::WorkloadStatus::Healthy => Health::Healthy,
        proto::WorkloadStatus::Unhealthy => Health::Unhealthy,
    })
}

fn network_mode(value: u64) -> Result<NetworkMode, Unusable> {
    Ok(match enumeration("network_mode", int(value))? {
        proto::NetworkMode::Standard => NetworkMode::Standard,
        proto::NetworkMode::HostNetwork => NetworkMode::HostNetwork,
    })
}

fn workload_type(value: u64) -> Result<&'static str, Unusable> {
    Ok(match enumeration("workload_type", int(value))? {
        proto::WorkloadType::Deployment => "deployment",
        proto::WorkloadType::Cronjob => "cronjob",
        proto::WorkloadType::Pod => "pod",
        proto::WorkloadType::Job => "job",
    })
}

/// An entry of the map of services: `namespace/hostname` to a list of ports.
fn service(entry: &[u8], names: &mut Interner) -> Result<(Str, Ports), Unusable> {
    let (mut key, mut list) = ("", &[][..]);
    for field in Fields::new(entry) {
        match field? {
            (1, Value::Bytes(bytes)) => key = wire::text(bytes)?,
            (2, Value::Bytes(bytes)) => list = bytes,
            _ => {}
        }
    }
    if !key.split_once('/').is_some_and(|(namespace, hostname)| !namespace.is_empty() && !hostname.is_empty()) {
        return Err(Unusable::Hostname(brief(key)));
    }
    let mut ports = Vec::with_capacity(1);
    for field in Fields::new(list) {
        if let (1, Value::Bytes(bytes)) = field? {
            ports.push(pair(bytes)?);
        }
    }
    Ok((text("services", key, names)?, ports.into()))
}

/// Service port and target port.
fn pair(message: &[u8]) -> Result<(u16, u16), Unusable> {
    let mut pair = (0, 0);
    for field in Fields::new(message) {
        match field? {
            (1, Value::Varint(value)) => pair.0 = int(value).cast_unsigned(),
            (2, Value::Varint(value)) => pair.1 = int(value).cast_unsigned(),
            _ => {}
        }
    }
    Ok((service_port(pair.0)?, port(pair.1)?))
}

fn locality(message: &[u8], names: &mut Interner) -> Result<Locality, Unusable> {
    let mut locality = Locality::default();
    for field in Fields::new(message) {
        match field? {
            (1, Value::Bytes(bytes)) => locality.region = shared("region", bytes, names)?,
            (2, Value::Bytes(bytes)) => locality.zone = shared("zone", bytes, names)?,
            (3, Value::Bytes(bytes)) => locality.subzone = shared("subzone", bytes, names)?,
            _ => {}
        }
    }
    Ok(locality)
}

fn capacity(message: &[u8]) -> Result<u32, Unusable> {
    Ok(<u32 as Message>::decode(message)?)
}

fn to(message: &[u8], names: &mut Interner) -> Result<Gateway, Unusable> {
    gateway(&proto::GatewayAddress::decode(message)?, names)
}

fn tunnel(message: &[u8], names: &mut Interner) -> Result<(Str, Option<u16>), Unusable> {
    use proto::application_tunnel::Protocol;
    let from = proto::ApplicationTunnel::decode(message)?;
    let protocol = match enumeration("application_tunnel", from.protocol)? {
        Protocol::None => "NONE",
        Protocol::Proxy => "PROXY",
    };
    Ok((names.name(protocol), Some(port(from.port)?).filter(|port| *port != 0)))
}
