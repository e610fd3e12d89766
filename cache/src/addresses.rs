//! Who holds an address: an index from network and address to a place on a shelf.

use std::net::IpAddr;

use crate::{
    held::Rank,
    trie::{Hash, Trie},
};

/// An index by network and address. Of several holders one is marked as the best; the others wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses(Trie<Spot>);

/// An address and who holds it.
#[derive(Clone, Copy, Debug)]
struct Spot {
    address: [u8; 16],
    /// The holder's number, and the flags below.
    holder: u32,
}

/// It waits behind a better holder.
const WAITS: u32 = 1 << 31;
/// The network has a name: it is part of the hash, and the holder is asked for it.
const NAMED: u32 = 1 << 30;

impl Spot {
    fn number(self) -> u32 {
        self.holder & !(WAITS | NAMED)
    }

    /// Tells whether this is that address, if in a network that has a name then perhaps of another network of that hash.
    fn may_be(self, key: Key) -> bool {
        self.address == key.address && self.holder & NAMED == key.named
    }
}

/// One address of one network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// Of network and address.
    hash: Hash,
    address: [u8; 16],
    named: u32,
}

impl Key {
    /// Makes a key of an address, as [`octets`], and the hash of network and address.
    pub(crate) fn new(hash: Hash, network: &str, address: [u8; 16]) -> Self {
        Self { hash, address, named: if network.is_empty() { 0 } else { NAMED } }
    }
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
        let is = |s: &Spot| s.may_be(key) && s.holder & WAITS == 0 && (key.named == 0 || is(s.number()));
        self.0.of(key.hash).find(is).map(Spot::number)
    }

    /// Adds a holder. `rank` tells the rank of a number, `None` if that one is in another network.
    pub(crate) fn add(&mut self, key: Key, holder: u32, rank: impl Fn(u32) -> Option<Rank>) {
        let best = self.best(key, |number| rank(number).is_some());
        let waits = best.is_some_and(|best| rank(best) < rank(holder));
        if let Some(best) = best.filter(|_| !waits) {
            let is_best = |s: &Spot| s.may_be(key) && s.number() == best;
            self.0.update(key.hash, |spot| spot.holder |= if is_best(spot) { WAITS } else { 0 });
        }
        let holder = holder | key.named | if waits { WAITS } else { 0 };
        self.0.insert(key.hash, Spot { address: key.address, holder });
    }

    /// Takes one holder out; the best of the others comes forward.
    pub(crate) fn take(&mut self, key: Key, holder: u32, rank: impl Fn(u32) -> Option<Rank>) {
        let is = |s: Spot| s.may_be(key) && s.number() == holder;
        if self.0.remove(key.hash, is).is_some() {
            self.rank(key, rank);
        }
    }

    /// Marks the best of the holders of an address anew.
    pub(crate) fn rank(&mut self, key: Key, rank: impl Fn(u32) -> Option<Rank>) {
        let here = |s: &Spot| s.may_be(key) && rank(s.number()).is_some();
        let Some(best) = self.0.of(key.hash).filter(here).min_by_key(|s| rank(s.number())).map(Spot::number) else {
            return;
        };
        let right = |s: Spot| s.number() | key.named | if s.number() == best { 0 } else { WAITS };
        if self.0.of(key.hash).filter(here).any(|s| s.holder != right(s)) {
            self.0.update(key.hash, |spot| {
                if here(spot) {
                    spot.holder = right(*spot);
                }
            });
        }
    }
}
