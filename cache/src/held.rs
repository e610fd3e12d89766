//! What a snapshot holds, and several of them that claim one address.

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

/// Handicap in the top two bits (less is better), then the newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank(u64);

impl Rank {
    const SINCE: u64 = u64::MAX >> 2;

    fn new(handicap: u64, since: u64) -> Self {
        Self(handicap << 62 | (Self::SINCE - since))
    }

    fn since(self) -> u64 {
        Self::SINCE - (self.0 & Self::SINCE)
    }
}

/// All that hold one address or hostname, the best first; one as a rule.
#[derive(Debug)]
pub(crate) enum Holders<T> {
    One(Arc<Held<T>>),
    Many(Arc<Vec<Arc<Held<T>>>>),
}

impl<T> Clone for Holders<T> {
    fn clone(&self) -> Self {
        match self {
            Self::One(one) => Self::One(one.clone()),
            Self::Many(many) => Self::Many(many.clone()),
        }
    }
}

impl<T> Holders<T> {
    pub(crate) fn best(&self) -> &Arc<Held<T>> {
        &self.all()[0]
    }

    pub(crate) fn all(&self) -> &[Arc<Held<T>>] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    /// Adds one where `less` puts it.
    pub(crate) fn add(&mut self, held: Arc<Held<T>>, less: impl Fn(&Held<T>, &Held<T>) -> bool) {
        let at = self.all().partition_point(|h| less(h, &held));
        match self {
            Self::One(one) => {
                let mut many = vec![one.clone()];
                many.insert(at, held);
                *self = Self::Many(Arc::new(many));
            }
            Self::Many(many) => Arc::make_mut(many).insert(at, held),
        }
    }

    /// Takes one out; false if it was the last, which then is for the caller to remove.
    pub(crate) fn take(&mut self, held: &Arc<Held<T>>) -> bool {
        match self {
            Self::One(one) => !Arc::ptr_eq(one, held),
            Self::Many(many) => {
                let many = Arc::make_mut(many);
                many.retain(|h| !Arc::ptr_eq(h, held));
                if let [one] = &many[..] {
                    *self = Self::One(one.clone());
                }
                true
            }
        }
    }
}
