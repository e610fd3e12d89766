//! A persistent hash table: a clone is one reference count, and a changed clone shares all but the path it changed.
//!
//! Nodes fan out sixteen ways by four bits of the hash a level; a leaf is a short vector sorted by hash. So a change in a table of
//! 100,000 entries copies some four nodes, and a look-up touches as many.

use std::sync::Arc;

const FAN_OUT: usize = 16;
const BITS: u32 = FAN_OUT.trailing_zeros();
/// Levels of branches; what still shares a leaf below them has (almost) equal hashes.
const MAX_DEPTH: u32 = u64::BITS / BITS;
const MAX_LEAF: usize = 48;
/// A branch whose children hold no more than this becomes a leaf again.
const MIN_BRANCH: usize = 16;

/// Entries by hash. The caller tells entries of equal hash apart.
#[derive(Debug)]
pub(crate) struct Trie<T> {
    root: Node<T>,
    len: usize,
}

#[derive(Debug)]
enum Node<T> {
    Leaf(Arc<Vec<(u64, T)>>),
    Branch(Arc<[Node<T>; FAN_OUT]>),
    Empty,
}

impl<T> Clone for Trie<T> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), len: self.len }
    }
}

impl<T> Clone for Node<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf(leaf) => Self::Leaf(leaf.clone()),
            Self::Branch(branch) => Self::Branch(branch.clone()),
            Self::Empty => Self::Empty,
        }
    }
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { root: Node::Empty, len: 0 }
    }
}

impl<T> Trie<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the entry of that hash for which `is` holds.
    pub(crate) fn get(&self, hash: u64, mut is: impl FnMut(&T) -> bool) -> Option<&T> {
        let mut node = &self.root;
        let mut depth = 0;
        loop {
            match node {
                Node::Branch(children) => node = &children[slot(hash, depth)],
                Node::Leaf(leaf) => {
                    return leaf[first(leaf, hash)..].iter().take_while(|e| e.0 == hash).map(|e| &e.1).find(|t| is(t));
                }
                Node::Empty => return None,
            }
            depth += 1;
        }
    }

    pub(crate) fn iter(&self) -> Iter<'_, T> {
        Iter { nodes: vec![std::slice::from_ref(&self.root).iter()], leaf: [].iter() }
    }
}

impl<T: Clone> Trie<T> {
    /// Returns the entry of that hash for which `is` holds, to be changed. Only the path to it is copied, and only if it is there.
    pub(crate) fn get_mut(&mut self, hash: u64, mut is: impl FnMut(&T) -> bool) -> Option<&mut T> {
        self.get(hash, &mut is)?;
        let mut node = &mut self.root;
        let mut depth = 0;
        loop {
            match node {
                Node::Branch(children) => node = &mut Arc::make_mut(children)[slot(hash, depth)],
                Node::Leaf(leaf) => {
                    let leaf = Arc::make_mut(leaf);
                    let start = first(leaf, hash);
                    return leaf[start..].iter_mut().take_while(|e| e.0 == hash).map(|e| &mut e.1).find(|t| is(t));
                }
                Node::Empty => return None,
            }
            depth += 1;
        }
    }

    /// Adds an entry; that it is not there yet is the caller's to know.
    pub(crate) fn insert(&mut self, hash: u64, value: T) {
        self.len += 1;
        let mut node = &mut self.root;
        let mut depth = 0;
        loop {
            if depth < MAX_DEPTH && matches!(node, Node::Leaf(leaf) if leaf.len() >= MAX_LEAF) {
                split(node, depth);
            }
            match node {
                Node::Branch(children) => node = &mut Arc::make_mut(children)[slot(hash, depth)],
                Node::Leaf(leaf) => {
                    let at = first(leaf, hash);
                    return insert_at(leaf, at, (hash, value));
                }
                Node::Empty => return *node = Node::Leaf(Arc::new(vec![(hash, value)])),
            }
            depth += 1;
        }
    }

    /// Removes and returns the entry of that hash for which `is` holds.
    pub(crate) fn remove(&mut self, hash: u64, mut is: impl FnMut(&T) -> bool) -> Option<T> {
        self.get(hash, &mut is)?;
        self.len -= 1;
        Some(remove_from(&mut self.root, hash, 0, &mut is))
    }
}

/// Iterates over the entries, in no useful order.
pub(crate) struct Iter<'a, T> {
    nodes: Vec<std::slice::Iter<'a, Node<T>>>,
    leaf: std::slice::Iter<'a, (u64, T)>,
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Some(&entry.1);
            }
            match self.nodes.last_mut()?.next() {
                Some(Node::Leaf(leaf)) => self.leaf = leaf.iter(),
                Some(Node::Branch(children)) => self.nodes.push(children.iter()),
                Some(Node::Empty) => {}
                None => {
                    self.nodes.pop();
                }
            }
        }
    }
}

fn slot(hash: u64, depth: u32) -> usize {
    (hash >> (depth * BITS)) as usize % FAN_OUT
}

fn first<T>(leaf: &[(u64, T)], hash: u64) -> usize {
    leaf.partition_point(|e| e.0 < hash)
}

/// Inserts into a leaf; one that is shared is copied once, with room for the new entry and no more.
fn insert_at<T: Clone>(leaf: &mut Arc<Vec<(u64, T)>>, at: usize, entry: (u64, T)) {
    match Arc::get_mut(leaf) {
        Some(leaf) => {
            if leaf.len() == leaf.capacity() {
                leaf.reserve_exact(4);
            }
            leaf.insert(at, entry);
        }
        None => {
            let mut copy = Vec::with_capacity(leaf.len() + 1);
            copy.extend_from_slice(&leaf[..at]);
            copy.push(entry);
            copy.extend_from_slice(&leaf[at..]);
            *leaf = Arc::new(copy);
        }
    }
}

fn split<T: Clone>(node: &mut Node<T>, depth: u32) {
    let Node::Leaf(leaf) = std::mem::replace(node, Node::Empty) else { return };
    let mut parts: [Vec<(u64, T)>; FAN_OUT] = std::array::from_fn(|_| Vec::new());
    for entry in Arc::unwrap_or_clone(leaf) {
        parts[slot(entry.0, depth)].push(entry);
    }
    *node = Node::Branch(Arc::new(parts.map(|p| if p.is_empty() { Node::Empty } else { Node::Leaf(Arc::new(p)) })));
}

fn remove_from<T: Clone>(node: &mut Node<T>, hash: u64, depth: u32, is: &mut impl FnMut(&T) -> bool) -> T {
    match node {
        Node::Branch(children) => {
            let removed = remove_from(&mut Arc::make_mut(children)[slot(hash, depth)], hash, depth + 1, is);
            if let Some(leaf) = merged(children) {
                *node = leaf;
            }
            removed
        }
        Node::Leaf(leaf) => {
            let leaf = Arc::make_mut(leaf);
            let at = (first(leaf, hash)..leaf.len()).find(|&i| is(&leaf[i].1)).expect("the caller has found it");
            let (_, removed) = leaf.remove(at);
            if leaf.is_empty() {
                *node = Node::Empty;
            }
            removed
        }
        Node::Empty => unreachable!("the caller has found it"),
    }
}

/// Returns the leaf that a branch of few entries becomes.
fn merged<T: Clone>(children: &[Node<T>; FAN_OUT]) -> Option<Node<T>> {
    let mut len = 0;
    for child in children {
        len += match child {
            Node::Branch(_) => return None,
            Node::Leaf(leaf) => leaf.len(),
            Node::Empty => 0,
        };
    }
    if len > MIN_BRANCH {
        return None;
    }
    let mut all = Vec::with_capacity(len);
    for child in children {
        if let Node::Leaf(leaf) = child {
            all.extend_from_slice(leaf);
        }
    }
    all.sort_by_key(|e| e.0);
    Some(if all.is_empty() { Node::Empty } else { Node::Leaf(Arc::new(all)) })
}
