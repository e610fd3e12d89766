//! What a record did to the table, and to whom.

use abi::Record;

use crate::families::Traffic;

/// A connection as it is shown: the table has it in less room.
#[derive(Debug)]
pub struct Connection<T> {
    /// The newest record, each total the highest seen.
    pub last: Record,
    /// From when on its age counts, ns of `CLOCK_MONOTONIC`: its begin, or its adoption.
    pub begun_ns: u64,
    /// The same, ns since the Unix epoch.
    pub begun_wall_ns: u64,
    /// What others keep with it.
    pub data: T,
}

impl Connection<()> {
    pub(super) fn with<T>(self, data: T) -> Connection<T> {
        let Self { last, begun_ns, begun_wall_ns, data: () } = self;
        Connection { last, begun_ns, begun_wall_ns, data }
    }
}

/// A live connection of which nothing new is known.
#[derive(Debug)]
pub struct Quiet<'a, T> {
    /// How long it has lasted, ns.
    pub age_ns: u64,
    /// What others keep with it.
    pub data: &'a T,
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
    Live(Connection<&'a mut T>, Change),
    /// The connection has ended and left the table.
    Ended(Connection<T>, Change),
    /// Another connection of the same socket, whose end was never told, has left the table; the record is to be given again.
    Replaced(Connection<T>),
    /// Nothing.
    Nothing(Left),
}
