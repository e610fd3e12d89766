//! The one place that knows the mesh: readers load a snapshot, one writer at a time swaps in the next.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant, SystemTime},
};

use arc_swap::{ArcSwap, Guard};

use crate::{
    draft::Draft,
    intern::Interner,
    model::{Service, Str, Workload},
    snapshot::Snapshot,
    subscription::{Change, Mailbox, Subscription},
};

/// Who we are.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Node name.
    pub name: Str,
    /// The node's network; empty is the default one.
    pub network: Str,
}

/// Updates and removals, applied in this order; of several updates of one name the last counts, and a service after a workload.
///
/// A name has one thing: an update of a name that was a workload's to a service, or the other way round, takes the old one's place.
#[derive(Debug, Default)]
pub struct Delta {
    /// New or changed workloads.
    pub workloads: Vec<Workload>,
    /// New or changed services.
    pub services: Vec<Service>,
    /// Names to remove: a workload's uid or a service's `namespace/hostname`. Unknown ones are ignored.
    pub removed: Vec<Str>,
    /// New or changed authorization policies, by `namespace/name`.
    pub policies: Vec<(Str, serde_json::Value)>,
    /// Authorization policies to remove, by `namespace/name`.
    pub removed_policies: Vec<Str>,
    /// When it was received, for who measures how long it takes to have an effect.
    pub received: Option<Instant>,
}

/// Where the state comes from and how fresh it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    /// Who tells it (`file`, `istiod`); empty before anyone has.
    pub source: &'static str,
    /// A whole state has been applied.
    pub complete: bool,
    /// When the source last told or confirmed it, by the monotonic clock.
    pub updated: Option<Instant>,
    /// The same by the wall clock.
    pub updated_wall: Option<SystemTime>,
    /// How many snapshots have been swapped in.
    pub swaps: u64,
}

impl State {
    /// Returns how long ago the source last told or confirmed the state.
    pub fn age(&self) -> Option<Duration> {
        self.updated.map(|at| at.elapsed())
    }
}

/// The one place that knows the mesh.
#[derive(Debug)]
pub struct Cache {
    node: Node,
    snapshot: ArcSwap<Snapshot>,
    /// Held while the next snapshot is made; readers never take it.
    mailboxes: Mutex<Vec<Weak<Mailbox>>>,
    interner: Mutex<Interner>,
    state: Mutex<State>,
}

impl Cache {
    /// Makes an empty cache for a node.
    pub fn new(node: Node) -> Self {
        Self {
            node,
            snapshot: ArcSwap::default(),
            mailboxes: Mutex::default(),
            interner: Mutex::default(),
            state: Mutex::default(),
        }
    }

    /// Returns who we are.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Loads the present snapshot; cheap, never waits.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Makes these the whole state, in one swap; what has equal content stays as it is, with its serial. Policies stay.
    ///
    /// Returns whether anything changed; if nothing did, nothing is swapped and nobody is told, unless it is the first whole state.
    pub fn replace(
        &self,
        workloads: impl IntoIterator<Item = Workload>,
        services: impl IntoIterator<Item = Service>,
    ) -> bool {
        self.replace_received(workloads, services, None)
    }

    /// As [`Cache::replace`], with a state that was received then.
    pub fn replace_received(
        &self,
        workloads: impl IntoIterator<Item = Workload>,
        services: impl IntoIterator<Item = Service>,
        received: Option<Instant>,
    ) -> bool {
        let mailboxes = lock(&self.mailboxes);
        let before = self.snapshot.load_full();
        let mut draft = Draft::anew(&before, &self.node, &self.interner);
        workloads.into_iter().for_each(|w| draft.workload(w));
        services.into_iter().for_each(|s| draft.service(s));
        let swapped = self.finish(mailboxes, draft, true, received);
        drop(before);
        lock(&self.interner).sweep();
        swapped
    }

    /// Applies updates, then removals, in one swap; what is sent again unchanged costs nothing downstream.
    ///
    /// Returns whether anything changed; if nothing did, nothing is swapped and nobody is told.
    pub fn apply(&self, delta: Delta) -> bool {
        let mailboxes = lock(&self.mailboxes);
        let before = self.snapshot.load_full();
        let mut draft = Draft::on(&before, &self.node, &self.interner);
        delta.workloads.into_iter().for_each(|w| draft.workload(w));
        delta.services.into_iter().for_each(|s| draft.service(s));
        delta.removed.into_iter().for_each(|name| draft.remove(name));
        for (name, policy) in delta.policies {
            draft.policy(name, policy);
        }
        for name in delta.removed_policies {
            draft.remove_policy(&name);
        }
        let swapped = self.finish(mailboxes, draft, false, delta.received);
        lock(&self.interner).maybe_sweep();
        swapped
    }

    /// Makes these all the authorization policies there are.
    pub fn replace_policies(&self, policies: impl IntoIterator<Item = (Str, serde_json::Value)>) -> bool {
        let policies: std::collections::BTreeMap<_, _> = policies.into_iter().collect();
        let removed_policies = self.load().policies().keys().filter(|k| !policies.contains_key(*k)).cloned().collect();
        self.apply(Delta { policies: policies.into_iter().collect(), removed_policies, ..Delta::default() })
    }

    /// Starts to collect changes for one who mirrors the state.
    pub fn subscribe(&self) -> Subscription {
        let (subscription, mailbox) = Subscription::new();
        lock(&self.mailboxes).push(Arc::downgrade(&mailbox));
        subscription
    }

    /// Returns the table of shared names, for a decoder that would otherwise allocate names only for the cache to drop them.
    ///
    /// Let go of the guard before calling anything that writes: a write takes the same lock and would wait for ever.
    pub fn interner(&self) -> MutexGuard<'_, Interner> {
        lock(&self.interner)
    }

    /// Says who tells the state.
    pub fn set_source(&self, source: &'static str) {
        lock(&self.state).source = source;
    }

    /// Notes that the source confirms the present state as of now.
    pub fn confirm(&self) {
        let mut state = lock(&self.state);
        state.updated = Some(Instant::now());
        state.updated_wall = Some(SystemTime::now());
    }

    /// Returns where the state comes from and how fresh it is.
    pub fn state(&self) -> State {
        *lock(&self.state)
    }

    /// Swaps the draft in and tells subscribers, if it differs from what was before.
    fn finish(
        &self,
        mut mailboxes: MutexGuard<'_, Vec<Weak<Mailbox>>>,
        draft: Draft<'_>,
        whole: bool,
        received: Option<Instant>,
    ) -> bool {
        let change = draft.finish().map(|(next, change)| {
            self.snapshot.store(Arc::new(next));
            change
        });
        self.confirm();
        let mut state = lock(&self.state);
        let first = whole && !state.complete;
        state.complete |= whole;
        state.swaps += u64::from(change.is_some());
        drop(state);
        let swapped = change.is_some();
        // Who waits for the first whole state is told of one that is empty, too.
        let change = if first { Change::full() } else { change.unwrap_or_default() };
        tell(&mut mailboxes, &Change { received, ..change });
        swapped
    }
}

fn tell(mailboxes: &mut Vec<Weak<Mailbox>>, change: &Change) {
    if change.is_empty() {
        return;
    }
    mailboxes.retain(|mailbox| mailbox.upgrade().inspect(|m| m.add(change)).is_some());
}

/// Takes a lock; what a panic left half done is at worst a name too many in a table.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
