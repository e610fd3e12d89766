//! What a control plane that is broken, or means harm, can do: nothing but be refused.

use std::{fs, path::Path, sync::Arc, time::Instant};

use bytes::Bytes;
use cache::{Cache, Node};
use proptest::{collection::vec, prelude::*, sample::Index};
use prost::Message;

use ::tests::fuzz::fuzz;

use super::Session;
use crate::{
    framing::{Framing, Part},
    proto::{
        discovery::Resource,
        workload::{Address, NetworkAddress, Port, PortList, Service, Workload, address::Type as Kind},
    },
    status::Status,
};

/// What a resource may measure here.
const LARGEST: usize = 64 << 10;

fn session() -> (Session, Arc<Cache>) {
    let cache = Arc::new(Cache::new(Node::default()));
    let status = Arc::new(Status::register(&prometheus::Registry::new()).unwrap());
    (Session::new(cache.clone(), status), cache)
}

/// The responses of a recording as gRPC sends them.
fn recorded(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name).with_extension("bin");
    let file = fs::read(path).unwrap();
    let (mut rest, mut stream) = (&file[..], Vec::new());
    while let Some(length) = rest.first_chunk::<4>() {
        let (message, after) = rest.split_at(4 + u32::from_be_bytes(*length) as usize);
        stream.push(0);
        stream.extend_from_slice(message);
        rest = after;
    }
    stream
}

/// Takes a stream in pieces up to its end or the first error; after each response what is held, and what is answered, stays in bounds.
fn take(stream: &[u8], piece: usize) -> Result<Arc<Cache>, TestCaseError> {
    let (mut session, cache) = session();
    let mut framing = Framing::new(LARGEST);
    for piece in stream.chunks(piece) {
        framing.push(Bytes::copy_from_slice(piece));
        loop {
            match framing.next() {
                Ok(Some(Part::Field(number, content))) => session.field(number, content),
                Ok(Some(Part::End(bytes))) => {
                    let reply = session.finish(bytes, Instant::now());
                    let limit = 64 << 10;
                    prop_assert!(reply.error_detail.is_none_or(|detail| detail.encoded_len() < limit));
                    holds(&cache, stream.len())?;
                }
                Ok(None) => break,
                Err(_) => return Ok(cache),
            }
        }
    }
    Ok(cache)
}

/// Names are those of what is held under them, and no more is held than could have been sent.
fn holds(cache: &Cache, sent: usize) -> Result<(), TestCaseError> {
    let mesh = cache.load();
    for workload in mesh.workloads() {
        prop_assert!(mesh.workload(&workload.uid).is_some() && mesh.service(&workload.uid).is_none());
        prop_assert!(!workload.uid.is_empty() && workload.uid.len() <= 4096 && workload.name.len() <= 4096);
    }
    for service in mesh.services() {
        let key = service.key();
        prop_assert!(mesh.service(&key).is_some() && mesh.workload(&key).is_none() && key.len() <= 4096);
    }
    prop_assert!(mesh.workload_count() + mesh.service_count() + mesh.policies().len() <= sent);
    prop_assert!(cache.interner().len() <= sent);
    Ok(())
}

#[test]
fn the_recordings_themselves_are_taken() {
    for (name, workloads) in [("01-initial", 17), ("15-burst", 0)] {
        let cache = take(&recorded(name), 1000).unwrap();
        assert_eq!(cache.load().workload_count(), workloads, "{name}");
    }
}

/// A recording with bytes changed, cut and put in, and the size of the pieces that it comes in.
fn changed() -> impl Strategy<Value = (Vec<u8>, usize)> {
    let names = ["01-initial", "05-service-changed", "10-authorization", "11-workload-type", "14-network"];
    let recordings = prop::sample::select(names.map(recorded).to_vec());
    let changes = vec((any::<Index>(), 0..4_usize, vec(any::<u8>(), 0..4)), 1..12);
    (recordings, changes, 1..5000_usize).prop_map(|(mut stream, changes, piece)| {
        for (at, cut, put) in changes {
            let at = at.index(stream.len());
            stream.splice(at..(at + cut).min(stream.len()), put);
        }
        (stream, piece)
    })
}

#[test]
fn fuzz_changed_responses() {
    fuzz("changed responses", &changed(), |(stream, piece)| take(&stream, piece).map(drop));
}

#[test]
fn fuzz_fields_of_a_response() {
    let fields = vec((0..8_u32, vec(any::<u8>(), 0..200)), 0..40);
    fuzz("fields of a response", &(fields, any::<bool>()), |(fields, authorization)| {
        let (mut session, cache) = session();
        let kind = if authorization { super::AUTHORIZATION } else { super::ADDRESS };
        session.field(4, Bytes::from_static(kind.as_bytes()));
        let sent = fields.iter().map(|(_, content)| content.len()).sum::<usize>() + kind.len();
        for (number, content) in fields {
            session.field(number, content.into());
        }
        session.finish(sent, Instant::now());
        holds(&cache, sent)
    });
}

/// A resource as the control plane would encode it, its texts, addresses and numbers anything.
fn resource() -> impl Strategy<Value = (bool, Vec<u8>)> {
    let text = || prop_oneof![3 => "[a-z./:-]{0,12}", 1 => any::<String>(), 1 => Just("x".repeat(5000))];
    let address = || prop_oneof![vec(any::<u8>(), 4), vec(any::<u8>(), 16), vec(any::<u8>(), 0..20)];
    let port = (any::<u32>(), any::<u32>());
    let workload = (text(), text(), text(), vec(address(), 0..4), vec((text(), vec(port, 0..3)), 0..3), any::<i32>());
    let workload = workload.prop_map(|(uid, name, namespace, addresses, services, number)| {
        let ports = |ports: Vec<(u32, u32)>| PortList {
            ports: ports.into_iter().map(|(service_port, target_port)| Port { service_port, target_port }).collect(),
        };
        Kind::Workload(Workload {
            uid,
            name,
            namespace,
            addresses: addresses.into_iter().map(Into::into).collect(),
            services: services.into_iter().map(|(name, list)| (name, ports(list))).collect(),
            status: number,
            network_mode: number,
            ..Workload::default()
        })
    });
    let service = (text(), text(), text(), vec((text(), address()), 0..4), vec(port, 0..4));
    let service = service.prop_map(|(name, namespace, hostname, addresses, ports)| {
        let addresses =
            addresses.into_iter().map(|(network, address)| NetworkAddress { network, address: address.into() });
        let ports = ports.into_iter().map(|(service_port, target_port)| Port { service_port, target_port });
        Kind::Service(Service {
            name,
            namespace,
            hostname,
            addresses: addresses.collect(),
            ports: ports.collect(),
            ..Service::default()
        })
    });
    let encoded = prop_oneof![workload, service].prop_map(|kind| Address { r#type: Some(kind) }.encode_to_vec());
    (any::<bool>(), encoded)
}

#[test]
fn fuzz_resources() {
    fuzz("resources", &vec((resource(), "[a-z]{0,3}"), 1..8), |resources| {
        let (mut session, cache) = session();
        session.field(4, Bytes::from_static(super::ADDRESS.as_bytes()));
        let mut sent = super::ADDRESS.len();
        for ((removed, value), name) in resources {
            if removed {
                sent += name.len();
                session.field(6, name.into());
                continue;
            }
            let any = prost_types::Any { type_url: super::ADDRESS.to_owned(), value };
            let resource = Resource { name, resource: Some(any), ..Resource::default() }.encode_to_vec();
            sent += resource.len();
            session.field(2, resource.into());
        }
        let reply = session.finish(sent, Instant::now());
        prop_assert!(reply.error_detail.is_none_or(|detail| detail.encoded_len() < 64 << 10));
        holds(&cache, sent)
    });
}
