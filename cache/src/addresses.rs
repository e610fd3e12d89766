//! Who holds an address: an index from network and address to a place on a shelf.

use std::net::IpAddr;

use crate::{
    held::Rank,
    trie::{Hash, Trie},
};

/// An index by network and address. Of several holders one is marked as the best; the others wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses(Trie<Spot>);

/// An address and who holds it. The network is part of the hash, and the holder is asked for it.
#[derive(Clone, Copy, Debug)]
struct Spot {
    address: [u8; 16],
    /// The holder's number, and in the top bit that it waits behind a better one.
    holder: u32,
}

const WAITS: u32 = 1 << 31;

impl Spot {
    fn number(self) -> u32 {
        self.holder & !WAITS
    }
}

/// One address: its hash (with the network) and its octets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) hash: Hash,
    pub(crate) address: [u8; 16],
}

/// Returns an address as 16 octets, IPv4 mapped.
pub(crate) fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
    .octets()
}

impl Addresses {
    /// Returns the number of the best holder. `is` tells whether the holder of a number is in the network that is asked for.
    pub(crate) fn best(&self, key: Key, is: impl Fn(u32) -> bool) -> Option<u32> {
        let found = self.0.of(key.hash).find(|s| s.address == key.address && s.holder & WAITS == 0 && is(s.holder))?;
        Some(found.holder)
    }

    /// Adds a holder. `rank` tells the rank of a number, `None` if that one is in another network.
    pub(crate) fn add(&mut self, key: Key, holder: u32, rank: impl Fn(u32) -> Option<Rank>) {
        let best = self.best(key, |number| rank(number).is_some());
        let waits = best.is_some_and(|best| rank(best) < rank(holder));
        if let Some(best) = best.filter(|_| !waits) {
            let is_best = |s: &Spot| s.address == key.address && s.holder == best;
            self.0.update(key.hash, |spot| spot.holder |= if is_best(spot) { WAITS } else { 0 });
        }
        self.0.insert(key.hash, Spot { address: key.address, holder: holder | if waits { WAITS } else { 0 } });
    }

    /// Takes one holder out; the best of the others comes forward.
    pub(crate) fn take(&mut self, key: Key, holder: u32, rank: impl Fn(u32) -> Option<Rank>) {
        let is = |s: Spot| s.address == key.address && s.number() == holder;
        if self.0.remove(key.hash, is).is_some() {
            self.rank(key, rank);
        }
    }

    /// Marks the best of the holders of an address anew.
    pub(crate) fn rank(&mut self, key: Key, rank: impl Fn(u32) -> Option<Rank>) {
        let here = |s: &Spot| s.address == key.address && rank(s.number()).is_some();
        let Some(best) = self.0.of(key.hash).filter(here).min_by_key(|s| rank(s.number())).map(Spot::number) else {
            return;
        };
        let right = |s: Spot| s.number() | if s.number() == best { 0 } else { WAITS };
        if self.0.of(key.hash).filter(here).any(|s| s.holder != right(s)) {
            self.0.update(key.hash, |spot| {
                if here(spot) {
                    spot.holder = right(*spot);
                }
            });
        }
    }
}
