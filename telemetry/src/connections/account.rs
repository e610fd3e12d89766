//! The part of a connection that the next process needs: it stands in the image, and nowhere else but while it waits to get there.

use abi::{Endpoint, Record};
use zerocopy::{FromBytes as _, IntoBytes as _, transmute};

use crate::store::Image;

/// Totals, times and addresses of a connection: a block's words from the fourth on, and the upper half of its first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) cookie: u64,
    pub(crate) netns: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// The kernel counts both in 32 bits.
    pub(crate) retransmits: u32,
    pub(crate) lost: u32,
    pub(crate) start_ns: u64,
    pub(crate) begun_ns: u64,
    /// The same, ns since the Unix epoch; converted once, so that it never moves.
    pub(crate) begun_wall_ns: u64,
    pub(crate) local: Endpoint,
    pub(crate) remote: Endpoint,
    /// The stretch of watching in which its totals were brought up to date.
    pub(crate) watch: u32,
}

const TOTALS: usize = 3;
const TROUBLES: usize = 5;
const TIMES: usize = 6;
const ADDRESSES: std::ops::Range<usize> = 10..15;
const NETNS: usize = 15;

impl Account {
    /// Makes that of a new connection.
    pub(super) fn new(record: &Record, begun_ns: u64, begun_wall_ns: u64, watch: u32) -> Self {
        Self {
            cookie: record.cookie,
            netns: record.netns,
            sent: record.sent,
            received: record.received,
            retransmits: narrow(record.retransmits),
            lost: narrow(record.lost),
            start_ns: record.start_ns,
            begun_ns,
            begun_wall_ns,
            local: record.local,
            remote: record.remote,
            watch,
        }
    }

    /// Takes what the newest record says.
    pub(super) fn update(&mut self, last: &Record) {
        (self.sent, self.received) = (last.sent, last.received);
        (self.retransmits, self.lost) = (narrow(last.retransmits), narrow(last.lost));
        (self.local, self.remote, self.netns) = (last.local, last.remote, last.netns);
    }

    /// Reads it from a block.
    pub(crate) fn read(image: &Image) -> Self {
        let (local, rest) =
            Endpoint::read_from_prefix(image[ADDRESSES].as_bytes()).expect("five words have two of them");
        let (remote, _) = Endpoint::read_from_prefix(rest).expect("five words have two of them");
        Self {
            cookie: image[TIMES],
            netns: image[NETNS],
            sent: image[TOTALS],
            received: image[TOTALS + 1],
            retransmits: image[TROUBLES] as u32,
            lost: (image[TROUBLES] >> 32) as u32,
            start_ns: image[TIMES + 1],
            begun_ns: image[TIMES + 2],
            begun_wall_ns: image[TIMES + 3],
            local,
            remote,
            watch: (image[0] >> 32) as u32,
        }
    }

    /// Writes it to a block, whose first three words otherwise are for the caller to write, before.
    pub(super) fn write(&self, image: &mut Image) {
        let mut addresses = [0; size_of::<[u64; 5]>()];
        addresses[..18].copy_from_slice(self.local.as_bytes());
        addresses[18..36].copy_from_slice(self.remote.as_bytes());
        image[0] = image[0] & u64::from(u32::MAX) | u64::from(self.watch) << 32;
        image[TOTALS] = self.sent;
        image[TOTALS + 1] = self.received;
        image[TROUBLES] = u64::from(self.retransmits) | u64::from(self.lost) << 32;
        image[TIMES..][..4].copy_from_slice(&[self.cookie, self.start_ns, self.begun_ns, self.begun_wall_ns]);
        image[ADDRESSES].copy_from_slice(&transmute!(addresses) as &[u64; 5]);
        image[NETNS] = self.netns;
    }
}

/// A number that the kernel counts in 32 bits.
pub(super) fn narrow(total: u64) -> u32 {
    u32::try_from(total).unwrap_or(u32::MAX)
}
