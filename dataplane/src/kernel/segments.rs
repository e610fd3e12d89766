//! Memory for saved counters: arrays of words that are pinned and mapped.

use std::{
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::atomic::AtomicU64,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, MapData, MapType};
use telemetry::{Memory, SEGMENT};

use super::{pins::Pins, sys::Mapping};

/// `BPF_F_MMAPABLE`.
const MAPPABLE: u32 = 1 << 10;

/// Pinned arrays, each mapped; only as many as are needed.
#[derive(Debug)]
pub struct Segments {
    directory: PathBuf,
    mapped: Vec<Mapping>,
}

impl Segments {
    /// Opens what is pinned.
    ///
    /// # Errors
    /// A pinned array is not what it should be, or cannot be mapped.
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        let mut segments = Self { directory: pins.counters(), mapped: Vec::new() };
        fs::create_dir_all(&segments.directory)
            .with_context(|| format!("cannot make {}", segments.directory.display()))?;
        loop {
            let path = segments.next();
            if !fs::exists(&path).with_context(|| format!("cannot look for {}", path.display()))? {
                return Ok(segments);
            }
            let mapping = open(&path).with_context(|| format!("{} holds no counters", path.display()))?;
            segments.mapped.push(mapping);
        }
    }

    /// Removes what is pinned.
    pub(super) fn remove(pins: &Pins) -> Result<()> {
        let directory = pins.counters();
        match Pins::remove_directory(&directory, None) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", directory.display()))
            }
            _ => Ok(()),
        }
    }

    fn next(&self) -> PathBuf {
        self.directory.join(self.mapped.len().to_string())
    }
}

impl Memory for Segments {
    fn segments(&self) -> usize {
        self.mapped.len()
    }

    fn segment(&self, number: usize) -> &[AtomicU64] {
        let address = self.mapped[number].address();
        // SAFETY: so many words are mapped, aligned to a page, for as long as `self` lives; whoever else sees them uses atomics too.
        unsafe { std::slice::from_raw_parts(address.cast(), SEGMENT) }
    }

    fn grow(&mut self) -> io::Result<()> {
        let made = Array::<MapData, u64>::create(SEGMENT as u32, MAPPABLE).map_err(io::Error::other)?;
        let path = self.next();
        made.pin(&path).map_err(io::Error::other)?;
        self.mapped.push(open(&path).map_err(io::Error::other)?);
        Ok(())
    }
}

fn open(path: &Path) -> Result<Mapping> {
    let data = MapData::from_pin(path)?;
    let info = data.info()?;
    let fits = info.map_type()? == MapType::Array
        && (info.value_size(), info.max_entries(), info.map_flags()) == (8, SEGMENT as u32, MAPPABLE);
    ensure!(fits, "it is another map");
    Mapping::new(data.fd().as_fd(), 0, SEGMENT * size_of::<u64>(), true).context("it cannot be mapped")
}
