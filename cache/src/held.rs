//! What a snapshot holds.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// A workload or service as held by a snapshot.
#[derive(Debug)]
pub struct Held<T> {
    /// Never used twice in a process: equal serials are the same content.
    pub serial: u64,
    /// Of several that hold one address, the one with the smallest rank is named.
    pub(crate) rank: Rank,
    /// The content.
    pub value: T,
}

impl<T> std::ops::Deref for Held<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Held<T> {
    /// Holds new content. `since` is when it took its addresses, if not now.
    pub(crate) fn new(value: T, handicap: u64, since: Option<Rank>) -> Arc<Self> {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let serial = SERIAL.fetch_add(1, Relaxed);
        let since = since.map_or(serial, Rank::since);
        Arc::new(Self { serial, rank: Rank::new(handicap, since), value })
    }
}

/// Handicap in the top two bits (less is better; the lower one is [`Rank::ELSEWHERE`]), then the newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank(u64);

impl Rank {
    /// Handicap of what is not on this node.
    pub(crate) const ELSEWHERE: u64 = 1;
    const SINCE: u64 = u64::MAX >> 2;

    fn new(handicap: u64, since: u64) -> Self {
        Self(handicap << 62 | (Self::SINCE - since))
    }

    /// Tells whether it is the rank of something on this node.
    pub(crate) fn is_here(self) -> bool {
        self.0 >> 62 & Self::ELSEWHERE == 0
    }

    fn since(self) -> u64 {
        Self::SINCE - (self.0 & Self::SINCE)
    }
}
