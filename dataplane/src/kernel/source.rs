//! Everything that the record thread reads.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use abi::{
    Record,
    maps::{self as sizes, counter, setting},
};
use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray},
};

use super::{Options, map::Handle, ring::Ring, snapshot::Snapshot, steering};

/// Slot in which telemetry leaves the iterator's link while it is attached.
pub(super) type Iterator = Arc<Mutex<Option<Arc<OwnedFd>>>>;

type Counters = [u64; counter::COUNT as usize];
type AsideKey = [u64; 2];

/// How full the maps are: entries in use, and how many they can hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Namespaces that mesh state manages.
    pub manager: (u32, u32),
    /// Namespaces that the CNI signal enrolled.
    pub signalled: (u32, u32),
    /// Service addresses and ports.
    pub services: (u32, u32),
    /// Endpoints of all services together.
    pub endpoints: (u32, u32),
    /// Ends of connections that wait because the ring was full.
    pub aside: (u32, u32),
    /// Bytes that wait in the ring, and its size.
    pub ring_bytes: (u64, u64),
    /// Times that service map or endpoint map had no room.
    pub steering_refused: u64,
    /// Times that records of the ring were given up because a length could not be true.
    pub ring_broken: u64,
}

/// The one reader of what the telemetry programs write.
pub struct Source {
    ring: Ring,
    aside: HashMap<MapData, AsideKey, [u8; size_of::<Record>()]>,
    counters: PerCpuArray<MapData, Counters>,
    settings: Array<MapData, u64>,
    manager: HashMap<MapData, u64, u32>,
    signalled: HashMap<MapData, u64, u32>,
    steering: Arc<steering::Used>,
    iterator: Iterator,
    pass: u32,
    /// What the kernel had put aside when that was last read.
    put_aside: u64,
    aside_entries: u32,
    ring_bytes: u32,
}

impl Source {
    pub(super) fn new(
        ebpf: &Ebpf,
        options: &Options,
        iterator: Iterator,
        steering: Arc<steering::Used>,
    ) -> Result<Self> {
        Ok(Self {
            ring: Ring::open(Handle::of(ebpf, sizes::RING)?.duplicate()?, options.ring_bytes)?,
            aside: Handle::of(ebpf, sizes::ASIDE)?.open()?,
            counters: Handle::of(ebpf, sizes::COUNTERS)?.open()?,
            settings: Handle::of(ebpf, sizes::SETTINGS)?.open()?,
            manager: Handle::of(ebpf, sizes::MANAGER)?.open()?,
            signalled: Handle::of(ebpf, sizes::SIGNALLED)?.open()?,
            steering,
            iterator,
            pass: 0,
            put_aside: 0,
            aside_entries: options.max_connections,
            ring_bytes: options.ring_bytes,
        })
    }

    /// Waits until the kernel says that the ring fills up, at most this long. Records that are there already do not end the wait: without
    /// need the kernel wakes no one, so come back by yourself every 20 ms.
    ///
    /// # Errors
    /// The kernel refused to wait.
    pub fn wait(&self, at_most: Duration) -> Result<()> {
        self.ring.wait(at_most)
    }

    /// Hands over every record in the ring and returns how many there were.
    pub fn drain_ring(&mut self, record: &mut dyn FnMut(&[u8])) -> usize {
        self.ring.drain(record)
    }

    /// Begins a pass over all live connections, which come through the ring; nothing where no iterator is attached.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn snapshot(&mut self) -> Result<Option<Snapshot>> {
        let Some(link) = self.iterator.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return Ok(None) };
        // A socket that was never shown has pass 0.
        self.pass = self.pass.checked_add(1).unwrap_or(1);
        self.settings.set(setting::PASS, u64::from(self.pass), 0).context("cannot number the pass")?;
        self.settings.set(setting::STOPPED, 0, 0).context("cannot begin a pass")?;
        Snapshot::begin(link).map(Some)
    }

    /// Goes on with a pass and hands over every record in the ring; tells whether there is more to show.
    ///
    /// # Errors
    /// The kernel refused; the pass is not complete.
    pub fn go_on(&mut self, pass: &mut Snapshot, record: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let settings = &mut self.settings;
        let more = pass.go_on(|| {
            let missed = settings.get(&setting::STOPPED, 0).context("cannot tell how the walk went")? != 0;
            settings.set(setting::STOPPED, 0, 0).context("cannot begin a walk")?;
            Ok(missed)
        })?;
        self.ring.drain(record);
        Ok(more)
    }

    /// Hands over, and then removes, the ends of connections that found the ring full. Returns how many there were.
    ///
    /// # Errors
    /// The map could not be read.
    pub fn drain_aside(&mut self, record: &mut dyn FnMut(&[u8])) -> Result<usize> {
        // The kernel walks all of the table, which is large and as a rule empty. It counts what it puts there, afterwards.
        let put_aside = self.counters()?[counter::ASIDE as usize];
        if put_aside == self.put_aside {
            return Ok(0);
        }
        self.put_aside = put_aside;
        // Walking on from a key that was removed begins anew: first all keys, then the entries.
        let keys = self.aside.keys().collect::<Result<Vec<_>, MapError>>().context("cannot read what was put aside")?;
        for key in &keys {
            // Nobody writes an entry twice, and nobody else removes one.
            record(&self.aside.get(key, 0).context("cannot read what was put aside")?);
            self.aside.remove(key).context("cannot remove what was put aside")?;
        }
        Ok(keys.len())
    }

    /// Sums up the kernel's counters over all CPUs: totals since the programs were loaded.
    ///
    /// # Errors
    /// The map could not be read.
    pub fn counters(&self) -> Result<Counters> {
        let each = self.counters.get(&0, 0).context("cannot read the kernel's counters")?;
        Ok(each.iter().fold([0; counter::COUNT as usize], |mut sum, cpu| {
            sum.iter_mut().zip(cpu).for_each(|(sum, cpu)| *sum += cpu);
            sum
        }))
    }

    /// Tells how full the maps are.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn usage(&self) -> Result<Usage> {
        let (services, endpoints, steering_refused) = self.steering.now();
        Ok(Usage {
            manager: (entries(self.manager.keys())?, sizes::MANAGER_ENTRIES),
            signalled: (entries(self.signalled.keys())?, sizes::MANAGER_ENTRIES),
            services,
            endpoints,
            aside: (entries(self.aside.keys())?, self.aside_entries),
            ring_bytes: (self.ring.pending(), self.ring_bytes.into()),
            steering_refused,
            ring_broken: self.ring.broken(),
        })
    }
}

fn entries<K>(keys: impl std::iter::Iterator<Item = Result<K, MapError>>) -> Result<u32> {
    let mut count = 0;
    for key in keys {
        key.context("cannot count the entries of a map")?;
        count += 1;
    }
    Ok(count)
}
