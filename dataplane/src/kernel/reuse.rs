//! Maps that an earlier daemon pinned: compared with what the programs expect before they are used again.

use std::{fs, os::fd::AsFd as _, path::Path};

use abi::{
    joined::Joined,
    maps::{self as names, ASIDE, CURSORS, ENDPOINTS, RING, SERVICES, UNTOLD},
    steering::{EndpointKey, EndpointValue, ServiceKey, ServiceValue},
};
use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData},
};
use aya_obj::Object;

use super::{Options, carry::Older, map::Handle, object, pins::Pins, ring, segments::Segments};

/// `BPF_NOEXIST`: what is there already is newer.
const NEW: u64 = 1;

/// Every map that is pinned.
pub(super) const PINNED: [&str; 18] = [
    names::STORAGE,
    names::MANAGER,
    names::SIGNALLED,
    SERVICES,
    ENDPOINTS,
    names::WAYPOINTS,
    RING,
    CURSORS,
    names::DOORBELL,
    ASIDE,
    UNTOLD,
    names::SUMS,
    names::COUNTERS,
    names::SETTINGS,
    names::QUIET,
    names::SOCKETS,
    names::JOINED,
    names::SEEKERS,
];

/// What was found of an earlier daemon.
#[derive(Default)]
pub(super) struct Found {
    /// The maps are those of an earlier daemon.
    pub(super) taken_over: bool,
    /// Slots of each ring that waits to be read.
    pub(super) ring_slots: Option<u32>,
    /// Ends of connections that there is room for beside the rings.
    pub(super) max_connections: Option<u32>,
    /// Maps of another size or version than is wanted now, whose entries are to be copied.
    old: Vec<(&'static str, MapData)>,
    /// What another version has left.
    pub(super) older: Older,
}

impl Found {
    /// Looks at what is pinned. Maps of another size are moved and wait to be copied, as are those that a daemon before moved and did not
    /// come to copy; where any is not what the programs expect, all of them are removed, with a warning.
    pub(super) fn look(pins: &Pins, options: &Options) -> Result<Self> {
        let object = Object::parse(object::BYTES).context("the programs are broken")?;
        let mut found = Self::default();
        for name in PINNED {
            let path = pins.map(name);
            if !fs::exists(&path).with_context(|| format!("cannot look for {}", path.display()))? {
                continue;
            }
            let wanted = object.maps.get(name).with_context(|| format!("the programs have no map {name}"))?;
            match found.compare(name, &path, wanted, options) {
                Ok(()) => found.taken_over = true,
                Err(error) => {
                    tracing::warn!(
                        "{} was not made by this version of meshd ({error:#}): all maps are made anew, and counters begin again",
                        path.display()
                    );
                    let directory = path.parent().context("a map has a directory")?;
                    Pins::remove_directory(directory, None)
                        .and_then(|()| fs::create_dir(directory))
                        .with_context(|| format!("cannot remove {}", directory.display()))?;
                    // Counters know how far a ring was read that is gone now.
                    Segments::remove(pins)?;
                    return Ok(Self::default());
                }
            }
        }
        for (name, map) in &found.old {
            pins.move_map(name, map).with_context(|| format!("cannot move {}", pins.map(name).display()))?;
        }
        found.old.clear();
        for name in PINNED {
            // The last one that was moved is the newest.
            for path in pins.moved_maps(name).into_iter().rev() {
                let map = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
                found.old.push((name, map));
            }
        }
        found.older = Older::look(pins);
        for (name, map) in found.older.copied() {
            let wanted = object.maps.get(name).with_context(|| format!("the programs have no map {name}"))?;
            let info = map.info()?;
            if (info.key_size(), info.value_size()) == (wanted.key_size(), wanted.value_size()) {
                found.old.push((name, map));
            }
        }
        Ok(found)
    }

    fn compare(&mut self, name: &'static str, path: &Path, wanted: &aya_obj::Map, options: &Options) -> Result<()> {
        let map = MapData::from_pin(path)?;
        let info = map.info()?;
        let kind = info.map_type().map(|kind| kind as u32)?;
        let is = (kind, info.key_size(), info.value_size(), info.map_flags());
        let expected = (wanted.map_type(), wanted.key_size(), wanted.value_size(), wanted.map_flags());
        anyhow::ensure!(is == expected, "kind, sizes and flags are {is:?}, not {expected:?}");
        let entries = match name {
            SERVICES => options.max_services,
            ENDPOINTS => options.max_endpoints,
            // What is in there waits to be read, and programs go on putting more there.
            ASIDE => {
                self.max_connections = Some(info.max_entries());
                return Ok(());
            }
            UNTOLD => return Ok(()),
            RING => {
                let (entries, rings) = (info.max_entries(), ring::Size::of(options)?.rings);
                let slots = entries / rings;
                anyhow::ensure!(slots.is_power_of_two() && slots * rings == entries, "it holds {entries} records");
                self.ring_slots = Some(slots);
                return Ok(());
            }
            CURSORS => ring::Size::of(options)?.rings,
            _ => wanted.max_entries(),
        };
        if info.max_entries() != entries {
            anyhow::ensure!(matches!(name, SERVICES | ENDPOINTS), "it holds {} entries", info.max_entries());
            tracing::info!(map = name, from = info.max_entries(), to = entries, "the size of a map changes");
            self.old.push((name, map));
        }
        Ok(())
    }

    /// Tells whether [`Found::copy`] has anything to do.
    pub(super) fn is_moving(&self) -> bool {
        !self.old.is_empty()
    }

    /// Unpins the maps of another size. To be called when all that they hold was copied, and no program uses them.
    pub(super) fn forget_moved(&self, pins: &Pins) -> Result<()> {
        PINNED
            .iter()
            .try_for_each(|name| pins.remove_moved(name).with_context(|| format!("cannot remove the old {name}")))
    }

    /// Copies what the maps of another size or version hold. To be called before the programs take over, so that they find it, and again
    /// after, for what came meanwhile.
    pub(super) fn copy(&self, ebpf: &Ebpf) -> Result<()> {
        for (name, old) in &self.old {
            let copied = match *name {
                SERVICES => copy::<{ size_of::<ServiceKey>() }, { size_of::<ServiceValue>() }>(old, ebpf, name),
                ENDPOINTS => copy::<{ size_of::<EndpointKey>() }, { size_of::<EndpointValue>() }>(old, ebpf, name),
                names::JOINED => copy::<8, { size_of::<Joined>() }>(old, ebpf, name),
                _ => copy::<8, 4>(old, ebpf, name),
            };
            let left = copied.with_context(|| format!("cannot copy the map {name}"))?;
            if left > 0 {
                tracing::warn!(map = name, left, "the map is too small for what it held");
            }
        }
        Ok(())
    }
}

/// Copies the entries that a map does not have; returns how many found no room.
fn copy<const K: usize, const V: usize>(old: &MapData, ebpf: &Ebpf, name: &str) -> Result<usize> {
    let old = MapData::from_fd(old.fd().as_fd().try_clone_to_owned()?)?;
    let old: HashMap<_, [u8; K], [u8; V]> = Map::HashMap(old).try_into()?;
    let mut new: HashMap<_, [u8; K], [u8; V]> = Handle::of(ebpf, name)?.open()?;
    let mut left = 0;
    for entry in old.iter() {
        let (key, value) = entry?;
        if new.insert(key, value, NEW).is_err() && new.get(&key, 0).is_err() {
            left += 1;
        }
    }
    Ok(left)
}
