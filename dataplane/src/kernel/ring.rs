//! The reader of the ring of records.
//!
//! One page, which only user space writes, says how far it has read; one, which only the kernel writes, how far there are records; the
//! records follow. They can be mapped twice in a row, so that none is ever split, but then they count twice as memory of the process; here
//! the one record at the end that is split is put together. A reader that publishes how far it is once a batch, not once a record, costs
//! a fraction.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::sys::{self, Mapping, WakeUps};

/// `BPF_RINGBUF_BUSY_BIT`: reserved, not yet submitted.
const BUSY: u32 = 1 << 31;
/// `BPF_RINGBUF_DISCARD_BIT`: submitted to be skipped.
const DISCARDED: u32 = 1 << 30;
const HEADER: u64 = 8;
/// Room goes back to the kernel after so many records, so that a long batch does not keep a full ring full.
const BATCH: usize = 512;

/// The one reader of a ring.
#[derive(Debug)]
pub(super) struct Ring {
    wake_ups: WakeUps,
    consumer: Mapping,
    producer: Mapping,
    page: usize,
    size: u64,
    /// How far was read.
    read: u64,
    /// How often a record's length could not be true.
    broken: u64,
    /// The record that goes on at the ring's begin, put together.
    joined: Vec<u8>,
    _fd: OwnedFd,
}

impl Ring {
    /// Opens the ring of this many bytes.
    pub(super) fn open(fd: OwnedFd, size: u32) -> Result<Self> {
        let wake_ups = WakeUps::of(fd.as_fd()).context("cannot watch the ring")?;
        Self::map(fd, size, wake_ups)
    }

    fn map(fd: OwnedFd, size: u32, wake_ups: WakeUps) -> Result<Self> {
        let page = sys::page_size();
        let consumer = Mapping::new(fd.as_fd(), 0, page, true).context("cannot map the ring")?;
        let producer =
            Mapping::new(fd.as_fd(), page, page + size as usize, false).context("cannot map the ring's records")?;
        let (size, joined) = (size.into(), Vec::new());
        let mut ring = Self { wake_ups, consumer, producer, page, size, read: 0, broken: 0, joined, _fd: fd };
        ring.read = ring.consumed().load(Ordering::Acquire);
        Ok(ring)
    }

    /// Waits until the ring is half full, at most this long.
    pub(super) fn wait(&self, at_most: Duration) -> Result<()> {
        self.wake_ups.wait(at_most).context("cannot wait for the ring")
    }

    /// Hands over every record there is now and returns how many.
    pub(super) fn drain(&mut self, record: &mut dyn FnMut(&[u8])) -> usize {
        let mut count = 0;
        loop {
            let produced = self.produced().load(Ordering::Acquire);
            let before = count;
            while self.read < produced && count - before < BATCH {
                let header = self.header(self.read).load(Ordering::Acquire);
                if header & BUSY != 0 {
                    break;
                }
                let length = u64::from(header & !(BUSY | DISCARDED));
                let next = self.read + (HEADER + length).next_multiple_of(8);
                if next > produced || next - self.read > self.size {
                    // The lengths that follow can not be found any more. The kernel goes on writing behind `produced`.
                    self.broken += 1;
                    self.read = produced;
                    break;
                }
                if header & DISCARDED == 0 {
                    record(self.data(length as usize));
                }
                count += 1;
                self.read = next;
            }
            self.consumed().store(self.read, Ordering::Release);
            if count - before < BATCH {
                return count;
            }
        }
    }

    /// Returns how many bytes wait to be read.
    pub(super) fn pending(&self) -> u64 {
        self.produced().load(Ordering::Acquire).saturating_sub(self.read)
    }

    /// Returns how often records were given up because a length could not be true.
    pub(super) fn broken(&self) -> u64 {
        self.broken
    }

    /// The record that begins at `self.read` and has this many bytes, all before `produced`.
    fn data(&mut self, length: usize) -> &[u8] {
        let size = self.size as usize;
        let begin = (self.read + HEADER) as usize & (size - 1);
        let at_end = length.min(size - begin);
        let data = self.producer.address().wrapping_add(self.page);
        // SAFETY: both pieces are within the data, which is mapped, and before `produced`, so they were written. The kernel does not write
        // there before `consumed` has passed them.
        let (first, rest) = unsafe {
            let first = std::slice::from_raw_parts(data.add(begin), at_end);
            (first, std::slice::from_raw_parts(data, length - at_end))
        };
        if rest.is_empty() {
            return first;
        }
        self.joined.clear();
        self.joined.extend_from_slice(first);
        self.joined.extend_from_slice(rest);
        &self.joined
    }

    fn consumed(&self) -> &AtomicU64 {
        // SAFETY: the page begins with the position, aligned, and lives as long as `self`; the kernel reads it atomically.
        unsafe { AtomicU64::from_ptr(self.consumer.address().cast()) }
    }

    fn produced(&self) -> &AtomicU64 {
        // SAFETY: as above; only loads are made, which a mapping that may not be written allows.
        unsafe { AtomicU64::from_ptr(self.producer.address().cast()) }
    }

    fn header(&self, position: u64) -> &AtomicU32 {
        let at = self.page + (position & (self.size - 1)) as usize;
        // SAFETY: positions are multiples of eight and the mask keeps them within the data; only loads are made.
        unsafe { AtomicU32::from_ptr(self.producer.address().add(at).cast()) }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::FileExt as _};

    use super::*;

    const SIZE: u32 = 4096;

    /// A file that is laid out as a ring, and its reader.
    fn ring(entries: &[(u32, &[u8])], produced: Option<u64>) -> (File, Ring) {
        let page = sys::page_size() as u64;
        let file = tempfile::tempfile().expect("there is a place");
        file.set_len(2 * page + u64::from(SIZE)).expect("it is ours");
        let mut at = 0;
        for (header, data) in entries {
            file.write_all_at(&header.to_ne_bytes(), 2 * page + at).expect("it is ours");
            file.write_all_at(data, 2 * page + at + HEADER).expect("it is ours");
            at += (HEADER + data.len() as u64).next_multiple_of(8);
        }
        file.write_all_at(&produced.unwrap_or(at).to_ne_bytes(), page).expect("it is ours");
        let (wakes, _) = std::os::unix::net::UnixStream::pair().expect("sockets");
        let wake_ups = WakeUps::of(wakes.as_fd()).expect("a socket can be watched");
        let ring = Ring::map(file.try_clone().expect("it is ours").into(), SIZE, wake_ups).expect("it can be mapped");
        (file, ring)
    }

    fn drain(ring: &mut Ring) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        ring.drain(&mut |record| found.push(record.to_vec()));
        found
    }

    fn published(file: &File) -> u64 {
        let mut position = [0; 8];
        file.read_exact_at(&mut position, 0).expect("it is ours");
        u64::from_ne_bytes(position)
    }

    #[test]
    fn records_come_in_order_and_discarded_ones_not() {
        let (file, mut ring) = ring(&[(3, b"abc"), (2 | DISCARDED, b"de"), (8, b"fghijklm")], None);
        assert_eq!(ring.pending(), 16 + 16 + 16);
        assert_eq!(drain(&mut ring), [b"abc".to_vec(), b"fghijklm".to_vec()]);
        assert_eq!((published(&file), ring.pending(), ring.broken()), (48, 0, 0));
    }

    #[test]
    fn a_record_that_is_being_written_ends_the_batch() {
        let (file, mut ring) = ring(&[(1, b"a"), (1 | BUSY, b"b"), (1, b"c")], None);
        assert_eq!(drain(&mut ring), [b"a".to_vec()]);
        assert_eq!(published(&file), 16);
        file.write_all_at(&1_u32.to_ne_bytes(), 2 * sys::page_size() as u64 + 16).expect("it is ours");
        assert_eq!(drain(&mut ring), [b"b".to_vec(), b"c".to_vec()]);
    }

    #[test]
    fn a_record_that_goes_on_at_the_begin_is_put_together() {
        let long = vec![b'x'; SIZE as usize - 32];
        let (file, mut ring) = ring(&[(SIZE - 32, &long)], None);
        assert_eq!(drain(&mut ring), [long]);
        let (data, at) = (2 * sys::page_size() as u64, u64::from(SIZE) - 24);
        file.write_all_at(&20_u32.to_ne_bytes(), data + at).expect("it is ours");
        file.write_all_at(b"sixteen bytes an", data + at + HEADER).expect("it is ours");
        file.write_all_at(b"d on", data).expect("it is ours");
        file.write_all_at(&(at + 32).to_ne_bytes(), data / 2).expect("it is ours");
        assert_eq!(drain(&mut ring), [b"sixteen bytes and on".to_vec()]);
        assert_eq!((published(&file), ring.broken()), (at + 32, 0));
    }

    #[test]
    fn a_length_that_can_not_be_true_is_counted_and_skipped() {
        for length in [17, SIZE, SIZE * 4, !(BUSY | DISCARDED)] {
            let (file, mut ring) = ring(&[(1, b"a"), (length, b"b")], None);
            assert_eq!(drain(&mut ring), [b"a".to_vec()]);
            assert_eq!((published(&file), ring.broken()), (32, 1));
        }
        // Even if as much were there.
        let (_, mut ring) = ring(&[(SIZE, b"a")], Some(1 << 20));
        assert!(drain(&mut ring).is_empty());
        assert_eq!(ring.broken(), 1);
    }
}
