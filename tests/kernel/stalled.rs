//! A processor that stops in the middle of a program, as where a hypervisor takes it away: its record is begun and not written.

use std::mem::offset_of;

use abi::ring::{Cursor, Slot};
use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use tests::{
    Meshd, Sandbox,
    meshd::ALL,
    retry::{DEADLINE, eventually},
};

use crate::pair::{Pair, Truth};

const WORD: usize = size_of::<u64>();

/// The rings of a sandbox's daemon, as words of what the programs map.
struct Rings {
    slots: Array<MapData, [u64; size_of::<Slot>() / WORD]>,
    cursors: Array<MapData, [u64; size_of::<Cursor>() / WORD]>,
}

impl Rings {
    fn open(sandbox: &Sandbox) -> Result<Self> {
        let maps = sandbox.pinned_maps()?;
        let map = |name| MapData::from_pin(maps.join(name)).map(Map::Array).with_context(|| format!("map {name}"));
        Ok(Self {
            slots: map(abi::maps::RING)?.try_into().context("map of slots")?,
            cursors: map(abi::maps::CURSORS)?.try_into().context("map of cursors")?,
        })
    }

    /// How many records were begun, of all rings.
    fn taken(&self) -> Result<u64> {
        let taken = |ring| Ok(self.cursors.get(&ring, 0)?[offset_of!(Cursor, taken) / WORD]);
        (0..self.cursors.len()).map(taken).sum()
    }

    /// Takes a slot of each ring while nothing else moves, and returns their positions.
    fn begin(&mut self) -> Result<Vec<u64>> {
        let rings = 0..self.cursors.len();
        let begin = |ring| {
            let mut cursor = self.cursors.get(&ring, 0)?;
            let [taken, read] = [offset_of!(Cursor, taken), offset_of!(Cursor, read)].map(|at| cursor[at / WORD]);
            ensure!(taken == read, "ring {ring}: {taken} records were begun, and {read} read");
            cursor[offset_of!(Cursor, taken) / WORD] += 1;
            self.cursors.set(ring, cursor, 0)?;
            Ok(taken)
        };
        rings.map(begin).collect()
    }

    /// Writes a record of nothing into each slot that was taken.
    fn end(&mut self, positions: &[u64]) -> Result<()> {
        let each = self.slots.len() / self.cursors.len();
        for (ring, position) in (0..).zip(positions) {
            let mut slot = [0; size_of::<Slot>() / WORD];
            slot[offset_of!(Slot, sequence) / WORD] = position + 1;
            self.slots.set(ring * each + *position as u32 % each, slot, 0)?;
        }
        Ok(())
    }
}

#[test]
fn records_that_wait_behind_one_that_is_being_written_are_missed_by_nobody() -> Result<()> {
    const LIVE: u32 = 6;
    const BYTES: u64 = 100;
    const ROUNDS: u32 = 5;
    let mut pair = Pair::new("stalled")?;
    let direct = pair.direct();
    let meshd = Meshd::start(&pair.sandbox, &pair.mesh(), ALL)?;
    let (client, server) = (&mut pair.client, &mut pair.server);
    for n in 0..LIVE {
        client.open(&format!("c{n}"), &direct, "l", server)?;
    }
    // Three passes that find nothing new: nothing is written any more.
    let quiet = [("kind", "quiet")];
    meshd.eventually(|s| {
        Truth { opened: LIVE, ..Truth::default() }.is_shown(s)?;
        let quiet = s.total("meshd_telemetry_records_total", &quiet);
        ensure!(quiet >= f64::from(2 * LIVE * 3), "{quiet} times nothing new");
        Ok(())
    })?;

    let mut rings = Rings::open(&pair.sandbox)?;
    let stuck = rings.begin()?;
    let mut truth = Truth { opened: LIVE, ..Truth::default() };
    for round in 0..ROUNDS {
        let before = rings.taken()?;
        for n in 0..LIVE {
            client.send(&format!("c{n}"), BYTES, server)?;
            truth.there += BYTES;
        }
        if round == ROUNDS - 2 {
            // What ended is missed by every pass from then on.
            client.close("c0", server)?;
            truth.closed += 1;
            client.open("c0", &direct, "l", server)?;
            truth.opened += 1;
        }
        // A pass has shown what moved.
        let shown = u64::from(2 * LIVE);
        eventually(DEADLINE, || {
            let begun = rings.taken()? - before;
            ensure!(begun >= shown, "{begun} records of {shown} connections that moved");
            Ok(())
        })?;
    }
    meshd.scrape()?.shows("meshd_telemetry_vanished_total", &[], 0.0)?;
    rings.end(&stuck)?;

    meshd.eventually(|s| truth.is_shown(s))?;
    for n in 0..LIVE {
        client.close(&format!("c{n}"), server)?;
    }
    truth.closed += LIVE;
    let scrape = meshd.eventually(|s| truth.is_shown(s))?;
    scrape.shows("meshd_telemetry_vanished_total", &[], 0.0)?;
    scrape.shows("meshd_telemetry_lost_bytes_total", &[], 0.0)?;
    scrape.shows("meshd_telemetry_malformed_total", &[], stuck.len() as f64)
}
