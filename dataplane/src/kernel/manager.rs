//! Which network namespaces are the mesh's.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use abi::maps::{MANAGER, MANAGER_ENTRIES, SIGNALLED, managed};
use anyhow::Result;
use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};

use super::map::{Handle, MapError, Named};

/// A managed namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// The namespace's cookie.
    pub netns: u64,
    /// Mesh state has it.
    pub mesh: bool,
    /// The CNI signal has it.
    pub signal: bool,
}

/// The managed namespaces.
///
/// What mesh state says is kept apart from what the CNI signal said, each written by one side only, so that neither can undo the other.
#[derive(Clone, Debug)]
pub struct Manager(Arc<Mutex<Maps>>);

#[derive(Debug)]
struct Maps {
    mesh: HashMap<MapData, u64, u32>,
    signalled: HashMap<MapData, u64, u32>,
}

const NAMED: Named = Named { what: "managed namespaces", flag: None, capacity: MANAGER_ENTRIES };

impl Manager {
    pub(super) fn new(ebpf: &Ebpf) -> Result<Self> {
        let maps = Maps { mesh: Handle::of(ebpf, MANAGER)?.open()?, signalled: Handle::of(ebpf, SIGNALLED)?.open()? };
        Ok(Self(Arc::new(Mutex::new(maps))))
    }

    /// Makes a namespace managed.
    ///
    /// # Errors
    /// [`MapError::Full`], or the kernel refused.
    pub fn enrol(&mut self, netns: u64) -> Result<(), MapError> {
        self.maps().mesh.insert(netns, managed::MESH, 0).map_err(|error| NAMED.refused(error))
    }

    /// Makes a namespace no longer managed by mesh state; the CNI signal's word stands. It is no error if it was not.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn remove(&mut self, netns: u64) -> Result<(), MapError> {
        NAMED.removed(self.maps().mesh.remove(&netns))
    }

    /// Takes back what the CNI signal said of a namespace that is gone.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn forget_signal(&mut self, netns: u64) -> Result<(), MapError> {
        NAMED.removed(self.maps().signalled.remove(&netns))
    }

    /// Lists all managed namespaces, by cookie. (With `manage_all` every other one is managed too, and not listed.)
    ///
    /// # Errors
    /// A map could not be read.
    pub fn list(&self) -> Result<Vec<Enrolled>> {
        let maps = self.maps();
        let mut all = BTreeMap::new();
        let new = |netns| Enrolled { netns, mesh: false, signal: false };
        for netns in maps.mesh.keys() {
            let netns = netns?;
            all.entry(netns).or_insert_with(|| new(netns)).mesh = true;
        }
        for netns in maps.signalled.keys() {
            let netns = netns?;
            all.entry(netns).or_insert_with(|| new(netns)).signal = true;
        }
        Ok(all.into_values().collect())
    }

    /// Lists the namespaces that the CNI signal enrolled, by cookie.
    ///
    /// # Errors
    /// The map could not be read.
    pub fn signalled(&self) -> Result<Vec<u64>> {
        Ok(self.maps().signalled.keys().collect::<Result<_, _>>()?)
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
