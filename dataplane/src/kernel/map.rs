//! Handles of maps that outlive and do not depend on the loader's own.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Map, MapData},
};

/// Why a map was not changed.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// It has as many entries as it can hold.
    #[error("the map of {what} is full: it holds {capacity}{}", flag.map(|flag| format!("; {flag} makes it larger")).unwrap_or_default())]
    Full {
        /// What the map holds.
        what: &'static str,
        /// How many.
        capacity: u32,
        /// The flag that sets its size, if one does.
        flag: Option<&'static str>,
    },
    /// The kernel refused for another reason.
    #[error("the map of {what} could not be changed")]
    Refused {
        /// What the map holds.
        what: &'static str,
        /// The kernel's reason.
        source: aya::maps::MapError,
    },
}

/// What a map holds, for people.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    pub(super) what: &'static str,
    pub(super) flag: Option<&'static str>,
    pub(super) capacity: u32,
}

impl Named {
    /// Explains a failed insertion.
    pub(super) fn refused(self, source: aya::maps::MapError) -> MapError {
        let Self { what, flag, capacity } = self;
        match errno(&source) {
            Some(libc::E2BIG | libc::ENOSPC) => MapError::Full { what, capacity, flag },
            _ => MapError::Refused { what, source },
        }
    }

    /// Lets pass that there was nothing to remove.
    pub(super) fn removed(self, result: Result<(), aya::maps::MapError>) -> Result<(), MapError> {
        match result {
            Err(aya::maps::MapError::KeyNotFound) => Ok(()),
            Err(source) if errno(&source) == Some(libc::ENOENT) => Ok(()),
            Err(source) => Err(MapError::Refused { what: self.what, source }),
            Ok(()) => Ok(()),
        }
    }
}

fn errno(error: &aya::maps::MapError) -> Option<i32> {
    match error {
        aya::maps::MapError::SyscallError(failed) => failed.io_error.raw_os_error(),
        aya::maps::MapError::IoError(error) => error.raw_os_error(),
        _ => None,
    }
}

/// A map by its own file descriptor.
#[derive(Debug)]
pub(super) struct Handle(OwnedFd);

impl Handle {
    /// Makes a handle of one of the object's maps.
    pub(super) fn of(ebpf: &Ebpf, name: &str) -> Result<Self> {
        let map = ebpf.map(name).with_context(|| format!("the programs have no map {name}"))?;
        let (Map::Array(data)
        | Map::HashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data)
        | Map::SockHash(data)
        | Map::LruHashMap(data)
        | Map::SkStorage(data)) = map
        else {
            anyhow::bail!("map {name} is of a kind that no one expects");
        };
        Ok(Self(data.fd().as_fd().try_clone_to_owned().with_context(|| format!("cannot share map {name}"))?))
    }

    /// Opens the map as what it is.
    pub(super) fn open<T>(&self) -> Result<T>
    where
        T: TryFrom<Map, Error = aya::maps::MapError>,
    {
        let data = MapData::from_fd(self.duplicate()?)?;
        Ok(Map::from_map_data(data)?.try_into()?)
    }

    /// Makes another descriptor of the map.
    pub(super) fn duplicate(&self) -> Result<OwnedFd> {
        self.0.try_clone().context("cannot share a map")
    }
}
