use abi::{Kind, Record};
use proptest::prelude::*;

use super::{Change, Connection, Connections, Left, Step};
use crate::store::{Store, kind};

/// A table with its image, which is saved after every third record.
struct Table {
    connections: Connections<()>,
    store: Store,
    fed: u64,
}

impl Table {
    fn new(capacity: usize) -> Self {
        Self { connections: Connections::new(capacity), store: Store::in_heap(), fed: 0 }
    }

    fn with_history(self, history: bool) -> Self {
        Self { connections: self.connections.with_history(history), ..self }
    }

    fn observe(&mut self, kind: Kind, record: &Record) -> Step<'_, ()> {
        self.fed += 1;
        if self.fed.is_multiple_of(3) {
            assert!(!self.connections.save(&mut self.store, |()| [kind::CONNECTION, 0, 0]));
            self.store.commit();
        }
        self.connections.observe(&mut self.store, kind, record, |_, begun_ns| ((), begun_ns))
    }

    fn iter(&self) -> impl Iterator<Item = Connection<&()>> {
        self.connections.iter_from(&self.store, 0).map(|(_, connection)| connection)
    }
}

impl std::ops::Deref for Table {
    type Target = Connections<()>;
    fn deref(&self) -> &Self::Target {
        &self.connections
    }
}

impl std::ops::DerefMut for Table {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.connections
    }
}

fn at(cookie: u64, now_ns: u64, total: u64) -> Record {
    let start_ns = 100 * cookie;
    Record {
        cookie,
        start_ns,
        now_ns,
        sent: total,
        received: 2 * total,
        retransmits: total,
        lost: total,
        ..Record::default()
    }
}

/// What comes out of a table, added up as a family does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    opened: u64,
    adopted: u64,
    closed: u64,
    sent: u64,
    received: u64,
}

impl Sum {
    fn add(&mut self, change: Change) {
        self.opened += u64::from(change.opened);
        self.adopted += u64::from(change.adopted);
        self.sent += change.by.sent;
        self.received += change.by.received;
    }
}

#[derive(Default)]
struct Fed {
    sum: Sum,
    left: Vec<Left>,
}

impl Fed {
    fn feed(&mut self, table: &mut Table, kind: Kind, record: &Record) {
        loop {
            match table.observe(kind, record) {
                Step::Live(_, change) => self.sum.add(change),
                Step::Ended(_, change) => {
                    self.sum.add(change);
                    self.sum.closed += 1;
                }
                Step::Replaced(_) => {
                    self.sum.closed += 1;
                    continue;
                }
                Step::Nothing(why) => self.left.push(why),
            }
            return;
        }
    }
}

fn fed(table: &mut Table, records: &[(Kind, Record)]) -> Fed {
    let mut fed = Fed::default();
    for (kind, record) in records {
        fed.feed(table, *kind, record);
    }
    fed
}

fn pass(table: &mut Table, shown: &[Record], complete: bool) -> Vec<u64> {
    table.begin_pass();
    for record in shown {
        table.observe(Kind::Progress, record);
    }
    let any = table.end_pass(complete);
    let missed = if any { table.connections.missed() } else { Vec::new() };
    assert_eq!(any, !missed.is_empty());
    missed.into_iter().map(|slot| table.connections.remove(&table.store, slot).last.cookie).collect()
}

#[test]
fn a_short_connection_is_opened_moved_and_closed() {
    let mut table = Table::new(8);
    let fed = fed(&mut table, &[(Kind::Established, at(1, 100, 0)), (Kind::Closed, at(1, 200, 7))]);
    assert_eq!(fed.sum, Sum { opened: 1, closed: 1, sent: 7, received: 14, adopted: 0 });
    assert_eq!(table.live(), 0);
}

#[test]
fn a_close_without_anything_before_counts_all_of_it() {
    let fed = fed(&mut Table::new(8), &[(Kind::Closed, at(1, 200, 7)), (Kind::Established, at(1, 100, 0))]);
    assert_eq!(fed.sum, Sum { opened: 1, closed: 1, sent: 7, received: 14, adopted: 0 });
    assert_eq!(fed.left, [Left::Late]);
}

#[test]
fn progress_before_established_opens_once() {
    let records =
        [(Kind::Progress, at(1, 150, 3)), (Kind::Established, at(1, 100, 0)), (Kind::Progress, at(1, 160, 5))];
    let fed = fed(&mut Table::new(8), &records);
    assert_eq!((fed.sum.opened, fed.sum.sent, fed.sum.closed), (1, 5, 0));
    assert_eq!(fed.left, [Left::Repeated]);
}

#[test]
fn what_does_not_fit_is_whole_at_its_end() {
    let mut table = Table::new(1);
    let records = [
        (Kind::Established, at(1, 100, 0)),
        (Kind::Established, at(2, 200, 0)),
        (Kind::Progress, at(2, 210, 4)),
        (Kind::Closed, at(2, 220, 9)),
    ];
    let fed = fed(&mut table, &records);
    assert_eq!(fed.left, [Left::Full, Left::Full]);
    assert_eq!(fed.sum, Sum { opened: 2, closed: 1, sent: 9, received: 18, adopted: 0 });
}

#[test]
fn what_did_not_fit_enters_when_there_is_room() {
    let mut table = Table::new(1);
    let records = [
        (Kind::Established, at(1, 100, 0)),
        (Kind::Established, at(2, 200, 0)),
        (Kind::Closed, at(1, 205, 1)),
        (Kind::Progress, at(2, 210, 4)),
    ];
    let fed = fed(&mut table, &records);
    assert_eq!((fed.sum.opened, fed.sum.sent, table.live()), (2, 5, 1));
}

#[test]
fn a_socket_that_is_connected_again_is_another_connection() {
    let mut table = Table::new(8);
    let again = Record { start_ns: 500, ..at(1, 510, 2) };
    let records = [
        (Kind::Established, at(1, 100, 0)),
        (Kind::Closed, at(1, 200, 7)),
        (Kind::Established, Record { sent: 0, received: 0, ..again }),
        (Kind::Progress, at(1, 190, 6)),
        (Kind::Closed, again),
    ];
    let fed = fed(&mut table, &records);
    assert_eq!(fed.left, [Left::Late]);
    assert_eq!(fed.sum, Sum { opened: 2, closed: 2, sent: 9, received: 18, adopted: 0 });
}

#[test]
fn a_socket_that_is_connected_again_without_a_close_ends_the_old_connection() {
    let mut table = Table::new(8);
    let again = Record { start_ns: 500, ..at(1, 510, 2) };
    let records = [(Kind::Progress, at(1, 150, 3)), (Kind::Established, again), (Kind::Closed, at(1, 200, 7))];
    let fed = fed(&mut table, &records);
    assert_eq!((fed.sum.opened, fed.sum.closed, fed.sum.sent), (2, 1, 5));
    assert_eq!(fed.left, [Left::Late]);
}

#[test]
fn two_complete_passes_that_miss_a_connection_end_it() {
    let mut table = Table::new(8);
    fed(&mut table, &[(Kind::Established, at(1, 100, 0)), (Kind::Established, at(2, 200, 0))]);
    assert!(pass(&mut table, &[at(2, 300, 1)], true).is_empty());
    assert_eq!(pass(&mut table, &[at(2, 400, 1)], true), [1]);
    assert_eq!(table.live(), 1);
    assert_eq!(fed(&mut table, &[(Kind::Closed, at(1, 500, 9))]).left, [Left::Late]);
}

#[test]
fn incomplete_passes_end_nothing() {
    let mut table = Table::new(8);
    fed(&mut table, &[(Kind::Established, at(1, 100, 0))]);
    assert!(pass(&mut table, &[], true).is_empty());
    for _ in 0..5 {
        assert!(pass(&mut table, &[], false).is_empty());
    }
    assert_eq!(pass(&mut table, &[], true), [1]);
}

#[test]
fn a_connection_seen_again_has_not_vanished() {
    let mut table = Table::new(8);
    fed(&mut table, &[(Kind::Established, at(1, 100, 0))]);
    for n in 0..4 {
        assert!(pass(&mut table, &[], true).is_empty());
        assert!(pass(&mut table, &[at(1, 200 + n, n)], true).is_empty());
    }
}

#[test]
fn a_connection_first_seen_during_a_pass_is_missed_by_none() {
    let mut table = Table::new(8);
    table.begin_pass();
    fed(&mut table, &[(Kind::Established, at(1, 100, 0))]);
    assert!(!table.end_pass(true));
    assert!(pass(&mut table, &[], true).is_empty());
    assert_eq!(pass(&mut table, &[], true), [1]);
}

#[test]
fn what_moved_while_nobody_watched_is_not_counted() {
    let mut table = Table::new(8);
    let before = fed(&mut table, &[(Kind::Established, at(1, 100, 0)), (Kind::Progress, at(1, 150, 5))]);
    assert_eq!(before.sum.sent, 5);
    table.watch_again(1000);
    let records =
        [(Kind::Progress, at(1, 1100, 50)), (Kind::Progress, at(1, 1200, 53)), (Kind::Closed, at(1, 1300, 60))];
    let after = fed(&mut table, &records);
    assert_eq!((after.sum.opened, after.sum.sent, after.sum.closed), (0, 10, 1));
}

#[test]
fn what_began_while_nobody_watched_is_adopted_and_counts_from_then_on() {
    let mut table = Table::new(8);
    table.watch_again(1000);
    let records =
        [(Kind::Progress, at(3, 1100, 50)), (Kind::Progress, at(3, 1200, 53)), (Kind::Closed, at(4, 1300, 60))];
    let fed = fed(&mut table, &records);
    assert_eq!(fed.sum, Sum { opened: 0, adopted: 2, closed: 1, sent: 3, received: 6 });
    assert_eq!(table.iter().next().map(|c| c.begun_ns), Some(1100));
}

#[test]
fn with_history_what_moved_while_nobody_watched_counts() {
    let mut table = Table::new(8).with_history(true);
    fed(&mut table, &[(Kind::Established, at(1, 100, 0)), (Kind::Progress, at(1, 150, 5))]);
    table.watch_again(1000);
    let fed = fed(&mut table, &[(Kind::Progress, at(1, 1100, 50)), (Kind::Progress, at(3, 1100, 7))]);
    assert_eq!(fed.sum, Sum { opened: 0, adopted: 1, closed: 0, sent: 52, received: 104 });
}

#[test]
fn what_the_kernel_adopted_is_not_opened_and_counts_what_its_records_say() {
    let adopted = |cookie, now_ns, total| Record { flags: abi::record::flags::ADOPTED, ..at(cookie, now_ns, total) };
    let mut table = Table::new(8);
    let records = [
        (Kind::Progress, adopted(1, 150, 5)),
        (Kind::Progress, adopted(1, 160, 6)),
        (Kind::Closed, adopted(2, 300, 40)),
        (Kind::Closed, adopted(1, 170, 8)),
        (Kind::Progress, adopted(1, 165, 7)),
    ];
    let fed = fed(&mut table, &records);
    assert_eq!(fed.sum, Sum { opened: 0, adopted: 2, closed: 2, sent: 48, received: 96 });
    assert_eq!(fed.left, [Left::Late]);
}

#[test]
fn each_attempt_of_a_socket_fails_once() {
    let mut table = Table::new(8);
    let (first, second) = (at(1, 100, 0), Record { start_ns: 300, ..at(1, 310, 0) });
    let seen = [first, first, second, second, first].map(|r| table.observe_failed(&r));
    assert_eq!(seen, [true, false, true, false, false]);
    assert_eq!(fed(&mut table, &[(Kind::Established, Record { start_ns: 400, ..at(1, 410, 0) })]).sum.opened, 1);
}

type Records = Vec<(Kind, Record)>;

/// One connection's true history: totals that rise from record to record, and whether it ended.
fn history(cookie: u64) -> impl Strategy<Value = Records> {
    (prop::collection::vec(0_u64..1000, 1..6), any::<bool>()).prop_map(move |(steps, ends)| {
        let mut total = 0;
        let mut records = vec![(Kind::Established, at(cookie, 100 * cookie + 1, 0))];
        for (n, step) in steps.iter().enumerate() {
            total += step;
            records.push((Kind::Progress, at(cookie, 100 * cookie + 2 + n as u64, total)));
        }
        if ends {
            records.push((Kind::Closed, at(cookie, 100 * cookie + 50, total + 1)));
        }
        records
    })
}

/// Histories of several connections, of which records are lost, repeated and delivered in any order.
fn deliveries() -> impl Strategy<Value = (Vec<Records>, Records)> {
    (history(1), history(2), history(3), history(4)).prop_map(|(a, b, c, d)| vec![a, b, c, d]).prop_flat_map(|truth| {
        let all: Vec<_> = truth.iter().flatten().copied().collect();
        let copies = prop::collection::vec(0_usize..4, all.len());
        let delivered = copies.prop_map(move |copies| {
            all.iter().zip(copies).flat_map(|(record, n)| std::iter::repeat_n(*record, n)).collect::<Vec<_>>()
        });
        (Just(truth), delivered.prop_shuffle())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_delivery_makes_a_counter_fall_or_pass_the_truth((truth, delivered) in deliveries(), capacity in 1_usize..6) {
        let mut table = Table::new(capacity);
        let mut fed = Fed::default();
        for (kind, record) in &delivered {
            fed.feed(&mut table, *kind, record);
            let seen: u64 = truth.iter().map(|t| t.last().unwrap().1.sent).sum();
            prop_assert!(fed.sum.sent <= seen && fed.sum.opened <= 4 && fed.sum.closed <= fed.sum.opened);
            prop_assert_eq!(fed.sum.opened - fed.sum.closed, table.live() as u64);
            prop_assert!(table.live() <= capacity);
        }
        // Per connection: the truth where the close came, else the highest total that was delivered and fitted.
        let alone = |history: &Records| {
            let cookie = history[0].1.cookie;
            let mine: Vec<_> = delivered.iter().filter(|d| d.1.cookie == cookie).collect();
            let closed = mine.iter().any(|d| d.0 == Kind::Closed);
            (closed, mine.iter().map(|d| d.1.sent).max().unwrap_or(0), !mine.is_empty(), history.last().unwrap().1.sent)
        };
        let truths: Vec<_> = truth.iter().map(alone).collect();
        let live: u64 = table.iter().map(|c| c.last.sent).sum();
        // What a reordered close cut short is still whole, since a close tells everything.
        let ended: u64 = truths.iter().filter(|t| t.0).map(|t| t.3).sum();
        prop_assert_eq!(fed.sum.sent, ended + live);
        prop_assert_eq!(fed.sum.received, 2 * fed.sum.sent);
        prop_assert_eq!(fed.sum.closed, truths.iter().filter(|t| t.0).count() as u64);
        if capacity >= 4 {
            prop_assert_eq!(fed.sum.sent, truths.iter().map(|t| t.1).sum::<u64>());
            prop_assert_eq!(fed.sum.opened, truths.iter().filter(|t| t.2).count() as u64);
        }
    }
}
