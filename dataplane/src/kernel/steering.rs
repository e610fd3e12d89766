//! Where connects to service addresses go.

use std::{
    collections::HashMap as Table,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use abi::{
    Endpoint,
    maps::{ENDPOINTS, SERVICES},
    steering::{EndpointKey, EndpointValue, ServiceKey, ServiceValue},
};
use anyhow::Result;
use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use zerocopy::transmute;

use super::{
    Options,
    map::{Handle, MapError, Named},
};

type Services = HashMap<MapData, [u8; size_of::<ServiceKey>()], [u8; size_of::<ServiceValue>()]>;
type Endpoints = HashMap<MapData, [u8; size_of::<EndpointKey>()], [u8; size_of::<EndpointValue>()]>;

/// The service and endpoint maps, and what was written there.
///
/// A service points to a numbered set of endpoints. A set is written whole before the service points to it, so that a connect sees the
/// old one or the new one and nothing between; then the old one is removed.
#[derive(Clone, Debug)]
pub struct Steering(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    services: Services,
    endpoints: Endpoints,
    /// What each service points to now.
    programmed: Table<SocketAddr, ServiceValue>,
    next_set: u32,
    named: (Named, Named),
    used: Arc<Used>,
}

/// How full the two maps are, for who does not hold them.
#[derive(Debug)]
pub(super) struct Used {
    services: AtomicU32,
    endpoints: AtomicU32,
    refused: AtomicU64,
    max_services: u32,
    max_endpoints: u32,
}

impl Used {
    /// Services and endpoints, each with its capacity, and how often there was no room.
    pub(super) fn now(&self) -> ((u32, u32), (u32, u32), u64) {
        (
            (self.services.load(Ordering::Relaxed), self.max_services),
            (self.endpoints.load(Ordering::Relaxed), self.max_endpoints),
            self.refused.load(Ordering::Relaxed),
        )
    }
}

impl Steering {
    pub(super) fn new(ebpf: &Ebpf, options: &Options) -> Result<Self> {
        let used = Used {
            services: AtomicU32::new(0),
            endpoints: AtomicU32::new(0),
            refused: AtomicU64::new(0),
            max_services: options.max_services,
            max_endpoints: options.max_endpoints,
        };
        Ok(Self(Arc::new(Mutex::new(State {
            services: Handle::of(ebpf, SERVICES)?.open()?,
            endpoints: Handle::of(ebpf, ENDPOINTS)?.open()?,
            programmed: Table::new(),
            next_set: 1,
            named: (
                Named { what: "services", flag: Some("--max-services"), capacity: options.max_services },
                Named { what: "endpoints", flag: Some("--max-endpoints"), capacity: options.max_endpoints },
            ),
            used: Arc::new(used),
        }))))
    }

    pub(super) fn used(&self) -> Arc<Used> {
        Arc::clone(&self.state().used)
    }

    /// Makes connects to `vip` go to one of `endpoints`, chosen at random; with none they are refused. Endpoints of the other
    /// address family than the service address are left out: the socket could not reach them.
    ///
    /// # Errors
    /// [`MapError::Full`], which is counted, or the kernel refused. What the service had before stands then.
    pub fn set_service(&mut self, vip: SocketAddr, endpoints: &[SocketAddr]) -> Result<(), MapError> {
        let mut state = self.state();
        let result = state.set(vip, endpoints);
        if matches!(result, Err(MapError::Full { .. })) {
            state.used.refused.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// Lets connects to `vip` go where they want to again. It is no error if they did.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn remove_service(&mut self, vip: SocketAddr) -> Result<(), MapError> {
        self.state().remove(vip)
    }

    /// Lists the service addresses that are programmed.
    pub fn services(&self) -> Vec<SocketAddr> {
        self.state().programmed.keys().copied().collect()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn set(&mut self, vip: SocketAddr, endpoints: &[SocketAddr]) -> Result<(), MapError> {
        let set = self.next_set;
        self.next_set = self.next_set.wrapping_add(1);
        let mut count = 0;
        let usable = endpoints.iter().filter(|endpoint| is_v4(endpoint) == is_v4(&vip));
        for endpoint in usable {
            let value = EndpointValue { endpoint: Endpoint::from(*endpoint), reserved: [0; 2] };
            if let Err(error) = self.endpoints.insert(endpoint_key(set, count), as_endpoint(value), 0) {
                self.clear(ServiceValue { set, count })?;
                return Err(self.named.1.refused(error));
            }
            count += 1;
        }
        let value = ServiceValue { set, count };
        if let Err(error) = self.services.insert(service_key(vip), as_service(value), 0) {
            self.clear(value)?;
            return Err(self.named.0.refused(error));
        }
        let old = self.programmed.insert(vip, value);
        self.count(old.map_or(0, |old| old.count), count);
        old.map_or(Ok(()), |old| self.clear(old))
    }

    fn remove(&mut self, vip: SocketAddr) -> Result<(), MapError> {
        let Some(old) = self.programmed.get(&vip).copied() else { return Ok(()) };
        self.named.0.removed(self.services.remove(&service_key(vip)))?;
        self.programmed.remove(&vip);
        self.count(old.count, 0);
        self.clear(old)
    }

    fn clear(&mut self, set: ServiceValue) -> Result<(), MapError> {
        for index in 0..set.count {
            self.named.1.removed(self.endpoints.remove(&endpoint_key(set.set, index)))?;
        }
        Ok(())
    }

    /// Keeps the measures up to date: a service's endpoints were so many and are so many now.
    fn count(&self, before: u32, after: u32) {
        self.used.services.store(self.programmed.len() as u32, Ordering::Relaxed);
        // What wraps around on its way down wraps around again on its way back.
        self.used.endpoints.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }
}

/// An IPv4-mapped address is an IPv4 address.
fn is_v4(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_ipv4()
}

fn service_key(vip: SocketAddr) -> [u8; size_of::<ServiceKey>()] {
    transmute!(ServiceKey { vip: Endpoint::from(vip), reserved: [0; 2] })
}

fn as_service(value: ServiceValue) -> [u8; size_of::<ServiceValue>()] {
    transmute!(value)
}

fn endpoint_key(set: u32, index: u32) -> [u8; size_of::<EndpointKey>()] {
    transmute!(EndpointKey { set, index })
}

fn as_endpoint(value: EndpointValue) -> [u8; size_of::<EndpointValue>()] {
    transmute!(value)
}
