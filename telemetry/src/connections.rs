//! Live connections by socket cookie: which record opens, moves or ends one, and by how much.
//!
//! Nothing is counted twice and no total falls, whatever is lost, repeated or out of order:
//!
//! | record | of a live connection | of an unknown one | of one that ended |
//! |---|---|---|---|
//! | Established | repeated, ignored | opened | late, ignored |
//! | Progress | what it adds | opened (its Established was lost or is on its way), what it adds | late, ignored |
//! | Closed | what it adds, closed | opened, its whole totals, closed | late, ignored |
//!
//! A connection is its cookie and its begin: a socket may be connected again after a close and keeps its cookie. What finds
//! the table full is left out until a record finds room or the connection ends, and then has its whole totals: late, exact.

mod account;
mod recent;
mod row;
mod rows;
mod saved;
mod step;
#[cfg(test)]
mod tests;

use abi::{Kind, Record};
use hashbrown::HashTable;
use slab::Slab;

use crate::{
    check::Totals,
    families::Traffic,
    increment::{Advance, advance},
    store::Store,
};
pub(crate) use account::Account;
use recent::Recent;
use row::Row;
pub use step::{Change, Connection, Left, Quiet, Step};

/// Ended connections that are remembered at least, so that a late record does not open them again.
const REMEMBERED: usize = 1 << 15;

/// Complete passes in a row that must miss a connection before it counts as ended.
const MISSED_PASSES: u32 = 2;

/// The table of live connections. What the next process needs of them is in `store`'s image alone, which is always the same one.
#[derive(Debug)]
pub struct Connections<T> {
    by_cookie: HashTable<u32>,
    rows: Slab<Row<T>>,
    capacity: usize,
    ended: Recent,
    /// What changed since it was saved, by slot: until then it stands here.
    waiting: Vec<(u32, Account)>,
    /// Blocks of connections that ended since.
    gone: Vec<u32>,
    /// Complete passes so far.
    passes: u32,
    in_pass: bool,
    watch: u32,
    watching_since_ns: u64,
    /// What moved while nobody watched counts too.
    history: bool,
    /// Payload that is not counted: it moved while nobody watched.
    uncounted: Totals,
}

impl<T> Connections<T> {
    /// Makes an empty table for at most `capacity` connections; memory grows with what is live.
    pub fn new(capacity: usize) -> Self {
        Self {
            by_cookie: HashTable::new(),
            rows: Slab::new(),
            capacity: capacity.min(u32::MAX as usize),
            ended: Recent::new(REMEMBERED),
            waiting: Vec::new(),
            gone: Vec::new(),
            passes: 0,
            in_pass: false,
            watch: 0,
            watching_since_ns: 0,
            history: false,
            uncounted: Totals::default(),
        }
    }

    /// Has what moved while nobody watched counted, too.
    pub fn with_history(self, history: bool) -> Self {
        Self { history, ..self }
    }

    /// Returns the payload that was not counted, of all connections so far.
    pub(crate) fn uncounted(&self) -> Totals {
        self.uncounted
    }

    /// Returns how many connections are live.
    pub fn live(&self) -> usize {
        self.rows.len()
    }

    /// Returns the payload of all live connections.
    pub(crate) fn totals(&self, store: &Store) -> Totals {
        let mut totals = Totals::default();
        for (_, row) in &self.rows {
            let Account { sent, received, .. } = self.account(row, store);
            totals.add(Totals { sent, received, ..Totals::default() });
        }
        totals
    }

    /// Iterates over the live connections from a slot on, each with its slot: a walk can stop and go on where it was, and shows
    /// what is live all the while once.
    pub fn iter_from(&self, store: &Store, slot: usize) -> impl Iterator<Item = (usize, Connection<&T>)> {
        let row = move |slot| self.rows.get(slot).map(|row| (slot, row));
        (slot..self.rows.capacity()).filter_map(row).map(move |(slot, row)| {
            let account = self.account(row, store);
            (slot, row.shown(&account).with(&row.data))
        })
    }

    /// Changes what is kept with the live connections; `change` tells whether it did, and then that is saved.
    pub(crate) fn change(&mut self, store: &Store, mut change: impl FnMut(&mut T) -> bool) {
        for slot in 0..self.rows.capacity() {
            if let Some(row) = self.rows.get_mut(slot)
                && change(&mut row.data)
            {
                self.save_again(store, slot as u32);
            }
        }
    }

    /// Returns the live connection of a socket, to change what is kept with it.
    pub(crate) fn of_cookie(&mut self, store: &Store, cookie: u64) -> Option<Connection<&mut T>> {
        let slot = self.slot(cookie)?;
        let account = self.account(&self.rows[slot as usize], store);
        Some(self.shown_mut(slot, &account))
    }

    /// Has what is kept with the connection of a socket saved, since it changed.
    pub(crate) fn changed(&mut self, store: &Store, cookie: u64) {
        if let Some(slot) = self.slot(cookie) {
            self.save_again(store, slot);
        }
    }

    /// Tells whether a record is of a connection, or a failure, that has ended already.
    pub(crate) fn is_over(&self, kind: Kind, record: &Record) -> bool {
        let time = if kind == Kind::Failed { record.now_ns } else { record.start_ns };
        self.ended.contains((record.cookie, time))
    }

    /// Says that nobody watched until `since_ns`: what moved in between is not counted (but with history), so the next record of each
    /// known connection sets where its totals go on from, and what began before and is not known is adopted.
    pub fn watch_again(&mut self, since_ns: u64) {
        self.watch = self.watch.wrapping_add(1);
        self.watching_since_ns = since_ns;
    }

    /// Takes an Established, Progress or Closed record; `make` supplies what is kept with a connection that is new, of the
    /// record and of when the connection's age begins, and that time by the wall clock.
    pub fn observe(
        &mut self,
        store: &mut Store,
        kind: Kind,
        record: &Record,
        make: impl FnOnce(&Record, u64) -> (T, u64),
    ) -> Step<'_, T> {
        let Some(slot) = self.slot(record.cookie) else {
            return self.observe_unknown(store, kind, record, make);
        };
        let before = self.account(&self.rows[slot as usize], store);
        if record.start_ns != before.start_ns {
            return if record.start_ns < before.start_ns {
                Step::Nothing(Left::Late)
            } else {
                Step::Replaced(self.remove(store, slot))
            };
        }
        let row = &mut self.rows[slot as usize];
        row.seen = self.passes + u32::from(self.in_pass);
        if kind == Kind::Established {
            return Step::Nothing(Left::Repeated);
        }
        let (mut account, mut last) = (before, row.last(&before));
        let Advance { mut by, stale } = advance(&mut last, record);
        account.update(&last);
        let resumed = account.watch != self.watch;
        if resumed {
            account.watch = self.watch;
            if !self.history {
                self.uncounted.add(Totals { sent: by.sent, received: by.received, ..Totals::default() });
                by = Traffic::default();
            }
        }
        let change = Change { by, stale, resumed, ..Change::default() };
        if kind == Kind::Closed {
            return Step::Ended(Connection { last, ..self.take(slot, &account) }, change);
        }
        row.update(&last, &account);
        if account != before {
            self.put(slot, account);
        }
        Step::Live(self.shown_mut(slot, &account), change)
    }

    fn observe_unknown(
        &mut self,
        store: &mut Store,
        kind: Kind,
        record: &Record,
        make: impl FnOnce(&Record, u64) -> (T, u64),
    ) -> Step<'_, T> {
        let identity = (record.cookie, record.start_ns);
        if self.ended.contains(identity) {
            return Step::Nothing(Left::Late);
        }
        let is_open = kind != Kind::Closed;
        if is_open && self.rows.len() >= self.capacity {
            return Step::Nothing(Left::Full);
        }
        let Some(block) = (if is_open { store.claim() } else { Some(0) }) else {
            return Step::Nothing(Left::Full);
        };
        let older = kind != Kind::Established && record.start_ns < self.watching_since_ns;
        // The kernel leaves out of the totals what it is not to count of a connection that it adopted, and has it begin with that.
        let adopted = older || record.flags & abi::record::flags::ADOPTED != 0;
        let uncounted = older && !self.history;
        let mut by = advance(&mut Record::default(), record).by;
        if uncounted {
            self.uncounted.add(Totals { sent: by.sent, received: by.received, ..Totals::default() });
            by = Traffic::default();
        }
        let begun_ns = if older { record.now_ns } else { record.start_ns };
        let (data, begun_wall_ns) = make(record, begun_ns);
        let change = Change { opened: !adopted, adopted, by, ..Change::default() };
        if !is_open {
            self.ended.insert(identity);
            return Step::Ended(Connection { last: *record, begun_ns, begun_wall_ns, data }, change);
        }
        let account = Account::new(record, begun_ns, begun_wall_ns, self.watch);
        let seen = self.passes + u32::from(self.in_pass);
        let slot = self.insert(Row::new(record, &account, block, seen, data));
        self.put(slot, account);
        Step::Live(self.shown_mut(slot, &account), change)
    }

    /// Takes note that a socket's connection is live at `now_ns` and as its newest record says; nothing if there has to be a record of it,
    /// since it is not known, or is watched again.
    pub fn observe_quiet(&mut self, cookie: u64, now_ns: u64) -> Option<Quiet<'_, T>> {
        let slot = self.slot(cookie)?;
        let row = &mut self.rows[slot as usize];
        if row.watch != self.watch as u16 {
            return None;
        }
        row.seen = self.passes + u32::from(self.in_pass);
        row.now_ns = row.now_ns.max(now_ns);
        Some(Quiet { age_ns: row.now_ns.saturating_sub(row.begun_ns), data: &row.data })
    }

    /// Takes a Failed record; tells whether it is the first of its attempt. Failures keep nothing.
    pub fn observe_failed(&mut self, record: &Record) -> bool {
        let attempt = (record.cookie, record.now_ns);
        let first = !self.ended.contains(attempt);
        if first {
            self.ended.insert(attempt);
        }
        first
    }

    /// Begins a pass over all sockets: what is shown from now on is known to be alive.
    pub fn begin_pass(&mut self) {
        self.in_pass = true;
    }

    /// Ends a pass; tells whether [`Connections::missed`] has any after a complete one.
    pub fn end_pass(&mut self, complete: bool) -> bool {
        self.in_pass = false;
        if !complete {
            return false;
        }
        self.passes += 1;
        self.rows.iter().any(|(_, row)| self.is_missed(row))
    }

    /// Lists the connections that two complete passes in a row did not show, both begun after the connection was first seen: they have
    /// ended unnoticed, and are to be removed.
    ///
    /// A Closed record that comes for one later is late: what it might have added is not counted.
    pub fn missed(&self) -> Vec<u32> {
        self.rows.iter().filter(|(_, row)| self.is_missed(row)).map(|(slot, _)| slot as u32).collect()
    }

    fn is_missed(&self, row: &Row<T>) -> bool {
        self.passes.saturating_sub(row.seen) >= MISSED_PASSES
    }

    /// Removes a connection that has ended unnoticed.
    ///
    /// # Panics
    /// When it is not there any more.
    pub fn remove(&mut self, store: &Store, slot: u32) -> Connection<T> {
        let account = self.account(&self.rows[slot as usize], store);
        self.take(slot, &account)
    }
}
