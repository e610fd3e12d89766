//! Totals become increments.

use abi::Record;

use crate::families::Traffic;

/// What a record adds to the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advance {
    /// By how much each total rose.
    pub by: Traffic,
    /// Some total was lower than one seen before; it was left where it was.
    pub stale: bool,
}

/// Brings what is known of a connection up to a record of it and returns the difference.
///
/// Totals only rise: of each the highest counts, whatever the order of the records. All else is taken from the newer record.
pub fn advance(known: &mut Record, record: &Record) -> Advance {
    let mut stale = false;
    let mut raise = |total: &mut u64, to: u64| {
        stale |= to < *total;
        let by = to.saturating_sub(*total);
        *total += by;
        by
    };
    let mut next = if record.now_ns >= known.now_ns { *record } else { *known };
    let by = Traffic {
        sent: raise(&mut known.sent, record.sent),
        received: raise(&mut known.received, record.received),
        retransmits: raise(&mut known.retransmits, record.retransmits),
        lost: raise(&mut known.lost, record.lost),
    };
    raise(&mut known.segments_in, record.segments_in);
    raise(&mut known.segments_out, record.segments_out);
    (next.sent, next.received, next.retransmits, next.lost) =
        (known.sent, known.received, known.retransmits, known.lost);
    (next.segments_in, next.segments_out) = (known.segments_in, known.segments_out);
    *known = next;
    Advance { by, stale }
}

#[cfg(test)]
mod tests {
    use abi::Record;

    use super::{Traffic, advance};

    #[test]
    fn the_difference_counts_and_the_newer_record_is_kept() {
        let mut known = Record { now_ns: 5, sent: 10, received: 7, srtt_us: 1, ..Record::default() };
        let record = Record { now_ns: 9, sent: 12, received: 7, lost: 3, srtt_us: 2, ..Record::default() };
        let step = advance(&mut known, &record);
        assert_eq!(step.by, Traffic { sent: 2, received: 0, retransmits: 0, lost: 3 });
        assert!(!step.stale);
        assert_eq!(known, record);
    }

    #[test]
    fn an_older_record_changes_nothing() {
        let newest = Record { now_ns: 9, sent: 12, received: 8, srtt_us: 2, ..Record::default() };
        let mut known = newest;
        let step = advance(&mut known, &Record { now_ns: 5, sent: 10, received: 8, srtt_us: 1, ..Record::default() });
        assert_eq!((step.by, step.stale), (Traffic::default(), true));
        assert_eq!(known, newest);
    }

    #[test]
    fn a_total_that_falls_stays_and_the_others_rise() {
        let mut known = Record { now_ns: 5, sent: u64::MAX, received: 1, ..Record::default() };
        let step = advance(&mut known, &Record { now_ns: 6, sent: 3, received: 4, ..Record::default() });
        assert_eq!((step.by.sent, step.by.received, step.stale), (0, 3, true));
        assert_eq!((known.sent, known.received), (u64::MAX, 4));
    }
}
