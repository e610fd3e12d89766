//! What switches were set to at run time: a pinned array with a word for each.

use std::fs;

use anyhow::{Context as _, Result};
use aya::maps::{Array, Map, MapData};

use super::pins::Pins;

/// How many switches there are room for.
const COUNT: u32 = 8;
/// Bits of a word: the switch was set at run time, it was turned on, and its flag had it on.
const SET: u64 = 1;
const ON: u64 = 1 << 1;
const FLAG: u64 = 1 << 2;

/// What switches were set to at run time, each by its number; outlives the process.
pub struct Chosen(Array<MapData, u64>);

impl std::fmt::Debug for Chosen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Chosen").field(&self.0.iter().flatten().collect::<Vec<_>>()).finish()
    }
}

impl Chosen {
    /// Opens what is pinned, or begins anew.
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        let path = pins.switches();
        if fs::exists(&path).with_context(|| format!("cannot look for {}", path.display()))? {
            match open(&path) {
                Ok(chosen) => return Ok(chosen),
                Err(error) => tracing::warn!("{} holds no switches ({error:#}): flags are in force", path.display()),
            }
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        let made = Array::<MapData, u64>::create(COUNT, 0).context("cannot make a map for switches")?;
        made.pin(&path).with_context(|| format!("cannot pin {}", path.display()))?;
        open(&path)
    }

    /// Returns what a switch is to be: what it was set to at run time, unless its flag is another one since, else the flag.
    pub fn wanted(&self, switch: u32, flag: bool) -> bool {
        match self.0.get(&switch, 0) {
            Ok(word) if word & SET != 0 && (word & FLAG != 0) == flag => word & ON != 0,
            _ => flag,
        }
    }

    /// Remembers that a switch was set at run time.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn remember(&mut self, switch: u32, on: bool, flag: bool) -> Result<()> {
        let bit = |is: bool, bit: u64| if is { bit } else { 0 };
        self.0.set(switch, SET | bit(on, ON) | bit(flag, FLAG), 0).context("cannot save a switch")
    }

    /// Forgets what a switch was set to at run time.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn forget(&mut self, switch: u32) -> Result<()> {
        self.0.set(switch, 0, 0).context("cannot save a switch")
    }
}

fn open(path: &std::path::Path) -> Result<Chosen> {
    let data = MapData::from_pin(path)?;
    anyhow::ensure!(data.info()?.max_entries() == COUNT, "it is of another size");
    Ok(Chosen(Map::from_map_data(data)?.try_into()?))
}
