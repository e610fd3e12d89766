//! How the table finds its rows and their accounts.

use std::hash::BuildHasher as _;

use rustc_hash::FxBuildHasher;

use super::{Account, Connection, Connections, Row};
use crate::store::Store;

impl<T> Connections<T> {
    pub(super) fn slot(&self, cookie: u64) -> Option<u32> {
        self.by_cookie.find(hash(cookie), |slot| self.rows[*slot as usize].cookie == cookie).copied()
    }

    pub(super) fn insert(&mut self, row: Row<T>) -> u32 {
        let of = hash(row.cookie);
        let slot = u32::try_from(self.rows.insert(row)).expect("the capacity fits 32 bits");
        self.by_cookie.insert_unique(of, slot, |slot| hash(self.rows[*slot as usize].cookie));
        slot
    }

    pub(super) fn take(&mut self, slot: u32, account: &Account) -> Connection<T> {
        let cookie = account.cookie;
        if let Ok(entry) = self.by_cookie.find_entry(hash(cookie), |other| *other == slot) {
            entry.remove();
        }
        let row = self.rows.remove(slot as usize);
        if let Some(place) = row.waits.checked_sub(1) {
            self.waiting.swap_remove(place as usize);
            if let Some((moved, _)) = self.waiting.get(place as usize) {
                self.rows[*moved as usize].waits = row.waits;
            }
        }
        self.gone.push(row.block);
        self.ended.insert((cookie, account.start_ns));
        row.shown(account).with(row.data)
    }

    /// What the image, or what waits for it, says of a connection.
    pub(super) fn account(&self, row: &Row<T>, store: &Store) -> Account {
        match row.waits.checked_sub(1) {
            Some(place) => self.waiting[place as usize].1,
            None => Account::read(&store.image(row.block)),
        }
    }

    /// Has an account wait to be saved.
    pub(super) fn put(&mut self, slot: u32, account: Account) {
        let row = &mut self.rows[slot as usize];
        match row.waits.checked_sub(1) {
            Some(place) => self.waiting[place as usize].1 = account,
            None => {
                self.waiting.push((slot, account));
                row.waits = self.waiting.len() as u32;
            }
        }
    }

    pub(super) fn save_again(&mut self, store: &Store, slot: u32) {
        let account = self.account(&self.rows[slot as usize], store);
        self.put(slot, account);
    }

    pub(super) fn shown_mut(&mut self, slot: u32, account: &Account) -> Connection<&mut T> {
        let row = &mut self.rows[slot as usize];
        row.shown(account).with(&mut row.data)
    }
}

fn hash(cookie: u64) -> u64 {
    FxBuildHasher.hash_one(cookie)
}
