//! What the kernel's maps take.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result};
use aya::maps::MapInfo;

/// Returns the memory of every map that a process holds open, MiB by name, as the kernel accounts it (`memlock` in `/proc/PID/fdinfo`).
pub fn mebibytes(pid: u32) -> Result<BTreeMap<String, f64>> {
    let mut maps = BTreeMap::new();
    let directory = format!("/proc/{pid}/fdinfo");
    for entry in fs::read_dir(&directory).with_context(|| format!("listing {directory}"))? {
        let path = entry.with_context(|| format!("listing {directory}"))?.path();
        // A file may be closed between being listed and being read.
        let text = fs::read_to_string(path).unwrap_or_default();
        let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<u32>().ok());
        let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) else { continue };
        let info = MapInfo::from_id(id).context("asking for a map's name")?;
        // The same map may be open twice.
        maps.insert(id, (info.name_as_str().unwrap_or("?").to_owned(), f64::from(bytes) / f64::from(1 << 20)));
    }
    Ok(maps.into_values().fold(BTreeMap::new(), |mut sums, (name, size)| {
        *sums.entry(name).or_default() += size;
        sums
    }))
}
