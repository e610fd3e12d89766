//! The families in the image: which texts their label sets are made of, and what is put back.

use super::{Ends, Families, Pair, Single, counter};
use crate::{
    labels::OwnText,
    series::{Restored, Saved, TEXTS, texts_of},
    store::{Image, Store, Texts, kind, read_text},
};

/// What was put back, by block, so that connections find the series that they count into.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) service: Restored<Pair, { counter::SERVICE }>,
    pub(crate) workload: Restored<Pair, { counter::WORKLOAD }>,
    pub(crate) own: Restored<Single, { counter::CONNECTION }>,
}

impl Saved for Pair {
    fn hold(&self, texts: &mut Texts, store: &mut Store) -> Option<[u32; TEXTS]> {
        let Self { source, middle, destination } = self;
        let mut held = [0; TEXTS];
        for (to, fragment) in held.iter_mut().zip([source, middle, destination]) {
            *to = texts.hold(store, fragment)?;
        }
        Some(held)
    }
}

impl Saved for Single {
    fn hold(&self, texts: &mut Texts, store: &mut Store) -> Option<[u32; TEXTS]> {
        let Self { own, ends: Ends { source, destination, pod, service } } = self;
        let mut held = [0; TEXTS];
        held[0] = texts.own(store, &own.start)?;
        held[1] = texts.own(store, &own.addresses)?;
        for (to, fragment) in held[2..].iter_mut().zip([source, destination, pod, service]) {
            *to = texts.hold(store, fragment)?;
        }
        Some(held)
    }
}

impl Families {
    /// Brings into the image what changed; tells whether more waits for the next step.
    pub(crate) fn save(&mut self, store: &mut Store) -> bool {
        let Self { service, workload, connection, texts, .. } = self;
        service.save(kind::SERVICE, texts, store);
        workload.save(kind::WORKLOAD, texts, store);
        connection.save(kind::OWN, texts, store);
        service.waits() || workload.waits() || connection.waits()
    }

    /// Numbers of the families that belong to no series.
    pub(crate) fn numbers(&self) -> [[u64; 8]; 3] {
        [self.service.standing_numbers(), self.workload.standing_numbers(), self.connection.standing_numbers()]
    }

    /// Takes these numbers from the image.
    pub(crate) fn found_numbers(&mut self, [service, workload, connection]: [[u64; 8]; 3]) {
        self.service.found_standing(service);
        self.workload.found_standing(workload);
        self.connection.found_standing(connection);
    }

    /// Puts a saved series back and tells which blocks it is in; nothing where it makes no sense.
    pub(crate) fn found(
        &mut self,
        store: &Store,
        (block, image): (u32, &Image),
        now_ns: u64,
        into: &mut Found,
        used: &mut Vec<u32>,
    ) -> Option<()> {
        let heads: Vec<u32> = texts_of(image).collect();
        let is_own = image[0] & 0xff == kind::OWN;
        let own = if is_own { 2 } else { 0 };
        if heads.len() != TEXTS / 2 * (1 + usize::from(is_own)) {
            return None;
        }
        let mut blocks = vec![block];
        let own_texts: Option<Vec<_>> =
            heads[..own].iter().map(|head| read_text(store, *head, |block| blocks.push(block))).collect();
        let own_texts = own_texts?;
        let mut fragments = Vec::with_capacity(TEXTS);
        for head in &heads[own..] {
            fragments.push(match self.texts.known(*head) {
                Some(fragment) => fragment.clone(),
                None => self.labels.fragment(&read_text(store, *head, |block| blocks.push(block))?),
            });
        }
        if is_own {
            let [source, destination, pod, service] = fragments.clone().try_into().ok()?;
            let own = OwnText { start: own_texts[0].as_str().into(), addresses: own_texts[1].as_str().into() };
            let labels = Single { own, ends: Ends { source, destination, pod, service } };
            into.own.insert(block, self.connection.found(labels, block, image, now_ns)?);
        } else {
            let [source, middle, destination] = fragments.clone().try_into().ok()?;
            let labels = Pair { source, middle, destination };
            if image[0] & 0xff == kind::SERVICE {
                into.service.insert(block, self.service.found(labels, block, image, now_ns)?);
            } else {
                into.workload.insert(block, self.workload.found(labels, block, image, now_ns)?);
            }
        }
        for (n, head) in heads.iter().enumerate() {
            self.texts.found(*head, n.checked_sub(own).and_then(|n| fragments.get(n)));
        }
        used.append(&mut blocks);
        Some(())
    }
}
