//! Maps of another version: what of them goes on in ours.

use std::{os::fd::AsFd as _, path::PathBuf, time::Duration};

use abi::{
    maps::{ENDPOINTS, JOINED, MANAGER, SERVICES, SETTINGS, SIGNALLED, SOCKETS, STORAGE},
    storage::Storage,
};
use anyhow::{Context as _, Result};
use aya::{
    Btf, Ebpf,
    maps::{MapData, MapType},
    programs::{Iter, ProgramError},
};

use super::{accelerate, bpf, explain, links, pins::Pins};

/// The program that copies socket storage.
pub(super) const ITERATOR: &str = "carry";

/// Maps whose entries are copied where keys and values have our sizes.
const COPIED: [&str; 5] = [MANAGER, SIGNALLED, SERVICES, ENDPOINTS, JOINED];

/// What another version has pinned.
#[derive(Default)]
pub(super) struct Older {
    directories: Vec<PathBuf>,
    storage: Option<MapData>,
    /// Sockets of its map may have something to read that came beside TCP.
    unread: bool,
}

impl Older {
    /// Looks for maps of other versions.
    pub(super) fn look(pins: &Pins) -> Self {
        let directories = pins.other_maps();
        let storage = directories.iter().find_map(|directory| {
            let map = MapData::from_pin(directory.join(STORAGE)).ok()?;
            (map.info().ok()?.map_type().ok()? == MapType::SkStorage).then_some(map)
        });
        Self { directories, storage, unread: false }
    }

    /// Tells whether there are any.
    pub(super) fn is_there(&self) -> bool {
        !self.directories.is_empty()
    }

    /// Has what has joined under the other version go by TCP from now on, and waits until what came beside it was read. Nothing joins
    /// there any more: those sockets will have left, with what they sent.
    pub(super) fn quiesce(&mut self, pins: &Pins, deadline: Duration) -> Result<()> {
        for directory in &self.directories {
            self.unread |= !accelerate::quiesce_left(pins, &directory.join(SETTINGS), deadline)?;
        }
        if self.is_there() {
            links::remove(pins, accelerate::JOIN).context("cannot remove a pin")?;
        }
        Ok(())
    }

    /// Opens the maps whose entries go on, by name.
    pub(super) fn copied(&self) -> impl Iterator<Item = (&'static str, MapData)> + '_ {
        let each = self.directories.iter().flat_map(|directory| COPIED.map(|name| (name, directory.join(name))));
        each.filter_map(|(name, path)| MapData::from_pin(path).ok().map(|map| (name, map)))
    }

    /// Returns how much of a socket's storage goes on, bytes.
    pub(super) fn carried_bytes(&self) -> u32 {
        let old = self.storage.as_ref().and_then(|map| map.info().ok()).map_or(0, |info| info.value_size());
        old.min(size_of::<Storage>() as u32)
    }

    /// Gives every socket that has a storage of the other version one of ours, unless it has.
    pub(super) fn carry(&self, ebpf: &mut Ebpf) -> Result<()> {
        let Some(storage) = &self.storage else { return Ok(()) };
        let btf = Btf::from_sys_fs().context("cannot read the kernel's types, /sys/kernel/btf/vmlinux")?;
        let program: &mut Iter = ebpf.program_mut(ITERATOR).context("there is no program that carries")?.try_into()?;
        match program.load("bpf_sk_storage_map", &btf) {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
            Err(error) => return Err(explain::load(error.into(), "load what carries socket storage over")),
        }
        let link = bpf::link_iterator(program.fd()?.as_fd(), Some(storage.fd().as_fd()))
            .map_err(|error| explain::load(error.into(), "tie an iterator to socket storage of another version"))?;
        bpf::iterate(link.as_fd()).context("cannot iterate over socket storage")
    }

    /// Removes them, and takes the program out of the kernel. A map of sockets that have something to read stays until the next start or removal.
    pub(super) fn remove(&self, ebpf: &mut Ebpf) -> Result<()> {
        for directory in &self.directories {
            let sockets = directory.join(SOCKETS);
            if self.unread {
                tracing::warn!("programs have not read all that came beside TCP: {} stays", sockets.display());
            }
            let kept = self.unread.then_some(sockets);
            Pins::remove_directory(directory, kept.as_deref())
                .with_context(|| format!("cannot remove {}", directory.display()))?;
            let from = directory.file_name().unwrap_or_default().display();
            tracing::info!(%from, to = abi::maps::VERSION, "another version was replaced; records that it had not read are lost");
        }
        let program: &mut Iter = ebpf.program_mut(ITERATOR).context("there is no program that carries")?.try_into()?;
        match program.unload() {
            Ok(()) | Err(ProgramError::NotLoaded) => Ok(()),
            Err(error) => Err(error).context("cannot unload what carries socket storage over"),
        }
    }
}
