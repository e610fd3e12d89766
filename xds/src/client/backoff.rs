//! How long to wait before the next attempt.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

/// Doubles from the shortest wait to the longest; of each, a random part of up to a half is taken off, so that many clients that
/// lost one server do not return together.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    pub(super) fn reset(&mut self) {
        self.next = self.min;
    }

    pub(super) fn next(&mut self) -> Duration {
        let wait = self.next.min(self.max);
        self.next = wait.saturating_mul(2);
        // Keys of a new hasher are as random as this needs.
        let random = RandomState::new().build_hasher().finish();
        wait.mul_f64(1.0 - (random >> 11) as f64 / (1_u64 << 54) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_again_after_a_reset() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(1500));
        for longest in [100, 200, 400, 800, 1500, 1500] {
            let wait = backoff.next();
            assert!((ms(longest) / 2..=ms(longest)).contains(&wait), "{wait:?} of {longest} ms");
        }
        backoff.reset();
        assert!(backoff.next() <= ms(100));
    }

    #[test]
    fn two_clients_do_not_wait_the_same() {
        let waits: std::collections::HashSet<_> =
            (0..10).map(|_| Backoff::new(Duration::from_secs(1), Duration::from_secs(2)).next()).collect();
        assert!(waits.len() > 5, "{waits:?}");
    }
}
