//! Maps of another version: what of them goes on in ours.

use std::{
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::Duration,
};

use abi::{
    maps::{ENDPOINTS, JOINED, MANAGER, SERVICES, SETTINGS, SIGNALLED, SOCKETS, STORAGE},
    storage::Storage,
};
use anyhow::{Context as _, Result};
use aya::{
    Btf, Ebpf,
    maps::{MapData, MapType},
};

use super::{
    accelerate, explain,
    namespaces::Namespaces,
    pins::Pins,
    walk::{self, Form, Walker},
};

/// The program that copies socket storage.
const CARRY: Form =
    Form { storage: "carry", tcp: "carry_tcp", what: "carries socket storage over", tcp_since: explain::OLDEST };

/// Maps whose entries are copied where keys and values have our sizes.
const COPIED: [&str; 5] = [MANAGER, SIGNALLED, SERVICES, ENDPOINTS, JOINED];

/// What another version has pinned.
#[derive(Default)]
pub(super) struct Older {
    directories: Vec<PathBuf>,
    storage: Option<(PathBuf, MapData)>,
    /// Sockets of its map may have something to read that came beside TCP.
    unread: bool,
}

impl Older {
    /// Looks for maps of other versions.
    pub(super) fn look(pins: &Pins) -> Self {
        let directories = pins.other_maps();
        let storage = directories.iter().find_map(|directory| {
            let path = directory.join(STORAGE);
            let map = MapData::from_pin(&path).ok()?;
            (map.info().ok()?.map_type().ok()? == MapType::SkStorage).then_some((path, map))
        });
        Self { directories, storage, unread: false }
    }

    /// Tells whether there are any.
    pub(super) fn is_there(&self) -> bool {
        !self.directories.is_empty()
    }

    /// Has what has joined under the other version go by TCP from now on, and waits until what came beside it was read. Nothing joins
    /// there any more: those sockets will have left, with what they sent.
    pub(super) fn quiesce(&mut self, pins: &Pins, proc: &Path, deadline: Duration) -> Result<()> {
        for directory in &self.directories {
            self.unread |= !accelerate::quiesce_left(pins, &directory.join(SETTINGS), proc, deadline)?;
        }
        if self.is_there() {
            accelerate::forget_left(pins)?;
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
        let old = self.storage.as_ref().and_then(|(_, map)| map.info().ok()).map_or(0, |info| info.value_size());
        old.min(size_of::<Storage>() as u32)
    }

    /// Returns where the socket storage of the other version is pinned.
    pub(super) fn storage(&self) -> Option<&Path> {
        self.storage.as_ref().map(|(path, _)| path.as_path())
    }

    /// Gives every socket that has a storage of the other version one of ours, unless it has. `every` namespace may have such sockets.
    pub(super) fn carry(&self, ebpf: &mut Ebpf, every: &Namespaces) -> Result<()> {
        let Some((_, storage)) = &self.storage else { return Ok(()) };
        let btf = Btf::from_sys_fs().context("cannot read the kernel's types, /sys/kernel/btf/vmlinux")?;
        let walker = Walker::new(ebpf, &btf, CARRY, storage.fd().as_fd(), every)?;
        walker.iterate(&mut walk::settings(ebpf)?)
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
        for name in [CARRY.storage, CARRY.tcp] {
            walk::unload(ebpf, name)?;
        }
        Ok(())
    }
}
