//! Label sets as the record path has them: borrowed, and cloned only for a new series.

use hashbrown::Equivalent;

use super::{Ends, Pair, Single};
use crate::{fragment::Fragment, labels::OwnText};

/// A [`Pair`] by reference; fields in its order, so that both hash alike.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct PairView<'a> {
    pub(super) source: &'a Fragment,
    pub(super) middle: &'a Fragment,
    pub(super) destination: &'a Fragment,
}

impl Equivalent<Pair> for PairView<'_> {
    #[inline]
    fn equivalent(&self, pair: &Pair) -> bool {
        let Pair { source, middle, destination } = pair;
        self.source == source && self.middle == middle && self.destination == destination
    }
}

impl From<&PairView<'_>> for Pair {
    fn from(view: &PairView<'_>) -> Self {
        let PairView { source, middle, destination } = *view;
        Self { source: source.clone(), middle: middle.clone(), destination: destination.clone() }
    }
}

/// A [`Single`] by reference; fields in its order, so that both hash alike.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct SingleView<'a> {
    pub(super) own: &'a OwnText,
    pub(super) ends: &'a Ends,
}

impl Equivalent<Single> for SingleView<'_> {
    fn equivalent(&self, single: &Single) -> bool {
        let Single { own, ends } = single;
        self.own == own && self.ends == ends
    }
}

impl From<&SingleView<'_>> for Single {
    fn from(view: &SingleView<'_>) -> Self {
        let SingleView { own, ends } = *view;
        Self { own: own.clone(), ends: ends.clone() }
    }
}
