//! What is known, as JSON for people: field names as in the mesh file.

use std::net::IpAddr;

use serde::{
    Serialize, Serializer,
    ser::{SerializeMap, SerializeSeq, SerializeStruct},
};

use crate::{
    model::{Gateway, GatewayDestination, Ports, Str},
    snapshot::Snapshot,
};

/// A snapshot as `{"workloads": [...], "services": [...], "policies": [...]}`, each in the order of its names.
#[derive(Clone, Copy, Debug)]
pub struct Dump<'a>(&'a Snapshot);

impl Snapshot {
    /// Returns what is known in a form that serializes without being copied.
    pub fn dump(&self) -> Dump<'_> {
        Dump(self)
    }
}

impl Serialize for Dump<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut workloads: Vec<_> = self.0.workloads().map(|w| &w.value).collect();
        workloads.sort_unstable_by(|a, b| a.uid.cmp(&b.uid));
        let mut services: Vec<_> = self.0.services().map(|s| &s.value).collect();
        services.sort_unstable_by(|a, b| (&a.namespace, &a.hostname).cmp(&(&b.namespace, &b.hostname)));
        let mut dump = serializer.serialize_struct("Dump", 3)?;
        dump.serialize_field("workloads", &workloads)?;
        dump.serialize_field("services", &services)?;
        dump.serialize_field("policies", &Values(self.0))?;
        dump.end()
    }
}

struct Values<'a>(&'a Snapshot);

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.policies().values())
    }
}

struct NetworkAddress<'a>(&'a Str, &'a IpAddr);

impl Serialize for NetworkAddress<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}/{}", self.0, self.1))
    }
}

impl Serialize for Gateway {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut gateway = serializer.serialize_struct("Gateway", 2)?;
        match &self.destination {
            GatewayDestination::Address(network, ip) => {
                gateway.serialize_field("destination", &NetworkAddress(network, ip))?;
            }
            GatewayDestination::Hostname(name) => gateway.serialize_field("destination", name)?,
        }
        gateway.serialize_field("hboneMtlsPort", &self.hbone_mtls_port)?;
        gateway.end()
    }
}

struct PortMap<'a>(&'a Ports);

impl Serialize for PortMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

pub(crate) fn ports<S: Serializer>(ports: &Ports, serializer: S) -> Result<S::Ok, S::Error> {
    PortMap(ports).serialize(serializer)
}

pub(crate) fn vips<S: Serializer>(vips: &[(Str, IpAddr)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut seq = serializer.serialize_seq(Some(vips.len()))?;
    for (network, address) in vips {
        seq.serialize_element(&NetworkAddress(network, address))?;
    }
    seq.end()
}

pub(crate) fn services<S: Serializer>(services: &[(Str, Ports)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(services.len()))?;
    for (key, ports) in services {
        map.serialize_entry(key, &PortMap(ports))?;
    }
    map.end()
}

pub(crate) fn tunnel<S: Serializer>(tunnel: &Option<(Str, Option<u16>)>, serializer: S) -> Result<S::Ok, S::Error> {
    let Some((protocol, port)) = tunnel else { return serializer.serialize_none() };
    let mut out = serializer.serialize_struct("ApplicationTunnel", 2)?;
    out.serialize_field("protocol", protocol)?;
    out.serialize_field("port", port)?;
    out.end()
}
