//! A bounded memory of what ended lately.

use std::collections::VecDeque;

use rustc_hash::FxHashSet;

use crate::store::ENDED_COUNT;

/// Cookie and a time that tells uses of one socket apart.
pub(super) type Identity = (u64, u64);

/// Two generations of identities: when the younger is full it becomes the older, and the older is forgotten. So at least
/// `generation` and at most twice as many are remembered.
#[derive(Debug)]
pub(super) struct Recent {
    generation: usize,
    young: FxHashSet<Identity>,
    old: FxHashSet<Identity>,
    /// Those that are not saved yet.
    fresh: VecDeque<Identity>,
}

impl Recent {
    pub(super) fn new(generation: usize) -> Self {
        Self { generation, young: FxHashSet::default(), old: FxHashSet::default(), fresh: VecDeque::new() }
    }

    pub(super) fn contains(&self, identity: Identity) -> bool {
        self.young.contains(&identity) || self.old.contains(&identity)
    }

    pub(super) fn insert(&mut self, identity: Identity) {
        if self.fresh.len() >= ENDED_COUNT {
            self.fresh.pop_front();
        }
        self.fresh.push_back(identity);
        self.remember(identity);
    }

    /// Inserts one that is saved already.
    pub(super) fn remember(&mut self, identity: Identity) {
        if self.young.len() >= self.generation {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(identity);
    }

    /// Takes the oldest that is not saved yet.
    pub(super) fn take_fresh(&mut self) -> Option<Identity> {
        self.fresh.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::Recent;

    #[test]
    fn at_least_a_generation_and_at_most_two_are_remembered() {
        let mut recent = Recent::new(4);
        for n in 0..100 {
            recent.insert((n, 0));
            let remembered = (0..=n).filter(|&m| recent.contains((m, 0))).count() as u64;
            assert!(remembered >= 4.min(n + 1) && remembered <= 8, "{n} {remembered}");
            assert!((n.saturating_sub(3)..=n).all(|m| recent.contains((m, 0))));
        }
    }
}
