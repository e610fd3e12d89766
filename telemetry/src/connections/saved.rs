//! What of the table is saved, and put back.

use abi::Record;

use super::{Connection, Connections, recent::Identity};

/// What a saved connection says of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Saved {
    /// Its totals, its addresses and who it is.
    pub(crate) last: Record,
    pub(crate) begun_ns: u64,
    /// The stretch of watching in which its totals were brought up to date.
    pub(crate) watch: u32,
}

impl<T> Connection<T> {
    /// The stretch of watching in which its totals were brought up to date.
    pub(crate) fn watch(&self) -> u32 {
        self.watch
    }
}

impl<T> Connections<T> {
    /// Which stretch of watching this is, and since when.
    pub(crate) fn watching(&self) -> (u32, u64) {
        (self.watch, self.watching_since_ns)
    }

    /// Goes on in a stretch of watching that was saved.
    pub(crate) fn found_watching(&mut self, watch: u32, since_ns: u64) {
        (self.watch, self.watching_since_ns) = (watch, since_ns);
    }

    /// Puts a connection back that was saved.
    pub(crate) fn found(&mut self, Saved { last, begun_ns, watch }: Saved, data: T) {
        let slot = self.slots.insert(Connection { last, begun_ns, data, seen: 0, watch });
        self.by_cookie.insert(last.cookie, u32::try_from(slot).expect("there are fewer blocks than that"));
    }

    /// Takes the first that ended and is not saved yet.
    pub(crate) fn take_ended(&mut self) -> Option<Identity> {
        self.ended.take_fresh()
    }

    /// Remembers something else that happens once.
    pub(crate) fn remember(&mut self, identity: Identity) {
        self.ended.insert(identity);
    }

    /// Tells whether it has happened.
    pub(crate) fn remembers(&self, identity: Identity) -> bool {
        self.ended.contains(identity)
    }

    /// Remembers one that ended before.
    pub(crate) fn found_ended(&mut self, identity: Identity) {
        self.ended.remember(identity);
    }
}
