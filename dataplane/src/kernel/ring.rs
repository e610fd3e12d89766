//! The reader of the rings of records (`abi::ring`): no system call a record, and none to see that there is nothing.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use abi::{
    Record,
    ring::{Cursor, MAX_RINGS, Slot},
};
use anyhow::{Context as _, Result};
use aya::util::nr_cpus;

use super::{
    Options,
    sys::{self, Mapping, WakeUps},
};

/// Room goes back to the programs after so many records at most: they are saved together (`telemetry::Recorder::commit`).
const BATCH: u64 = 256;

/// How many rings there are, and how many slots each has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) rings: u32,
    /// A power of two.
    pub(super) slots: u32,
}

impl Size {
    /// Chooses for this machine: a ring for each CPU there may be, as far as that goes.
    pub(super) fn of(options: &Options) -> Result<Self> {
        let cpus =
            nr_cpus().map_err(|(file, error)| anyhow::Error::from(error).context(format!("cannot read {file}")))?;
        let rings = u32::try_from(cpus).unwrap_or(MAX_RINGS).clamp(1, MAX_RINGS);
        Ok(Self { rings, slots: options.ring_slots.unwrap_or(abi::ring::slots(rings)) })
    }

    /// Returns the slots of all rings.
    pub(super) fn entries(self) -> u32 {
        self.rings * self.slots
    }
}

/// The one reader of all rings.
#[derive(Debug)]
pub(super) struct Rings {
    doorbell: Doorbell,
    slots: Mapping,
    cursors: Mapping,
    size: Size,
    /// How far each ring was read.
    positions: Vec<u64>,
    /// The ring that is read first: each in turn.
    first: u32,
    /// Records that were given up since a slot held what can not be true.
    given_up: u64,
}

impl Rings {
    /// Opens the rings by the descriptors of their maps.
    pub(super) fn open(slots: &OwnedFd, cursors: &OwnedFd, doorbell: OwnedFd, size: Size) -> Result<Self> {
        let bytes = |each: usize, count: u32| (each * count as usize).next_multiple_of(sys::page_size());
        let of = |fd: &OwnedFd, length, writable| Mapping::new(fd.as_fd(), 0, length, writable);
        let doorbell = Doorbell::open(doorbell)?;
        let slots = of(slots, bytes(size_of::<Slot>(), size.entries()), false).context("cannot map the records")?;
        let cursors = of(cursors, bytes(size_of::<Cursor>(), size.rings), true).context("cannot map the cursors")?;
        Ok(Self::over(doorbell, slots, cursors, size))
    }

    fn over(doorbell: Doorbell, slots: Mapping, cursors: Mapping, size: Size) -> Self {
        let mut rings = Self { doorbell, slots, cursors, size, positions: Vec::new(), first: 0, given_up: 0 };
        rings.positions = (0..size.rings).map(|ring| rings.read(ring).load(Ordering::Acquire)).collect();
        rings
    }

    /// Waits until a ring is half full, at most this long.
    pub(super) fn wait(&self, at_most: Duration) -> Result<()> {
        self.doorbell.wait(at_most).context("cannot wait for the rings")
    }

    /// Hands over every record there is now and returns how many. Within a ring they come in the order in which they were begun.
    pub(super) fn drain(&mut self, record: &mut dyn FnMut(&[u8])) -> usize {
        let mut count = 0;
        while self.take(&mut |bytes| {
            count += 1;
            record(bytes);
        }) {
            self.publish();
        }
        self.publish();
        count
    }

    /// Hands over records, [`BATCH`] at most, and tells whether there may be more. They stay where they are until [`Rings::publish`].
    pub(super) fn take(&mut self, record: &mut dyn FnMut(&[u8])) -> bool {
        let (rings, mut left) = (self.size.rings, BATCH);
        for n in 0..rings {
            left -= self.take_from((self.first + n) % rings, left, record);
        }
        self.first = (self.first + 1) % rings;
        left == 0
    }

    fn take_from(&mut self, ring: u32, at_most: u64, record: &mut dyn FnMut(&[u8])) -> u64 {
        let (begin, taken) = (self.positions[ring as usize], self.taken(ring).load(Ordering::Acquire));
        let mut position = begin;
        while position != taken && position.wrapping_sub(begin) < at_most {
            let slot = self.slot(ring, position);
            // SAFETY: the slot is mapped, and the word aligned; only loads are made.
            let sequence = unsafe { AtomicU64::from_ptr(&raw mut (*slot).sequence) }.load(Ordering::Acquire);
            if sequence != position.wrapping_add(1) {
                if sequence > position {
                    // Programs and reader have lost each other: all that was taken by now is given up.
                    self.given_up += taken.wrapping_sub(position);
                    self.positions[ring as usize] = taken;
                    return position.wrapping_sub(begin);
                }
                // Else it is being written.
                break;
            }
            // SAFETY: the record was written before the sequence was, and no program writes it again before `read` has passed it.
            record(unsafe { std::slice::from_raw_parts((&raw const (*slot).record).cast(), size_of::<Record>()) });
            position = position.wrapping_add(1);
        }
        self.positions[ring as usize] = position;
        position.wrapping_sub(begin)
    }

    /// Gives the room of what was read back to the programs.
    pub(super) fn publish(&self) {
        for (ring, position) in self.positions.iter().enumerate() {
            let read = self.read(ring as u32);
            if read.load(Ordering::Relaxed) != *position {
                read.store(*position, Ordering::Release);
            }
        }
    }

    /// Returns how far each ring is written, records that are being written included.
    pub(super) fn written(&self) -> Vec<u64> {
        (0..self.size.rings).map(|ring| self.taken(ring).load(Ordering::Acquire)).collect()
    }

    /// Tells whether each ring was read as far as that.
    pub(super) fn has_read(&self, written: &[u64]) -> bool {
        // Positions begin again after the last one.
        self.positions.iter().zip(written).all(|(read, written)| read.wrapping_sub(*written).cast_signed() >= 0)
    }

    /// Returns how far each ring was read.
    pub(super) fn positions(&self) -> &[u64] {
        &self.positions
    }

    /// Goes on at positions up to which records were taken before; tells whether they are within what each ring holds. One that is not is
    /// read from where its room was given back.
    pub(super) fn resume(&mut self, positions: &[u64]) -> bool {
        let mut all = true;
        for (ring, position) in (0..self.size.rings).zip(positions) {
            let (read, taken) = (self.read(ring).load(Ordering::Acquire), self.taken(ring).load(Ordering::Acquire));
            if position.wrapping_sub(read) <= taken.wrapping_sub(read) {
                self.positions[ring as usize] = *position;
            } else {
                all = false;
            }
        }
        self.publish();
        all
    }

    /// Returns how many records wait to be read.
    pub(super) fn pending(&self) -> u64 {
        let unread = |ring| {
            let read = self.read(ring).load(Ordering::Acquire);
            self.taken(ring).load(Ordering::Acquire).saturating_sub(read)
        };
        (0..self.size.rings).map(unread).sum()
    }

    /// Returns how many records all rings hold.
    pub(super) fn capacity(&self) -> u32 {
        self.size.entries()
    }

    /// Returns how many records were given up because a slot held what can not be true.
    pub(super) fn given_up(&self) -> u64 {
        self.given_up
    }

    fn slot(&self, ring: u32, position: u64) -> *mut Slot {
        let slots = self.size.slots;
        let index = ring * slots + (position & u64::from(slots - 1)) as u32;
        // The mask keeps it within the ring, and the ring is within the mapping.
        self.slots.address().cast::<Slot>().wrapping_add(index as usize)
    }

    fn taken(&self, ring: u32) -> &AtomicU64 {
        // SAFETY: the word is mapped and aligned, and lives as long as `self`; programs change it atomically.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.cursor(ring)).taken) }
    }

    fn read(&self, ring: u32) -> &AtomicU64 {
        // SAFETY: as above; programs only read it.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.cursor(ring)).read) }
    }

    fn cursor(&self, ring: u32) -> *mut Cursor {
        self.cursors.address().cast::<Cursor>().wrapping_add(ring as usize)
    }
}

/// The kernel's ring buffer that wakes this process. What is in it says nothing.
#[derive(Debug)]
struct Doorbell {
    wake_ups: WakeUps,
    consumer: Mapping,
    producer: Mapping,
    _fd: OwnedFd,
}

impl Doorbell {
    fn open(fd: OwnedFd) -> Result<Self> {
        let page = sys::page_size();
        let wake_ups = WakeUps::of(fd.as_fd()).context("cannot watch the doorbell")?;
        let consumer = Mapping::new(fd.as_fd(), 0, page, true).context("cannot map the doorbell")?;
        let producer = Mapping::new(fd.as_fd(), page, page, false).context("cannot map the doorbell")?;
        Ok(Self { wake_ups, consumer, producer, _fd: fd })
    }

    fn wait(&self, at_most: Duration) -> std::io::Result<()> {
        self.wake_ups.wait(at_most)?;
        // SAFETY: each page begins with a position, aligned, and lives as long as `self`; of the second only loads are made.
        let (consumed, produced) = unsafe {
            (AtomicU64::from_ptr(self.consumer.address().cast()), AtomicU64::from_ptr(self.producer.address().cast()))
        };
        consumed.store(produced.load(Ordering::Acquire), Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::FileExt as _};

    use zerocopy::IntoBytes as _;

    use super::*;

    const SIZE: Size = Size { rings: 2, slots: 4 };

    /// Files that are laid out as rings, and their reader.
    struct Laid {
        slots: File,
        cursors: File,
        rings: Rings,
    }

    impl Laid {
        fn new() -> Self {
            let file = |length: usize| {
                let file = tempfile::tempfile().expect("there is a place");
                file.set_len(length.next_multiple_of(sys::page_size()) as u64).expect("it is ours");
                file
            };
            let (slots, cursors) = (file(8 * size_of::<Slot>()), file(2 * size_of::<Cursor>()));
            let fd = |file: &File| OwnedFd::from(file.try_clone().expect("it is ours"));
            let (bell, _) = std::os::unix::net::UnixStream::pair().expect("sockets");
            let wake_ups = WakeUps::of(bell.as_fd()).expect("a socket can be watched");
            let page = |file: &File| Mapping::new(file.as_fd(), 0, sys::page_size(), true).expect("it can be mapped");
            let doorbell = Doorbell { wake_ups, consumer: page(&slots), producer: page(&slots), _fd: bell.into() };
            let mapped = Mapping::new(fd(&slots).as_fd(), 0, sys::page_size(), false).expect("it can be mapped");
            let rings = Rings::over(doorbell, mapped, page(&cursors), SIZE);
            Self { slots, cursors, rings }
        }

        /// Takes positions up to this one, as programs do.
        fn take(&self, ring: u64, taken: u64) {
            self.cursors.write_all_at(&taken.to_ne_bytes(), ring * size_of::<Cursor>() as u64).expect("it is ours");
        }

        fn commit(&self, ring: u64, position: u64, cookie: u64) {
            let at = (ring * 4 + position % 4) * size_of::<Slot>() as u64;
            let record = Record { cookie, ..Record::default() };
            self.slots.write_all_at(record.as_bytes(), at + 8).expect("it is ours");
            self.slots.write_all_at(&(position + 1).to_ne_bytes(), at).expect("it is ours");
        }

        fn published(&self, ring: u64) -> u64 {
            let mut position = [0; 8];
            self.cursors.read_exact_at(&mut position, ring * size_of::<Cursor>() as u64 + 64).expect("it is ours");
            u64::from_ne_bytes(position)
        }

        fn drain(&mut self) -> Vec<u64> {
            let mut found = Vec::new();
            self.rings.drain(&mut |bytes| {
                found.push(zerocopy::FromBytes::read_from_bytes(bytes).map(|r: Record| r.cookie).expect("one size"));
            });
            found
        }
    }

    #[test]
    fn records_come_in_order_ring_by_ring() {
        let mut laid = Laid::new();
        laid.take(0, 2);
        laid.take(1, 1);
        laid.commit(1, 0, 30);
        laid.commit(0, 1, 20);
        laid.commit(0, 0, 10);
        assert_eq!(laid.rings.pending(), 3);
        assert_eq!(laid.drain(), [10, 20, 30]);
        assert_eq!((laid.published(0), laid.published(1), laid.rings.pending()), (2, 1, 0));
    }

    #[test]
    fn a_record_that_is_being_written_waits_and_keeps_those_behind_it() {
        let mut laid = Laid::new();
        laid.take(0, 3);
        laid.commit(0, 0, 10);
        laid.commit(0, 2, 30);
        let written = laid.rings.written();
        assert_eq!(laid.drain(), [10]);
        assert_eq!(laid.published(0), 1);
        assert!(!laid.rings.has_read(&written));
        laid.commit(0, 1, 20);
        assert_eq!(laid.drain(), [20, 30]);
        assert!(laid.rings.has_read(&written));
    }

    #[test]
    fn slots_are_used_again() {
        let mut laid = Laid::new();
        for position in 0..20 {
            laid.take(1, position + 1);
            // The slot still holds the record of four positions before.
            assert_eq!(laid.drain(), [0; 0]);
            laid.commit(1, position, position * 10);
            assert_eq!(laid.drain(), [position * 10]);
        }
        assert_eq!(laid.published(1), 20);
    }

    #[test]
    fn what_lies_behind_a_slot_from_another_time_is_counted_and_the_ring_goes_on_after_it() {
        let mut laid = Laid::new();
        laid.take(0, 3);
        laid.commit(0, 0, 10);
        laid.commit(0, 5, 50);
        laid.commit(0, 2, 30);
        assert_eq!(laid.drain(), [10]);
        assert_eq!((laid.published(0), laid.rings.given_up()), (3, 2));
        laid.take(0, 4);
        laid.commit(0, 3, 40);
        assert_eq!(laid.drain(), [40]);
    }
}
