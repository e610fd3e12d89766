//! A persistent hash index: a clone is one reference count, and a changed clone shares all but the path it changed.
//!
//! Branches fan out 32 ways by the top bits of the hash; leaves are open-addressed tables of small `Copy` entries in one allocation. So
//! a change among 100,000 entries copies two branches and some 100 entries by memcpy, and a look-up misses the processor's cache about
//! once.

use std::sync::Arc;

const BITS: u32 = 5;
const FAN_OUT: usize = 1 << BITS;
/// Levels of branches: what the top 20 bits do not tell apart shares a leaf, whatever its size.
const MAX_DEPTH: u32 = 4;
/// Cells of the largest leaf that is not split.
const MAX_CELLS: usize = 256;
const MIN_CELLS: usize = 4;
/// A branch whose leaves hold no more than this becomes a leaf again.
const MIN_BRANCH: usize = 48;

/// Entries by hash. The caller tells entries of equal hash apart; there may be several of one key.
#[derive(Clone, Debug)]
pub(crate) struct Trie<T> {
    root: Node<T>,
    len: usize,
}

#[derive(Debug)]
enum Node<T> {
    Leaf(Leaf<T>),
    Branch(Arc<[Node<T>; FAN_OUT]>),
}

/// A power of two of cells, or none, at most 7/8 of them taken: linear probing from the low bits of the hash.
#[derive(Debug)]
struct Leaf<T> {
    cells: Arc<[Option<Cell<T>>]>,
    len: u32,
}

#[derive(Clone, Copy, Debug)]
struct Cell<T> {
    hash: Hash,
    value: T,
}

/// A hash; not 0, so that an empty cell needs no room of its own.
pub(crate) type Hash = std::num::NonZeroU32;

impl<T> Clone for Node<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf(leaf) => Self::Leaf(leaf.clone()),
            Self::Branch(branch) => Self::Branch(branch.clone()),
        }
    }
}

impl<T> Clone for Leaf<T> {
    fn clone(&self) -> Self {
        Self { cells: self.cells.clone(), len: self.len }
    }
}

impl<T> Default for Leaf<T> {
    fn default() -> Self {
        Self { cells: Arc::default(), len: 0 }
    }
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { root: Node::Leaf(Leaf::default()), len: 0 }
    }
}

impl<T: Copy> Trie<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the entries of that hash.
    pub(crate) fn of(&self, hash: Hash) -> impl Iterator<Item = T> {
        let mut node = &self.root;
        let mut depth = 0;
        loop {
            match node {
                Node::Branch(children) => node = &children[child(hash, depth)],
                Node::Leaf(leaf) => return leaf.of(hash),
            }
            depth += 1;
        }
    }

    /// Returns all entries, in no useful order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = T> {
        let mut nodes = vec![std::slice::from_ref(&self.root).iter()];
        let mut cells: &[Option<Cell<T>>] = &[];
        std::iter::from_fn(move || {
            loop {
                while let Some((cell, rest)) = cells.split_first() {
                    cells = rest;
                    if let Some(cell) = cell {
                        return Some(cell.value);
                    }
                }
                match nodes.last_mut()?.next() {
                    Some(Node::Leaf(leaf)) => cells = &leaf.cells,
                    Some(Node::Branch(children)) => nodes.push(children.iter()),
                    None => drop(nodes.pop()),
                }
            }
        })
    }

    /// Adds an entry, also if an equal one is there.
    pub(crate) fn insert(&mut self, hash: Hash, value: T) {
        self.len += 1;
        let mut node = &mut self.root;
        let mut depth = 0;
        loop {
            if let Node::Leaf(leaf) = node
                && leaf.is_full()
                && leaf.cells.len() >= MAX_CELLS
                && depth < MAX_DEPTH
            {
                *node = leaf.split(depth);
            }
            match node {
                Node::Branch(children) => node = &mut Arc::make_mut(children)[child(hash, depth)],
                Node::Leaf(leaf) => return leaf.insert(Cell { hash, value }),
            }
            depth += 1;
        }
    }

    /// Changes each entry of that hash; the path to them is copied.
    pub(crate) fn update(&mut self, hash: Hash, mut change: impl FnMut(&mut T)) {
        let mut node = &mut self.root;
        let mut depth = 0;
        let leaf = loop {
            match node {
                Node::Branch(children) => node = &mut Arc::make_mut(children)[child(hash, depth)],
                Node::Leaf(leaf) => break leaf,
            }
            depth += 1;
        };
        if leaf.len > 0 {
            let cells = Arc::make_mut(&mut leaf.cells);
            let mut at = home(hash, cells.len());
            while let Some(cell) = &mut cells[at] {
                if cell.hash == hash {
                    change(&mut cell.value);
                }
                at = next(at, cells.len());
            }
        }
    }

    /// Removes and returns one entry of that hash for which `is` holds. Nothing is copied if there is none.
    pub(crate) fn remove(&mut self, hash: Hash, is: impl Fn(T) -> bool) -> Option<T> {
        let found = self.of(hash).find(|v| is(*v))?;
        self.len -= 1;
        remove_from(&mut self.root, hash, 0, &is);
        Some(found)
    }
}

impl<T: Copy> Leaf<T> {
    fn of(&self, hash: Hash) -> impl Iterator<Item = T> {
        let cells = &*self.cells;
        let mut at = home(hash, cells.len());
        std::iter::from_fn(move || {
            // A table without cells ends the loop as an empty cell does.
            while let Some(Some(cell)) = cells.get(at) {
                at = next(at, cells.len());
                if cell.hash == hash {
                    return Some(cell.value);
                }
            }
            None
        })
    }

    fn is_full(&self) -> bool {
        (self.len as usize + 1) * 8 > self.cells.len() * 7
    }

    fn insert(&mut self, cell: Cell<T>) {
        if self.is_full() {
            *self = Self::of_cells(self.cells.iter().flatten().copied(), (self.cells.len() * 2).max(MIN_CELLS));
        }
        put(Arc::make_mut(&mut self.cells), cell);
        self.len += 1;
    }

    fn of_cells(from: impl Iterator<Item = Cell<T>>, size: usize) -> Self {
        let mut cells = vec![None; size];
        let len = from.map(|cell| put(&mut cells, cell)).count() as u32;
        Self { cells: cells.into(), len }
    }

    fn split(&self, depth: u32) -> Node<T> {
        let mut parts: [Leaf<T>; FAN_OUT] = std::array::from_fn(|_| Leaf::default());
        for cell in self.cells.iter().flatten() {
            parts[child(cell.hash, depth)].insert(*cell);
        }
        Node::Branch(Arc::new(parts.map(Node::Leaf)))
    }

    /// Removes the first entry for which `is` holds and moves up those behind it that it had pushed on.
    fn remove(&mut self, hash: Hash, is: &impl Fn(T) -> bool) {
        let cells = Arc::make_mut(&mut self.cells);
        let size = cells.len();
        let mut hole = home(hash, size);
        while cells[hole].is_none_or(|c| c.hash != hash || !is(c.value)) {
            hole = next(hole, size);
        }
        let mut at = next(hole, size);
        while let Some(cell) = cells[at] {
            let (wanted, present) = (home(cell.hash, size), at);
            if (present.wrapping_sub(wanted) & (size - 1)) >= (present.wrapping_sub(hole) & (size - 1)) {
                cells[hole] = Some(cell);
                hole = at;
            }
            at = next(at, size);
        }
        cells[hole] = None;
        self.len -= 1;
        if self.len == 0 {
            *self = Self::default();
        } else if self.len as usize * 4 < size && size > MIN_CELLS {
            *self = Self::of_cells(self.cells.iter().flatten().copied(), size / 2);
        }
    }
}

fn child(hash: Hash, depth: u32) -> usize {
    (hash.get() >> (u32::BITS - BITS * (depth + 1))) as usize % FAN_OUT
}

fn home(hash: Hash, size: usize) -> usize {
    hash.get() as usize & size.wrapping_sub(1)
}

fn next(at: usize, size: usize) -> usize {
    (at + 1) & (size - 1)
}

fn put<T: Copy>(cells: &mut [Option<Cell<T>>], cell: Cell<T>) {
    let mut at = home(cell.hash, cells.len());
    while cells[at].is_some() {
        at = next(at, cells.len());
    }
    cells[at] = Some(cell);
}

fn remove_from<T: Copy>(node: &mut Node<T>, hash: Hash, depth: u32, is: &impl Fn(T) -> bool) {
    match node {
        Node::Branch(children) => {
            remove_from(&mut Arc::make_mut(children)[child(hash, depth)], hash, depth + 1, is);
            if let Some(leaf) = merged(children) {
                *node = Node::Leaf(leaf);
            }
        }
        Node::Leaf(leaf) => leaf.remove(hash, is),
    }
}

/// Returns the leaf that a branch of few entries becomes.
fn merged<T: Copy>(children: &[Node<T>; FAN_OUT]) -> Option<Leaf<T>> {
    let leaves = || children.iter().map(|c| if let Node::Leaf(leaf) = c { Some(leaf) } else { None });
    let len = leaves().try_fold(0, |sum, leaf| Some(sum + leaf?.len as usize))?;
    let cells = leaves().flatten().flat_map(|l| l.cells.iter().flatten().copied());
    (len <= MIN_BRANCH).then(|| Leaf::of_cells(cells, (MIN_BRANCH * 8).div_ceil(7).next_power_of_two()))
}
