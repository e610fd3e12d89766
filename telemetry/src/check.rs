//! The self check: what metrics hold of ended connections against what the kernel says of them.
//!
//! The kernel counts an end, and its bytes, when it hands it over. Metrics hold those of live connections too, so these are taken off:
//!
//! > series + retired + ignored + not to be counted - live - vanished = ended
//!
//! The kernel goes on counting while records are read. So its totals are read twice: all that the first ones have was read, and no more
//! than the second ones have can have been.

use abi::maps::counter::{self, COUNT};

/// Ends of connections, by how they ended, and the payload of those that had been established.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) closed: u64,
    pub(crate) failed: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// What part of the kernel's totals is accounted for; 1 is all of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratios {
    pub(crate) closed: f64,
    pub(crate) failed: f64,
    pub(crate) sent: f64,
    pub(crate) received: f64,
}

/// The check, which begins with the first look.
#[derive(Debug, Default)]
pub(crate) struct Check {
    first: Option<Look>,
}

/// Totals of one moment.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// What the kernel had handed over at least, and at most.
    least: Totals,
    most: Totals,
    metrics: Totals,
}

impl Totals {
    /// Returns what the kernel handed over, of its counters: what it lost it knows to be lost.
    pub(crate) fn handed_over(counters: &[u64; COUNT as usize]) -> Self {
        let at = |slot: u32| counters[slot as usize];
        let lost_closes = at(counter::LOST_CONNECTIONS).saturating_sub(at(counter::LOST_FAILED));
        Self {
            closed: at(counter::CLOSED).saturating_sub(lost_closes),
            failed: at(counter::FAILED).saturating_sub(at(counter::LOST_FAILED)),
            sent: at(counter::CLOSED_SENT),
            received: at(counter::CLOSED_RECEIVED),
        }
    }

    /// Adds other totals.
    pub(crate) fn add(&mut self, other: Self) {
        *self = self.with(other, u64::wrapping_add);
    }

    /// Takes other totals off.
    pub(crate) fn less(self, other: Self) -> Self {
        self.with(other, u64::wrapping_sub)
    }

    fn with(self, other: Self, by: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            closed: by(self.closed, other.closed),
            failed: by(self.failed, other.failed),
            sent: by(self.sent, other.sent),
            received: by(self.received, other.received),
        }
    }
}

impl Check {
    /// Compares what came since the first look, which only tells where to count from. `before` and `after` are the kernel's totals, read
    /// before the records were that `metrics` have, and after.
    pub(crate) fn look(&mut self, before: Totals, after: Totals, metrics: Totals) -> Option<Ratios> {
        let now = Look { least: before, most: after, metrics };
        let Some(first) = self.first else {
            self.first = Some(now);
            return None;
        };
        let of = |field: fn(&Totals) -> u64| {
            let between = |from: &Totals, to: &Totals| field(to).wrapping_sub(field(from)).cast_signed();
            let metrics = between(&first.metrics, &now.metrics);
            ratio(between(&first.most, &now.least), metrics, between(&first.least, &now.most))
        };
        Some(Ratios {
            closed: of(|totals| totals.closed),
            failed: of(|totals| totals.failed),
            sent: of(|totals| totals.sent),
            received: of(|totals| totals.received),
        })
    }
}

/// Compares a number with what it must be at least and at most.
fn ratio(least: i64, number: i64, most: i64) -> f64 {
    let bound = number.max(least).min(most);
    if number == bound { 1.0 } else { number as f64 / bound.max(1) as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(number: u64) -> Totals {
        Totals { closed: number, failed: number, sent: 10 * number, received: 0 }
    }

    #[test]
    fn what_lies_between_the_kernels_two_totals_is_all() {
        let mut check = Check::default();
        assert_eq!(check.look(totals(5), totals(7), totals(100)), None);
        // From 5 to 7 before, 20 to 30 now: 13 to 25 came.
        for came in [13, 20, 25] {
            let ratios = check.look(totals(20), totals(30), totals(100 + came)).expect("there was a look before");
            assert_eq!((ratios.closed, ratios.failed, ratios.sent, ratios.received), (1.0, 1.0, 1.0, 1.0), "{came}");
        }
    }

    #[test]
    fn what_is_missing_or_too_much_shows() {
        let mut check = Check::default();
        check.look(totals(0), totals(0), totals(0));
        let ratios = check.look(totals(100), totals(100), totals(90)).expect("there was a look before");
        assert_eq!((ratios.closed, ratios.sent, ratios.received), (0.9, 0.9, 1.0));
        let ratios = check.look(totals(100), totals(200), totals(300)).expect("there was a look before");
        assert_eq!(ratios.closed, 1.5);
    }

    #[test]
    fn what_the_kernel_lost_was_not_handed_over() {
        let mut counters = [0; COUNT as usize];
        for (slot, value) in [
            (counter::CLOSED, 100),
            (counter::FAILED, 20),
            (counter::LOST_CONNECTIONS, 7),
            (counter::LOST_FAILED, 2),
            (counter::CLOSED_SENT, 1000),
        ] {
            counters[slot as usize] = value;
        }
        let expected = Totals { closed: 95, failed: 18, sent: 1000, received: 0 };
        assert_eq!(Totals::handed_over(&counters), expected);
    }
}
