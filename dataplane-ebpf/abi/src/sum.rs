//! Ends of connections added up, by what metrics tell apart.

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Endpoint, Kind, Record, TcpState};

/// What is added up together; 80 bytes. From `error` on as in a [`Record`], so that the programs need no second copy.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SumKey {
    /// As `Record::netns`.
    pub netns: u64,
    /// `Kind::Closed` or `Kind::Failed`.
    pub kind: u32,
    /// As `Record::flags`.
    pub flags: u32,
    /// The epoch that the sum belongs to ([`crate::maps::setting::EPOCH`]).
    pub epoch: u32,
    /// Why connects failed; 0 of closes.
    pub error: u32,
    /// The pod's own address; without a port where it opened.
    pub local: Endpoint,
    /// The peer; without a port where it opened.
    pub remote: Endpoint,
    /// As `Record::original`.
    pub original: Endpoint,
    /// Always `TcpState::Close`.
    pub state: u8,
    /// A `Direction`.
    pub direction: u8,
}

/// What it came to; 40 bytes. Up to `lost` as in a [`Record`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Sum {
    /// As `Record::sent`.
    pub sent: u64,
    /// As `Record::received`.
    pub received: u64,
    /// As `Record::retransmits`.
    pub retransmits: u64,
    /// As `Record::lost`.
    pub lost: u64,
    /// How many connections or attempts.
    pub connections: u64,
}

/// Where in a [`Record`] its key can be made in place.
pub const KEY_OFFSET: usize = offset_of!(Record, error) - offset_of!(SumKey, error);
/// Where in a [`Record`] its sum can be made in place.
pub const SUM_OFFSET: usize = offset_of!(Record, sent);

const _: () = assert!(size_of::<SumKey>() == 80 && size_of::<Sum>() == 40);
const _: () = assert!(KEY_OFFSET + size_of::<SumKey>() == size_of::<Record>() && KEY_OFFSET.is_multiple_of(8));
const _: () = assert!(offset_of!(Record, lost) - SUM_OFFSET == offset_of!(Sum, lost));
const _: () = assert!(SUM_OFFSET + size_of::<Sum>() <= KEY_OFFSET);

impl SumKey {
    /// Makes the record that stands for all of them: totals are sums, times are those given, what one connection alone has is zero.
    pub fn record(&self, sum: &Sum, now_ns: u64) -> Record {
        Record {
            kind: self.kind,
            flags: self.flags,
            netns: self.netns,
            start_ns: now_ns,
            now_ns,
            sent: sum.sent,
            received: sum.received,
            retransmits: sum.retransmits,
            lost: sum.lost,
            error: self.error,
            local: self.local,
            remote: self.remote,
            original: self.original,
            state: TcpState::Close as u8,
            direction: self.direction,
            ..Record::default()
        }
    }

    /// Tells whether these are failed connects.
    pub const fn is_failed(&self) -> bool {
        self.kind == Kind::Failed as u32
    }
}
