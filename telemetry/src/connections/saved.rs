//! What of the table is saved, and put back.

use abi::Direction;

use super::{Account, Connections, Row, recent::Identity};
use crate::store::{BLOCK, Image, Store};

impl<T> Connections<T> {
    /// Brings what changed into the image; `head` gives the first three words of a block, but for the upper half of the first. Tells
    /// whether the step is full, and more may be left to do.
    pub(crate) fn save(&mut self, store: &mut Store, head: impl Fn(&T) -> [u64; 3]) -> bool {
        while !store.is_full()
            && let Some(block) = self.gone.pop()
        {
            store.release(block);
        }
        while !store.is_full()
            && let Some((slot, account)) = self.waiting.pop()
        {
            let row = &mut self.rows[slot as usize];
            row.waits = 0;
            let mut image: Image = [0; BLOCK];
            image[..3].copy_from_slice(&head(&row.data));
            account.write(&mut image);
            if std::mem::replace(&mut row.saved, true) {
                store.change(row.block, 0, &image);
            } else {
                store.make(row.block, &image);
            }
        }
        store.is_full()
    }

    /// Which stretch of watching this is, and since when.
    pub(crate) fn watching(&self) -> (u32, u64) {
        (self.watch, self.watching_since_ns)
    }

    /// Goes on in a stretch of watching that was saved.
    pub(crate) fn found_watching(&mut self, watch: u32, since_ns: u64) {
        (self.watch, self.watching_since_ns) = (watch, since_ns);
    }

    /// Puts a connection back that was saved in a block.
    pub(crate) fn found(&mut self, block: u32, account: &Account, direction: Direction, data: T) {
        self.insert(Row::found(account, direction, block, data));
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
