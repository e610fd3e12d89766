//! What has changed since a subscriber last asked.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use rustc_hash::FxHashSet;
use tokio::sync::Notify;

use crate::model::Str;

/// More names than this become "everything may differ".
pub(crate) const MAX_NAMES: usize = 4096;

/// What swaps touched, for those who mirror the state (maps, enrolment).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Everything may differ; the two sets are empty then.
    pub full: bool,
    /// Services whose own record or endpoints changed, `namespace/hostname`.
    pub services: FxHashSet<Str>,
    /// Workloads that came, changed or went, by uid.
    pub workloads: FxHashSet<Str>,
    /// When the oldest of what is in it was received, where its source says that.
    pub received: Option<Instant>,
}

impl Change {
    /// Everything may differ.
    pub(crate) fn full() -> Self {
        Self { full: true, ..Self::default() }
    }

    /// Tells whether nothing differs.
    pub fn is_empty(&self) -> bool {
        !self.full && self.services.is_empty() && self.workloads.is_empty()
    }

    /// Adds another change to this one; beyond a bound the sum is full.
    pub(crate) fn merge(&mut self, other: &Self) {
        let received = self.received.into_iter().chain(other.received).min();
        self.received = received;
        if self.full {
            return;
        }
        self.services.extend(other.services.iter().cloned());
        self.workloads.extend(other.workloads.iter().cloned());
        if other.full || self.services.len() + self.workloads.len() > MAX_NAMES {
            *self = Self { received, ..Self::full() };
        }
    }
}

/// One who is told what changed. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    mailbox: Arc<Mailbox>,
}

impl Subscription {
    pub(crate) fn new() -> (Self, Arc<Mailbox>) {
        let mailbox = Arc::new(Mailbox { pending: Mutex::new(Change::full()), arrived: Notify::new() });
        (Self { mailbox: mailbox.clone() }, mailbox)
    }

    /// Waits for a change and returns all that has accumulated since the last call; the first call returns a full one at once.
    ///
    /// A snapshot loaded afterwards has all of it. Cancel safe.
    pub async fn changed(&mut self) -> Change {
        loop {
            if let Some(change) = self.pending() {
                return change;
            }
            self.mailbox.arrived.notified().await;
        }
    }

    /// Returns what has accumulated since the last call, if anything, without waiting.
    pub fn pending(&mut self) -> Option<Change> {
        let change = std::mem::take(&mut *self.mailbox.lock());
        (!change.is_empty()).then_some(change)
    }
}

/// Where the writer leaves changes for one subscriber.
#[derive(Debug)]
pub(crate) struct Mailbox {
    pending: Mutex<Change>,
    arrived: Notify,
}

impl Mailbox {
    pub(crate) fn add(&self, change: &Change) {
        self.lock().merge(change);
        self.arrived.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Change> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
