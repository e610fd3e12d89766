//! Where connects to service addresses go.

mod alias;

use std::{
    collections::HashMap as Table,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use abi::{
    Endpoint,
    maps::{ENDPOINTS, SERVICES, SETTINGS, setting::ANY_PORT},
    steering::{DIRECT, EndpointKey, EndpointValue, ServiceKey, ServiceValue},
};
use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData},
};
use zerocopy::transmute;

use super::{
    Options, bpf,
    map::{Handle, MapError, Named},
};

type Services = HashMap<MapData, [u8; size_of::<ServiceKey>()], [u8; size_of::<ServiceValue>()]>;
type Endpoints = HashMap<MapData, [u8; size_of::<EndpointKey>()], [u8; size_of::<EndpointValue>()]>;

/// What is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dialled {
    /// An address and port; port 0 stands for those ports that have no entry of their own.
    pub address: SocketAddr,
    /// What a waypoint's own namespace dials, which goes past that waypoint.
    pub direct: bool,
}

impl From<SocketAddr> for Dialled {
    fn from(address: SocketAddr) -> Self {
        Self { address, direct: false }
    }
}

/// Where connects to an address go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Target {
    /// The endpoints, chosen at random by their weights; none refuses the connect. Those of the other address family than what is
    /// dialled are left out: the socket could not reach them.
    pub endpoints: Vec<(SocketAddr, u32)>,
    /// The number of the waypoint that they belong to; 0: of none.
    pub waypoint: u32,
}

impl Target {
    /// Makes a target of endpoints that take equal shares.
    pub fn equal(endpoints: &[SocketAddr]) -> Self {
        Self { endpoints: endpoints.iter().map(|endpoint| (*endpoint, 1)).collect(), waypoint: 0 }
    }
}

/// The service and endpoint maps, and what was written there.
///
/// A service points to a numbered set of endpoints. A set is written whole before the service points to it, so that a connect sees the
/// old one or the new one and nothing between; then the old one is removed.
#[derive(Clone, Debug)]
pub struct Steering(Arc<Mutex<State>>);

struct State {
    services: Services,
    /// The endpoint map, which is written many entries at a time.
    endpoints: OwnedFd,
    /// What each service points to now.
    programmed: Table<Dialled, ServiceValue>,
    settings: Array<MapData, u64>,
    /// How many of them stand for any port.
    any_port: usize,
    next_set: u32,
    named: (Named, Named),
    used: Arc<Used>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("programmed", &self.programmed).finish_non_exhaustive()
    }
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
        let (services, endpoints): (Services, _) = (Handle::of(ebpf, SERVICES)?.open()?, Handle::of(ebpf, ENDPOINTS)?);
        let (programmed, next_set) = programmed(&services, &mut endpoints.open()?)?;
        let used = Used {
            services: AtomicU32::new(programmed.len() as u32),
            endpoints: AtomicU32::new(programmed.values().map(|service| service.count).sum()),
            refused: AtomicU64::new(0),
            max_services: options.max_services,
            max_endpoints: options.max_endpoints,
        };
        let any_port = programmed.keys().filter(|dialled| dialled.address.port() == 0).count();
        Ok(Self(Arc::new(Mutex::new(State {
            services,
            endpoints: endpoints.duplicate()?,
            programmed,
            settings: Handle::of(ebpf, SETTINGS)?.open()?,
            any_port,
            next_set,
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

    /// Makes connects to `dialled` go to one of the target's endpoints.
    ///
    /// # Errors
    /// [`MapError::Full`], which is counted, or the kernel refused. Connects go where they want to then.
    pub fn set(&mut self, dialled: Dialled, target: &Target) -> Result<(), MapError> {
        let mut state = self.state();
        let mut result = state.set(dialled, target);
        if result.is_err() && state.programmed.contains_key(&dialled) {
            // What it had before may be gone. Without it there may be room, too.
            state.remove(dialled)?;
            result = state.set(dialled, target);
        }
        if matches!(result, Err(MapError::Full { .. })) {
            state.used.refused.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// As [`Steering::set`], for a service's address and endpoints that take equal shares.
    ///
    /// # Errors
    /// As [`Steering::set`].
    pub fn set_service(&mut self, vip: SocketAddr, endpoints: &[SocketAddr]) -> Result<(), MapError> {
        self.set(vip.into(), &Target::equal(endpoints))
    }

    /// Lets connects to `dialled` go where they want to again. It is no error if they did.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn remove(&mut self, dialled: Dialled) -> Result<(), MapError> {
        self.state().remove(dialled)
    }

    /// As [`Steering::remove`], for a service's address.
    ///
    /// # Errors
    /// As [`Steering::remove`].
    pub fn remove_service(&mut self, vip: SocketAddr) -> Result<(), MapError> {
        self.remove(vip.into())
    }

    /// Lists what is programmed.
    pub fn programmed(&self) -> Vec<Dialled> {
        self.state().programmed.keys().copied().collect()
    }

    /// Tells whether an address is programmed.
    pub fn has(&self, dialled: Dialled) -> bool {
        self.state().programmed.contains_key(&dialled)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn set(&mut self, dialled: Dialled, target: &Target) -> Result<(), MapError> {
        let set = self.next_set;
        self.next_set = self.next_set.wrapping_add(1);
        let usable = target.endpoints.iter().filter(|(endpoint, _)| is_v4(endpoint) == is_v4(&dialled.address));
        let slots = alias::slots(set, &usable.copied().collect::<Vec<_>>());
        let key = service_key(dialled);
        let value = ServiceValue { tag: key.tag(), set, count: slots.len() as u32, waypoint: target.waypoint };
        let keys: Vec<_> = (0..value.count).map(|index| endpoint_key(set, index)).collect();
        let slots: Vec<_> = slots.into_iter().map(as_endpoint).collect();
        if let Err((inserted, error)) = bpf::insert_all(self.endpoints.as_fd(), &keys, &slots) {
            self.clear(ServiceValue { count: inserted as u32, ..value })?;
            return Err(self.named.1.refused(error.into()));
        }
        if let Err(error) = self.services.insert(as_key(key), as_service(value), 0) {
            self.clear(value)?;
            return Err(self.named.0.refused(error));
        }
        let old = self.programmed.insert(dialled, value);
        self.count(old.map_or(0, |old| old.count), value.count);
        if old.is_none() && dialled.address.port() == 0 {
            self.any_port(self.any_port + 1)?;
        }
        old.map_or(Ok(()), |old| self.clear(old))
    }

    fn remove(&mut self, dialled: Dialled) -> Result<(), MapError> {
        let Some(old) = self.programmed.get(&dialled).copied() else { return Ok(()) };
        self.named.0.removed(self.services.remove(&as_key(service_key(dialled))))?;
        self.programmed.remove(&dialled);
        self.count(old.count, 0);
        self.clear(old)?;
        if dialled.address.port() == 0 { self.any_port(self.any_port.saturating_sub(1)) } else { Ok(()) }
    }

    /// Tells the programs whether they have to look for entries that stand for any port, which costs every connect elsewhere.
    fn any_port(&mut self, count: usize) -> Result<(), MapError> {
        self.any_port = count;
        let refused = |source| MapError::Refused { what: "settings", source };
        self.settings.set(ANY_PORT, u64::from(count > 0), 0).map_err(refused)
    }

    fn clear(&mut self, set: ServiceValue) -> Result<(), MapError> {
        let keys: Vec<_> = (0..set.count).map(|index| endpoint_key(set.set, index)).collect();
        let removed = bpf::remove_all(self.endpoints.as_fd(), &keys);
        removed.map_err(|error| MapError::Refused { what: self.named.1.what, source: error.into() })
    }

    /// Keeps the measures up to date: a service's endpoints were so many and are so many now.
    fn count(&self, before: u32, after: u32) {
        self.used.services.store(self.programmed.len() as u32, Ordering::Relaxed);
        // What wraps around on its way down wraps around again on its way back.
        self.used.endpoints.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }
}

/// Reads what a daemon before has programmed, and the number of the next set. Endpoints that no service points to, since it ended between
/// two steps, are removed.
fn programmed(services: &Services, endpoints: &mut Endpoints) -> Result<(Table<Dialled, ServiceValue>, u32)> {
    const READ: &str = "cannot read what was programmed before";
    let mut programmed = Table::new();
    for service in services.iter() {
        let (key, value) = service.context(READ)?;
        let (key, value): (ServiceKey, ServiceValue) = (transmute!(key), transmute!(value));
        programmed.insert(Dialled { address: key.dialled.into(), direct: key.way == DIRECT }, value);
    }
    let sets: Table<u32, u32> = programmed.values().map(|service| (service.set, service.count)).collect();
    let mut last = 0;
    let mut orphans = Vec::new();
    for key in endpoints.keys() {
        let key = key.context(READ)?;
        let EndpointKey { set, index } = transmute!(key);
        last = last.max(set);
        if sets.get(&set).is_none_or(|count| index >= *count) {
            orphans.push(key);
        }
    }
    for key in orphans {
        endpoints.remove(&key).context("cannot remove an endpoint of no service")?;
    }
    Ok((programmed, sets.into_keys().fold(last, u32::max).wrapping_add(1)))
}

/// An IPv4-mapped address is an IPv4 address.
fn is_v4(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_ipv4()
}

fn service_key(dialled: Dialled) -> ServiceKey {
    let way = if dialled.direct { DIRECT } else { [0; 2] };
    ServiceKey { dialled: Endpoint::from(dialled.address), way }
}

fn as_key(key: ServiceKey) -> [u8; size_of::<ServiceKey>()] {
    transmute!(key)
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
