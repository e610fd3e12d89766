//! Label text, rendered once and shared by every series that has it.

use std::hash::{BuildHasher, Hash, Hasher};

use arcstr::ArcStr;
use hashbrown::{HashTable, hash_table::Entry};
use rustc_hash::FxBuildHasher;

/// Interned label text, `name="value",` for each label, escaped for both text formats and ending with a comma.
///
/// Eight bytes wide. Two fragments of equal text are one allocation, so they compare and hash by address.
#[derive(Clone, Debug)]
pub struct Fragment(ArcStr);

impl Fragment {
    /// Returns the text.
    #[inline]
    pub fn text(&self) -> &str {
        &self.0
    }

    fn address(&self) -> usize {
        self.0.as_str().as_ptr().addr()
    }
}

impl PartialEq for Fragment {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.address() == other.address()
    }
}

impl Eq for Fragment {}

impl Hash for Fragment {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.address());
    }
}

/// The set of fragments in use, owned by the record thread.
///
/// A fragment stays as long as anyone else holds it: [`Fragments::sweep`] removes the rest.
#[derive(Debug, Default)]
pub struct Fragments {
    table: HashTable<Fragment>,
}

impl Fragments {
    /// Returns the fragment of this text, the one that exists if there is one.
    pub fn intern(&mut self, text: &str) -> Fragment {
        let hash = FxBuildHasher.hash_one(text);
        let same = |f: &Fragment| f.text() == text;
        match self.table.entry(hash, same, |f| FxBuildHasher.hash_one(f.text())) {
            Entry::Occupied(found) => found.get().clone(),
            Entry::Vacant(vacant) => vacant.insert(Fragment(ArcStr::from(text))).get().clone(),
        }
    }

    /// Forgets the fragments that nothing else holds.
    ///
    /// Only the owner of this table can make a new holder of a fragment that it alone holds, so none can come meanwhile.
    pub fn sweep(&mut self) {
        self.table.retain(|f| ArcStr::strong_count(&f.0).is_none_or(|holders| holders > 1));
        if self.table.len() < self.table.capacity() / 4 {
            self.table.shrink_to_fit(|f| FxBuildHasher.hash_one(f.text()));
        }
    }

    /// Returns how many fragments there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Tells whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_text_is_one_fragment() {
        let mut fragments = Fragments::default();
        let (a, b, c) = (fragments.intern("a=\"1\","), fragments.intern("a=\"1\","), fragments.intern("a=\"2\","));
        assert_eq!(a, b);
        assert_ne!(a, c);
        assert_eq!(fragments.len(), 2);
    }

    #[test]
    fn a_fragment_lives_as_long_as_someone_holds_it() {
        let mut fragments = Fragments::default();
        let held = fragments.intern("held");
        drop(fragments.intern("dropped"));
        fragments.sweep();
        assert_eq!(fragments.len(), 1);
        assert_eq!(fragments.intern("held"), held);
        drop(held);
        fragments.sweep();
        assert!(fragments.is_empty());
    }
}
