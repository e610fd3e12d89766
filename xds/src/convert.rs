//! From the messages of the Workload API to the model of the mesh, with everything checked that others rely on.

mod service;
mod workload;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cache::{
    Interner, Ports, Service, Str, Workload,
    model::{Gateway, GatewayDestination},
};
use prost::Message;

use crate::{
    proto::workload as proto,
    wire::{Fields, Value},
};

/// The longest string taken from the control plane, in bytes; names in Kubernetes are far shorter.
const LONGEST: usize = 4096;

/// Why a resource cannot be used.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Unusable {
    /// The bytes are not the message they should be.
    #[error("the bytes cannot be decoded: {0}")]
    Decode(#[from] prost::DecodeError),
    /// The bytes around the message are not what they should be.
    #[error("the resource cannot be read: {0}")]
    Malformed(#[from] crate::wire::Malformed),
    /// A type that was not asked for.
    #[error("its type is {0:?}")]
    Type(String),
    /// Neither a workload nor a service.
    #[error("it is neither a workload nor a service")]
    Empty,
    /// A field that must be there.
    #[error("{0} is empty")]
    Missing(&'static str),
    /// The content says another name than the resource.
    #[error("it says that it is {0:?}")]
    Name(String),
    /// A string that is too long.
    #[error("{field} is {length} bytes long, at most {LONGEST} are accepted")]
    Long {
        /// Which field.
        field: &'static str,
        /// Its length.
        length: usize,
    },
    /// An address that is neither IPv4 nor IPv6.
    #[error("an address has {0} bytes")]
    Address(usize),
    /// A port beyond 65535, or 0 where it is dialled.
    #[error("{0} is no port")]
    Port(u32),
    /// A value that its enumeration does not have.
    #[error("{field} has no value {value}")]
    Value {
        /// Which field.
        field: &'static str,
        /// The number.
        value: i32,
    },
    /// The name of a service that is not `namespace/hostname`.
    #[error("{0:?} is not namespace/hostname")]
    Hostname(String),
}

/// A workload or a service.
pub(crate) enum Resource {
    Workload(Workload),
    Service(Service),
}

/// Makes the content of an `istio.workload.Address` resource into what the cache holds. Of several workloads or services in it, which
/// no one sends, the last counts.
pub(crate) fn address(name: &Str, content: &[u8], names: &mut Interner) -> Result<Resource, Unusable> {
    let mut of = (0, &[][..]);
    for field in Fields::new(content) {
        if let (number @ 1..=2, Value::Bytes(message)) = field? {
            of = (number, message);
        }
    }
    match of {
        (1, message) => workload::convert(name, message, names).map(Resource::Workload),
        (2, message) => service::convert(name, proto::Service::decode(message)?, names).map(Resource::Service),
        _ => Err(Unusable::Empty),
    }
}

/// Returns the start of a text, no longer than may be held.
pub(crate) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

/// Returns the start of a text, for people.
pub(crate) fn brief(text: &str) -> String {
    start(text, 120)
}

/// Returns the start of a text, `length` bytes at most and a mark of what is left out.
pub(crate) fn start(text: &str, length: usize) -> String {
    if text.len() <= length {
        return text.to_owned();
    }
    format!("{}...", &text[..text.floor_char_boundary(length)])
}

fn text(field: &'static str, text: &str, names: &mut Interner) -> Result<Str, Unusable> {
    short(field, text)?;
    Ok(names.name(text))
}

pub(crate) fn short(field: &'static str, text: &str) -> Result<(), Unusable> {
    if text.len() > LONGEST { Err(Unusable::Long { field, length: text.len() }) } else { Ok(()) }
}

fn enumeration<T: TryFrom<i32>>(field: &'static str, value: i32) -> Result<T, Unusable> {
    T::try_from(value).map_err(|_| Unusable::Value { field, value })
}

fn ip(bytes: &[u8]) -> Result<IpAddr, Unusable> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(Ipv4Addr::from(v4).into());
    }
    let v6 = <[u8; 16]>::try_from(bytes).map_err(|_| Unusable::Address(bytes.len()))?;
    Ok(IpAddr::from(Ipv6Addr::from(v6)).to_canonical())
}

fn port(port: u32) -> Result<u16, Unusable> {
    u16::try_from(port).map_err(|_| Unusable::Port(port))
}

fn ports(ports: &[proto::Port]) -> Result<Ports, Unusable> {
    ports.iter().map(|p| Ok((service_port(p.service_port)?, port(p.target_port)?))).collect()
}

/// A port that is dialled; as a target, 0 means that each endpoint has its own.
fn service_port(number: u32) -> Result<u16, Unusable> {
    port(number).and_then(|port| if port == 0 { Err(Unusable::Port(0)) } else { Ok(port) })
}

fn texts(field: &'static str, all: &[String], names: &mut Interner) -> Result<Box<[Str]>, Unusable> {
    all.iter().map(|one| text(field, one, names)).collect()
}

/// Makes `namespace/hostname` of its parts.
fn namespaced(namespace: &str, hostname: &str, names: &mut Interner) -> Result<Str, Unusable> {
    if namespace.is_empty() || hostname.is_empty() || namespace.contains('/') {
        return Err(Unusable::Hostname(brief(&format!("{namespace}/{hostname}"))));
    }
    text("hostname", &format!("{namespace}/{hostname}"), names)
}

fn gateway(gateway: &proto::GatewayAddress, names: &mut Interner) -> Result<Gateway, Unusable> {
    use proto::gateway_address::Destination;
    let destination = match gateway.destination.as_ref().ok_or(Unusable::Missing("destination of a gateway"))? {
        Destination::Hostname(name) => {
            GatewayDestination::Hostname(namespaced(&name.namespace, &name.hostname, names)?)
        }
        Destination::Address(address) => {
            GatewayDestination::Address(text("network", &address.network, names)?, ip(&address.address)?)
        }
    };
    Ok(Gateway { destination, hbone_mtls_port: port(gateway.hbone_mtls_port)? })
}

#[cfg(test)]
mod tests;
