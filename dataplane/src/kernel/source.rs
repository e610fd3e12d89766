//! Everything that the record thread reads.

use std::{
    os::fd::AsFd as _,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use abi::{
    Record,
    maps::{self as sizes, counter, setting},
    sum::{Sum, SumKey},
};
use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError, PerCpuArray},
};

use super::{
    Options,
    map::Handle,
    ring::{Rings, Size},
    snapshot::Snapshot,
    steering,
    sys::{self, Mapping},
    walk::{Settings, Walker},
};

/// Slot in which telemetry leaves what walks over connections while it is attached.
pub(super) type Iterator = Arc<Mutex<Option<Arc<Walker>>>>;

/// The kernel's counters, by the numbers in [`counter`].
pub type Counters = [u64; counter::COUNT as usize];
type Entries = HashMap<MapData, [u64; 2], [u8; size_of::<Record>()]>;

/// Far above what any program takes.
const SETTLED: Duration = Duration::from_millis(50);

/// By what the end of a connection that found the ring full is found.
#[derive(Clone, Copy, Debug)]
pub struct AsideKey {
    untold: bool,
    /// Socket cookie and begin.
    key: [u64; 2],
}

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
    /// Those of connections that were never heard of.
    pub untold: (u32, u32),
    /// What these were added up to when there were too many of them.
    pub sums: (u32, u32),
    /// Records that wait in the rings, and how many those can hold.
    pub ring: (u64, u64),
    /// Times that service map or endpoint map had no room.
    pub steering_refused: u64,
    /// Records of the rings that were given up because a slot held what can not be true.
    pub given_up: u64,
}

/// The one reader of what the telemetry programs write.
pub struct Source {
    ring: Rings,
    aside: Entries,
    untold: Entries,
    sums: HashMap<MapData, [u8; size_of::<SumKey>()], [u8; size_of::<Sum>()]>,
    counters: PerCpuArray<MapData, Counters>,
    settings: Settings,
    /// The settings again, for those who walk.
    walked: Handle,
    manager: HashMap<MapData, u64, u32>,
    signalled: HashMap<MapData, u64, u32>,
    steering: Arc<steering::Used>,
    iterator: Iterator,
    pass: u32,
    /// Cookies of connections in which a pass found nothing new.
    quiet: Mapping,
    /// The next pass is to show those, too.
    whole: bool,
    /// What the kernel had put aside when that was last read.
    put_aside: u64,
    /// What it had added up when sums were last read.
    summed: u64,
    aside_entries: u32,
    untold_entries: u32,
}

impl Source {
    pub(super) fn new(
        ebpf: &Ebpf,
        options: &Options,
        iterator: Iterator,
        steering: Arc<steering::Used>,
    ) -> Result<Self> {
        let walked = Handle::of(ebpf, sizes::SETTINGS)?;
        let settings: Settings = walked.open()?;
        // Sockets may be marked with the passes of a daemon before.
        let pass = settings.get(&setting::PASS, 0).context("cannot read the number of the last pass")? as u32;
        let quiet = Handle::of(ebpf, sizes::QUIET)?.duplicate()?;
        let quiet = Mapping::new(quiet.as_fd(), 0, sizes::QUIET_ENTRIES as usize * size_of::<u64>(), false)
            .context("cannot map what is quiet")?;
        Ok(Self {
            ring: Rings::open(
                &Handle::of(ebpf, sizes::RING)?.duplicate()?,
                &Handle::of(ebpf, sizes::CURSORS)?.duplicate()?,
                Handle::of(ebpf, sizes::DOORBELL)?.duplicate()?,
                Size::of(options)?,
            )?,
            aside: Handle::of(ebpf, sizes::ASIDE)?.open()?,
            untold: Handle::of(ebpf, sizes::UNTOLD)?.open()?,
            sums: Handle::of(ebpf, sizes::SUMS)?.open()?,
            counters: Handle::of(ebpf, sizes::COUNTERS)?.open()?,
            settings,
            walked,
            manager: Handle::of(ebpf, sizes::MANAGER)?.open()?,
            signalled: Handle::of(ebpf, sizes::SIGNALLED)?.open()?,
            steering,
            iterator,
            pass,
            quiet,
            whole: true,
            put_aside: 0,
            summed: 0,
            aside_entries: options.max_connections,
            untold_entries: options.untold(),
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

    /// Hands over some of the records in the rings, and tells whether there may be more. They stay there until [`Source::publish`], and are
    /// read again by the next process if this one ends before.
    pub fn take(&mut self, record: &mut dyn FnMut(&[u8])) -> bool {
        self.ring.take(record)
    }

    /// Returns how far each ring is written, records that are being written included.
    pub fn written(&self) -> Vec<u64> {
        self.ring.written()
    }

    /// Tells whether each ring was read as far as that.
    pub fn has_read(&self, written: &[u64]) -> bool {
        self.ring.has_read(written)
    }

    /// Returns how far each ring was read.
    pub fn positions(&self) -> &[u64] {
        self.ring.positions()
    }

    /// Gives the room of the records that were read back to the programs.
    pub fn publish(&self) {
        self.ring.publish();
    }

    /// Goes on at positions of the rings up to which records were taken before; tells whether that can be.
    pub fn resume(&mut self, positions: &[u64]) -> bool {
        self.ring.resume(positions)
    }

    /// Begins a pass over all live connections, which come through the ring; nothing where no iterator is attached. Of those in which
    /// there is nothing new [`Source::quiet`] tells, unless this is the first pass or [`Source::show_all`] has asked for them.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn snapshot(&mut self) -> Result<Option<Snapshot>> {
        let Some(walker) = self.iterator.lock().unwrap_or_else(PoisonError::into_inner).clone() else {
            return Ok(None);
        };
        // A socket that was never shown has pass 0.
        self.pass = self.pass.checked_add(1).unwrap_or(1);
        self.settings.set(setting::PASS, u64::from(self.pass), 0).context("cannot number the pass")?;
        for (slot, value) in
            [(setting::STOPPED, 0), (setting::VISITED, 0), (setting::QUIET, 0), (setting::WHOLE, self.whole.into())]
        {
            self.settings.set(slot, value, 0).context("cannot begin a pass")?;
        }
        self.whole = false;
        Snapshot::begin(&walker, self.walked.open()?).map(Some)
    }

    /// Has the next pass show every connection.
    pub fn show_all(&mut self) {
        self.whole = true;
    }

    /// Hands over the cookies of connections in which the pass under way found nothing new since it last went on, and makes room for more.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn quiet(&mut self, take: &mut dyn FnMut(u64)) -> Result<()> {
        let count = self.settings.get(&setting::QUIET, 0).context("cannot tell how many connections are quiet")?;
        if count == 0 {
            return Ok(());
        }
        // SAFETY: so many words are mapped, aligned to a page, for as long as `self` lives. The program that writes them runs only while
        // this thread has it go on, which it does not before `self` is free again.
        let cookies: &[u64] =
            unsafe { std::slice::from_raw_parts(self.quiet.address().cast(), sizes::QUIET_ENTRIES as usize) };
        cookies.iter().take(count as usize).for_each(|cookie| take(*cookie));
        self.settings.set(setting::QUIET, 0, 0).context("cannot make room for quiet connections")
    }

    /// Lists what was put aside since the ring was full, if anything was since the last call.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn aside(&mut self) -> Result<Vec<AsideKey>> {
        // The kernel walks all of the table, which is large and as a rule empty. It counts what it puts there, afterwards.
        let put_aside = self.counters()?[counter::ASIDE as usize];
        if put_aside == self.put_aside {
            return Ok(Vec::new());
        }
        let keys = self.all_aside()?;
        self.put_aside = put_aside;
        self.begin_round()?;
        Ok(keys)
    }

    /// Lists all that was put aside.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn all_aside(&self) -> Result<Vec<AsideKey>> {
        let mut all = Vec::new();
        for (map, untold) in [(&self.aside, false), (&self.untold, true)] {
            for key in map.keys() {
                all.push(AsideKey { untold, key: key.context("cannot read what was put aside")? });
            }
        }
        Ok(all)
    }

    /// Reads what was put aside under a key.
    ///
    /// # Errors
    /// The map could not be read.
    pub fn put_aside(&self, key: &AsideKey) -> Result<[u8; size_of::<Record>()]> {
        let map = if key.untold { &self.untold } else { &self.aside };
        // Nobody writes an entry twice, and nobody else removes one.
        map.get(&key.key, 0).context("cannot read what was put aside")
    }

    /// Removes what was put aside under a key.
    ///
    /// # Errors
    /// The map could not be changed.
    pub fn remove_aside(&mut self, key: &AsideKey) -> Result<()> {
        let map = if key.untold { &mut self.untold } else { &mut self.aside };
        map.remove(&key.key).context("cannot remove what was put aside")
    }

    /// Hands over, and then removes, the ends of connections that found the ring full. Returns how many there were.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn drain_aside(&mut self, record: &mut dyn FnMut(&[u8])) -> Result<usize> {
        let keys = self.aside()?;
        for key in &keys {
            record(&self.put_aside(key)?);
            self.remove_aside(key)?;
        }
        Ok(keys.len())
    }

    /// Lists what ends of connections were added up to because there was no room for each, if there is anything to be read: no program adds
    /// to these any more. Sums that are not removed are listed again.
    ///
    /// # Errors
    /// A map could not be read or written.
    pub fn sums(&mut self) -> Result<Vec<SumKey>> {
        let summed = self.counters()?[counter::SUMMED as usize];
        if summed == self.summed {
            return Ok(Vec::new());
        }
        let epoch = self.settings.get(&setting::EPOCH, 0).context("cannot read the epoch of sums")?.wrapping_add(1);
        self.settings.set(setting::EPOCH, epoch, 0).context("cannot begin another epoch of sums")?;
        self.wait_for_programs()?;
        let all = self.all_sums()?;
        let over: Vec<_> = all.into_iter().filter(|key| key.epoch != epoch as u32).collect();
        if over.is_empty() {
            self.summed = summed;
        }
        self.begin_round()?;
        Ok(over)
    }

    /// Lists all sums.
    ///
    /// # Errors
    /// The map could not be read.
    pub fn all_sums(&self) -> Result<Vec<SumKey>> {
        let keys = self.sums.keys().map(|key| Ok(zerocopy::transmute!(key.context("cannot read sums")?)));
        keys.collect()
    }

    /// Reads a sum.
    ///
    /// # Errors
    /// The map could not be read.
    pub fn sum(&self, key: &SumKey) -> Result<Sum> {
        Ok(zerocopy::transmute!(self.sums.get(&zerocopy::transmute!(*key), 0).context("cannot read a sum")?))
    }

    /// Removes a sum.
    ///
    /// # Errors
    /// The map could not be changed.
    pub fn remove_sum(&mut self, key: &SumKey) -> Result<()> {
        self.sums.remove(&zerocopy::transmute!(*key)).context("cannot remove a sum")
    }

    /// Hands over, and then removes, what [`Source::sums`] lists.
    ///
    /// # Errors
    /// A map could not be read or written.
    pub fn drain_sums(&mut self, take: &mut dyn FnMut(&SumKey, &Sum)) -> Result<()> {
        for key in self.sums()? {
            take(&key, &self.sum(&key)?);
            self.remove_sum(&key)?;
        }
        Ok(())
    }

    /// Waits until no program runs any more that began before.
    ///
    /// # Errors
    /// The kernel refused to wait.
    pub fn wait_for_programs(&self) -> Result<()> {
        if sys::wait_for_programs().is_ok() {
            return Ok(());
        }
        // Where some processors are set apart (nohz_full) the kernel does not say: then it is a matter of time.
        let end = Instant::now() + SETTLED;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.ring.wait(left.max(Duration::from_millis(1)))?;
        }
        Ok(())
    }

    /// Gives every namespace its share of room anew.
    fn begin_round(&mut self) -> Result<()> {
        let round = self.settings.get(&setting::ROUND, 0).context("cannot read the number of the round")?;
        self.settings.set(setting::ROUND, round.wrapping_add(1), 0).context("cannot begin another round")
    }

    /// Tells whether sums are not read yet that these counters have.
    pub fn sums_wait(&self, counters: &Counters) -> bool {
        counters[counter::SUMMED as usize] != self.summed
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
            untold: (entries(self.untold.keys())?, self.untold_entries),
            sums: (entries(self.sums.keys())?, sizes::SUM_ENTRIES),
            ring: (self.ring.pending(), self.ring.capacity().into()),
            steering_refused,
            given_up: self.ring.given_up(),
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
