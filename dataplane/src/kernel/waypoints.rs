//! Which namespaces are a waypoint's own: they dial what is behind that waypoint directly, so that nothing goes in a circle.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use abi::{
    maps::{WAYPOINT_ENTRIES, WAYPOINTS},
    steering::WaypointKey,
};
use anyhow::Result;
use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use rustc_hash::{FxHashMap, FxHashSet};
use zerocopy::transmute;

use super::map::{Handle, MapError, Named};

type Map = HashMap<MapData, [u8; size_of::<WaypointKey>()], u32>;
/// A namespace's cookie and a waypoint's number.
type Pair = (u64, u32);

const NAMED: Named = Named { what: "waypoints' namespaces", flag: None, capacity: WAYPOINT_ENTRIES };

/// The map of waypoints' namespaces. One side tells which addresses are waypoints', the other which namespaces have them; what follows
/// from both is written before either goes on.
#[derive(Clone, Debug)]
pub struct Waypoints(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    map: Map,
    written: FxHashSet<Pair>,
    /// Numbers of the waypoints that have an endpoint at an address.
    numbers: FxHashMap<IpAddr, Vec<u32>>,
    /// Addresses of namespaces, by their cookies; none as long as nobody has looked: what a daemon before has written stands.
    namespaces: Option<FxHashMap<u64, Vec<IpAddr>>>,
}

impl Waypoints {
    pub(super) fn new(ebpf: &Ebpf) -> Result<Self> {
        let map: Map = Handle::of(ebpf, WAYPOINTS)?.open()?;
        let pair = |key| {
            let WaypointKey { netns, waypoint, .. } = transmute!(key);
            (netns, waypoint)
        };
        let written = map.keys().map(|key| key.map(pair)).collect::<Result<_, _>>()?;
        let numbers = FxHashMap::default();
        Ok(Self(Arc::new(Mutex::new(State { map, written, numbers, namespaces: None }))))
    }

    /// Says which addresses are endpoints of which waypoints on this node.
    ///
    /// # Errors
    /// [`MapError::Full`], or the kernel refused.
    pub fn set_addresses(&self, waypoints: &FxHashMap<u32, Vec<IpAddr>>) -> Result<(), MapError> {
        self.change(|state| {
            state.numbers.clear();
            for (number, address) in waypoints.iter().flat_map(|(n, all)| all.iter().map(move |a| (*n, *a))) {
                state.numbers.entry(address).or_default().push(number);
            }
        })
    }

    /// Says which addresses each namespace has, by its cookie.
    ///
    /// # Errors
    /// As [`Waypoints::set_addresses`].
    pub fn set_namespaces(&self, namespaces: impl Iterator<Item = (u64, Vec<IpAddr>)>) -> Result<(), MapError> {
        self.change(|state| state.namespaces = Some(namespaces.collect()))
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> Result<(), MapError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let state = &mut *state;
        let Some(namespaces) = &state.namespaces else { return Ok(()) };
        let of = |address| state.numbers.get(address).into_iter().flatten();
        let pairs = namespaces.iter().flat_map(|(netns, all)| all.iter().flat_map(of).map(|n| (*netns, *n)));
        let wanted: FxHashSet<Pair> = pairs.collect();
        for pair in state.written.difference(&wanted) {
            NAMED.removed(state.map.remove(&key(*pair)))?;
        }
        state.written.retain(|pair| wanted.contains(pair));
        for pair in wanted {
            if !state.written.contains(&pair) {
                state.map.insert(key(pair), 1, 0).map_err(|error| NAMED.refused(error))?;
                state.written.insert(pair);
            }
        }
        Ok(())
    }
}

fn key((netns, waypoint): Pair) -> [u8; size_of::<WaypointKey>()] {
    transmute!(WaypointKey { netns, waypoint, reserved: 0 })
}
