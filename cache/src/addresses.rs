//! Who holds an address: an index from network and address to a place on a shelf.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use crate::{
    held::Rank,
    shelf::Shelf,
    trie::{Hash, Trie},
};

/// An index by network and address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    spots: Trie<Spot>,
    crowds: Shelf<Arc<Crowd>>,
}

/// Several holders of one address, by number, the best first.
type Crowd = BTreeSet<(Rank, u32)>;

/// An address and who holds it.
#[derive(Clone, Copy, Debug)]
struct Spot {
    address: [u8; 16],
    /// The number of the holder or crowd, and the flags below.
    holder: u32,
}

/// The number is that of a crowd.
const CROWD: u32 = 1 << 31;
/// The network has a name: it is part of the hash, and the holder is asked for it.
const NAMED: u32 = 1 << 30;

impl Spot {
    fn number(self) -> u32 {
        self.holder & !(CROWD | NAMED)
    }

    fn crowd(self) -> Option<u32> {
        (self.holder & CROWD != 0).then_some(self.number())
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

/// `is` tells of the holder of a number whether it is in the network of the key.
impl Addresses {
    /// Returns the number of the best holder.
    pub(crate) fn best(&self, key: Key, is: impl Fn(u32) -> bool) -> Option<u32> {
        self.find(key, is).map(|(_, best)| best)
    }

    /// Adds a holder; `rank` tells the rank of another.
    pub(crate) fn add(&mut self, key: Key, holder: (Rank, u32), is: impl Fn(u32) -> bool, rank: impl Fn(u32) -> Rank) {
        match self.find(key, is) {
            None => self.spots.insert(key.hash, Spot { address: key.address, holder: holder.1 | key.named }),
            Some((spot, other)) => match spot.crowd() {
                Some(crowd) => _ = Arc::make_mut(self.crowds.get_mut(crowd)).insert(holder),
                None => {
                    let crowd = self.crowds.add(Arc::new(Crowd::from([holder, (rank(other), other)])));
                    self.set(key, spot, crowd | CROWD);
                }
            },
        }
    }

    /// Takes one holder out; the best of the others comes forward.
    pub(crate) fn take(&mut self, key: Key, holder: (Rank, u32), is: impl Fn(u32) -> bool) {
        let Some((spot, _)) = self.find(key, is) else { return };
        let Some(number) = spot.crowd() else {
            let same = |s: Spot| s.address == key.address && s.holder == spot.holder && s.number() == holder.1;
            self.spots.remove(key.hash, same);
            return;
        };
        let crowd = Arc::make_mut(self.crowds.get_mut(number));
        crowd.remove(&holder);
        if crowd.len() == 1
            && let Some((_, last)) = crowd.pop_first()
        {
            self.crowds.remove(number);
            self.set(key, spot, last);
        }
    }

    /// Gives a holder another rank.
    pub(crate) fn rank(&mut self, key: Key, holder: (Rank, u32), rank: Rank, is: impl Fn(u32) -> bool) {
        if let Some(crowd) = self.find(key, is).and_then(|(spot, _)| spot.crowd()) {
            let crowd = Arc::make_mut(self.crowds.get_mut(crowd));
            crowd.remove(&holder);
            crowd.insert((rank, holder.1));
        }
    }

    fn find(&self, key: Key, is: impl Fn(u32) -> bool) -> Option<(Spot, u32)> {
        let same = |s: &Spot| s.address == key.address && s.holder & NAMED == key.named;
        let best = |spot: Spot| match spot.crowd() {
            Some(crowd) => self.crowds.get(crowd).first().map(|(_, best)| (spot, *best)),
            None => Some((spot, spot.number())),
        };
        let mut found = self.spots.of(key.hash).filter(same).filter_map(best);
        found.find(|(_, number)| key.named == 0 || is(*number))
    }

    fn set(&mut self, key: Key, spot: Spot, holder: u32) {
        self.spots.update(key.hash, |s| {
            if s.address == spot.address && s.holder == spot.holder {
                s.holder = holder | key.named;
            }
        });
    }
}
