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

mod recent;
mod saved;
#[cfg(test)]
mod tests;

use abi::{Kind, Record};
use rustc_hash::FxHashMap;
use slab::Slab;

use crate::{
    check::Totals,
    families::Traffic,
    increment::{Advance, advance},
};
use recent::Recent;
pub(crate) use saved::Saved;

/// Ended connections that are remembered at least, so that a late record does not open them again.
const REMEMBERED: usize = 1 << 15;

/// Complete passes in a row that must miss a connection before it counts as ended.
const MISSED_PASSES: u32 = 2;

/// A live connection, with `T` for what others keep with it.
#[derive(Debug)]
pub struct Connection<T> {
    /// The newest record, each total the highest seen.
    pub last: Record,
    /// From when on its age counts, ns of `CLOCK_MONOTONIC`: its begin, or its adoption.
    pub begun_ns: u64,
    /// What others keep with it.
    pub data: T,
    /// The pass that saw it last; see [`Connections::end_pass`].
    seen: u32,
    /// Which stretch of watching its totals were brought up to date in.
    watch: u32,
}

/// What a record did to a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// It was opened.
    pub opened: bool,
    /// It was found open: it began while nobody watched.
    pub adopted: bool,
    /// By how much its totals rose.
    pub by: Traffic,
    /// Some total was lower than before and left where it was.
    pub stale: bool,
    /// It is watched again: its totals go on from where they are.
    pub resumed: bool,
}

/// Why nothing comes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// An Established record of a live connection.
    Repeated,
    /// Its connection has ended already.
    Late,
    /// The table is full.
    Full,
}

/// What became of a record.
#[derive(Debug)]
pub enum Step<'a, T> {
    /// The connection is live.
    Live(&'a mut Connection<T>, Change),
    /// The connection has ended and left the table.
    Ended(Connection<T>, Change),
    /// Another connection of the same socket, whose end was never told, has left the table; the record is to be given again.
    Replaced(Connection<T>),
    /// Nothing.
    Nothing(Left),
}

/// The table of live connections.
#[derive(Debug)]
pub struct Connections<T> {
    by_cookie: FxHashMap<u64, u32>,
    slots: Slab<Connection<T>>,
    capacity: usize,
    ended: Recent,
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
            by_cookie: FxHashMap::default(),
            slots: Slab::new(),
            capacity: capacity.min(u32::MAX as usize),
            ended: Recent::new(REMEMBERED),
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
        self.slots.len()
    }

    /// Iterates over the live connections.
    pub fn iter(&self) -> impl Iterator<Item = &Connection<T>> {
        self.slots.iter().map(|(_, c)| c)
    }

    /// Iterates over the live connections from a slot on, each with its slot: a walk can stop and go on where it was, and shows
    /// what is live all the while once.
    pub fn iter_from(&self, slot: usize) -> impl Iterator<Item = (usize, &Connection<T>)> {
        (slot..self.slots.capacity()).filter_map(|slot| self.slots.get(slot).map(|c| (slot, c)))
    }

    /// Iterates over the live connections, to change what is kept with them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection<T>> {
        self.slots.iter_mut().map(|(_, c)| c)
    }

    /// Returns the live connection of a socket, to change what is kept with it.
    pub(crate) fn of_cookie(&mut self, cookie: u64) -> Option<&mut Connection<T>> {
        self.by_cookie.get(&cookie).map(|slot| &mut self.slots[*slot as usize])
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
    /// record and of when the connection's age begins.
    pub fn observe(&mut self, kind: Kind, record: &Record, make: impl FnOnce(&Record, u64) -> T) -> Step<'_, T> {
        let Some(&slot) = self.by_cookie.get(&record.cookie) else {
            return self.observe_unknown(kind, record, make);
        };
        let known = &mut self.slots[slot as usize];
        if record.start_ns != known.last.start_ns {
            return if record.start_ns < known.last.start_ns {
                Step::Nothing(Left::Late)
            } else {
                Step::Replaced(self.remove(slot))
            };
        }
        known.seen = self.passes + u32::from(self.in_pass);
        if kind == Kind::Established {
            return Step::Nothing(Left::Repeated);
        }
        let Advance { mut by, stale } = advance(&mut known.last, record);
        let resumed = known.watch != self.watch;
        if resumed {
            known.watch = self.watch;
            if !self.history {
                self.uncounted.add(Totals { sent: by.sent, received: by.received, ..Totals::default() });
                by = Traffic::default();
            }
        }
        let change = Change { by, stale, resumed, ..Change::default() };
        if kind == Kind::Closed {
            return Step::Ended(self.remove(slot), change);
        }
        Step::Live(&mut self.slots[slot as usize], change)
    }

    fn observe_unknown(&mut self, kind: Kind, record: &Record, make: impl FnOnce(&Record, u64) -> T) -> Step<'_, T> {
        let identity = (record.cookie, record.start_ns);
        if self.ended.contains(identity) {
            return Step::Nothing(Left::Late);
        }
        if kind != Kind::Closed && self.slots.len() >= self.capacity {
            return Step::Nothing(Left::Full);
        }
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
        let connection = Connection {
            last: *record,
            begun_ns,
            data: make(record, begun_ns),
            seen: self.passes + u32::from(self.in_pass),
            watch: self.watch,
        };
        let change = Change { opened: !adopted, adopted, by, ..Change::default() };
        if kind == Kind::Closed {
            self.ended.insert(identity);
            return Step::Ended(connection, change);
        }
        let slot = self.slots.insert(connection);
        self.by_cookie.insert(record.cookie, u32::try_from(slot).expect("the capacity fits 32 bits"));
        Step::Live(&mut self.slots[slot], change)
    }

    /// Takes note that a socket's connection is live at `now_ns` and as its newest record says; nothing if there has to be a record of it,
    /// since it is not known, or is watched again.
    pub fn observe_quiet(&mut self, cookie: u64, now_ns: u64) -> Option<&mut Connection<T>> {
        let known = &mut self.slots[*self.by_cookie.get(&cookie)? as usize];
        if known.watch != self.watch {
            return None;
        }
        known.seen = self.passes + u32::from(self.in_pass);
        known.last.now_ns = known.last.now_ns.max(now_ns);
        Some(known)
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

    /// Ends a pass and lists the connections that two complete passes in a row did not show, both begun after the connection was first
    /// seen: they have ended unnoticed, and are to be removed.
    ///
    /// A Closed record that comes for one later is late: what it might have added is not counted.
    pub fn end_pass(&mut self, complete: bool) -> Vec<u32> {
        self.in_pass = false;
        if !complete {
            return Vec::new();
        }
        self.passes += 1;
        let missed = |c: &Connection<T>| self.passes.saturating_sub(c.seen) >= MISSED_PASSES;
        self.slots.iter().filter(|(_, c)| missed(c)).map(|(slot, _)| slot as u32).collect()
    }

    /// Removes a connection that has ended unnoticed.
    ///
    /// # Panics
    /// When it is not there any more.
    pub fn remove(&mut self, slot: u32) -> Connection<T> {
        let connection = self.slots.remove(slot as usize);
        self.by_cookie.remove(&connection.last.cookie);
        self.ended.insert((connection.last.cookie, connection.last.start_ns));
        connection
    }
}
