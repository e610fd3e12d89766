//! The record path's image: what is brought into it after each batch of records, and what the next process puts back.
//!
//! A connection's block is: kind, reporter, why it is ignored, whether it was adopted, and its stretch of watching; the blocks of the series that it counts into;
//! totals; cookie, begin, begin of its age, begin by the wall clock; its addresses; its network namespace.

use abi::maps::counter;

use super::{Kept, POSITIONS, Recorder, kept::direction};
use crate::{
    attribute::{Attribution, Ignored},
    connections::Account,
    families,
    labels::Reporter,
    series::restored,
    store::{ENDED_COUNT, Found, Image, NUMBER_COUNT, kind},
};

/// Where numbers stand.
mod number {
    pub(super) const WATCHED: usize = 1;
    pub(super) const WATCH: usize = 2;
    pub(super) const SINCE: usize = 3;
    pub(super) const ENDED: usize = 4;
    pub(super) const KERNEL: usize = 8;
    pub(super) const FAMILIES: usize = 40;
    pub(super) const COUNTERS: usize = FAMILIES + 24;
    pub(super) const POSITIONS: usize = 128;
}
const _: () = assert!(number::KERNEL + KERNEL <= number::FAMILIES);
const _: () = assert!(number::POSITIONS + POSITIONS <= NUMBER_COUNT);

/// Counters of the kernel.
const KERNEL: usize = counter::COUNT as usize;

impl Recorder {
    /// Saves what the records until here came to, `positions` being where each ring goes on. From then on they are never counted again,
    /// whatever becomes of this process; until then it is as if they had not been taken.
    ///
    /// To be called after at most 256 records, and before the rings are told that they were read.
    pub fn commit(&mut self, positions: &[u64]) {
        for (to, position) in self.positions.iter_mut().zip(positions) {
            *to = *position;
        }
        self.save();
    }

    /// Returns where each ring goes on, if this is not the first process to read them.
    pub fn positions(&self) -> Option<&[u64]> {
        self.found.then_some(&self.positions)
    }

    /// Tells whether a raw record is of a connection or failure that ended before: one that was put aside can be taken twice if the
    /// process ends before it is removed.
    pub fn is_over(&self, bytes: &[u8]) -> bool {
        super::decode(bytes).is_some_and(|(kind, _, record)| self.connections.is_over(kind, &record))
    }

    /// Saves everything that changed: in one step, if there is no more than what 256 records can change.
    pub(super) fn save(&mut self) {
        while self.save_some() {}
        let unsaved = &self.metrics.unsaved;
        unsaved.inc_by(self.store.unsaved().saturating_sub(self.unsaved));
        self.unsaved = self.store.unsaved();
    }

    /// Makes one step; tells whether more is left to do.
    fn save_some(&mut self) -> bool {
        let store = &mut self.store;
        let mut more = self.report.families().save(store);
        more = more || self.connections.save(store, head);
        while !more && let Some(identity) = self.connections.take_ended() {
            store.set_ended(self.ended as usize % ENDED_COUNT, identity);
            self.ended += 1;
            more = store.is_full();
        }
        self.save_numbers();
        self.store.commit();
        more
    }

    fn save_numbers(&mut self) {
        let (watch, since) = self.connections.watching();
        let mut numbers = [0; NUMBER_COUNT];
        numbers[number::POSITIONS..][..POSITIONS].copy_from_slice(&self.positions);
        numbers[number::WATCHED] = (self.resumes || self.switches.get(super::Switch::Monitoring)).into();
        numbers[number::WATCH] = watch.into();
        numbers[number::SINCE] = since;
        numbers[number::ENDED] = self.ended;
        numbers[number::KERNEL..][..KERNEL].copy_from_slice(&self.kernel);
        numbers[number::FAMILIES..number::COUNTERS].copy_from_slice(self.report.families().numbers().as_flattened());
        for (to, counter) in numbers[number::COUNTERS..number::POSITIONS].iter_mut().zip(self.metrics.saved()) {
            *to = counter.get();
        }
        self.store.set_numbers(&numbers);
    }

    /// Puts back what was found. `watched` says that the programs have been attached all the while.
    pub(super) fn restore(&mut self, found: &Found, watched: bool, now_ns: u64) {
        let store = &mut self.store;
        let number = |n: usize| store.number(n);
        self.positions = std::array::from_fn(|ring| number(number::POSITIONS + ring));
        self.ended = number(number::ENDED);
        self.kernel = std::array::from_fn(|n| number(number::KERNEL + n));
        self.resumes = watched && number(number::WATCHED) != 0;
        self.connections.found_watching(number(number::WATCH) as u32, number(number::SINCE));
        let family = |n: usize| std::array::from_fn(|at| number(number::FAMILIES + 8 * n + at));
        self.report.families().found_numbers(std::array::from_fn(family));
        for (n, counter) in self.metrics.saved().enumerate() {
            counter.inc_by(number(number::COUNTERS + n));
        }
        let oldest = self.ended.saturating_sub(ENDED_COUNT as u64);
        for n in oldest..self.ended {
            self.connections.found_ended(store.ended(n as usize % ENDED_COUNT));
        }

        let (mut series, mut used) = (families::Found::default(), Vec::new());
        for (block, image) in found.blocks.iter().filter(|(_, image)| image[0] & 0xff != kind::CONNECTION) {
            self.report.families().found(store, (*block, image), now_ns, &mut series, &mut used);
        }
        for (block, image) in found.blocks.iter().filter(|(_, image)| image[0] & 0xff == kind::CONNECTION) {
            if let Some(kept) = kept(image, &series) {
                self.report.found(&kept);
                self.connections.found(*block, &Account::read(image), direction(kept.reporter), kept);
                used.push(*block);
            }
        }
        let mut is_used = vec![false; used.iter().max().map_or(0, |most| *most as usize + 1)];
        used.iter().for_each(|block| is_used[*block as usize] = true);
        store.settle(&|block| is_used.get(block as usize).is_some_and(|used| *used));
        self.report.families().publish();
    }
}

/// The first words of a connection's block.
fn head(kept: &Kept) -> [u64; 3] {
    let [service, workload, own] = [
        kept.service.as_ref().map_or(0, |handle| handle.block()),
        kept.workload.as_ref().map_or(0, |handle| handle.block()),
        kept.connection.as_ref().map_or(0, |handle| handle.block()),
    ]
    .map(u64::from);
    let ignored = match kept.ignored {
        None => 0,
        Some(Ignored::Loopback) => 1,
        Some(Ignored::Node) => 2,
    };
    let first = kind::CONNECTION | (kept.reporter as u64) << 8 | ignored << 16 | u64::from(kept.adopted) << 24;
    [first, service | workload << 32, own]
}

/// What was kept with a connection, as its block says.
fn kept(image: &Image, series: &families::Found) -> Option<Kept> {
    let reporter = Reporter::ALL.into_iter().find(|reporter| *reporter as u64 == image[0] >> 8 & 0xff)?;
    let ignored = match image[0] >> 16 & 0xff {
        0 => None,
        1 => Some(Ignored::Loopback),
        2 => Some(Ignored::Node),
        _ => return None,
    };
    Some(Kept {
        names: Attribution::default(),
        reporter,
        ignored,
        adopted: image[0] >> 24 & 0xff != 0,
        service: restored(&series.service, image[1] as u32),
        workload: restored(&series.workload, (image[1] >> 32) as u32),
        connection: restored(&series.own, image[2] as u32),
        unnamed: true,
    })
}
