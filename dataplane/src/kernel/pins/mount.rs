//! The bpf file system: found mounted, or mounted.

use std::{fs::File, path::Path};

use anyhow::{Context as _, Result};
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
};

use crate::kernel::sys;

/// `BPF_FS_MAGIC`.
const MAGIC: i64 = 0xcafe_4a11;

/// Tells whether the bpf file system is mounted there.
pub(super) fn is_mounted(at: &Path) -> bool {
    File::open(at).and_then(|directory| sys::filesystem(&directory)).is_ok_and(|kind| kind == MAGIC)
}

/// Mounts the bpf file system unless it is.
pub(super) fn ensure(at: &Path) -> Result<()> {
    let wanted = || format!("the bpf file system is needed at {}; --bpf-fs names another directory", at.display());
    let directory = File::open(at).with_context(wanted)?;
    if is_mounted(at) {
        return Ok(());
    }
    // Mounted twice, the later one would hide the earlier.
    let _one_at_a_time =
        Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, errno)| errno).with_context(wanted)?;
    if is_mounted(at) {
        return Ok(());
    }
    mount(Some("bpf"), at, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount the bpf file system at {}", at.display()))?;
    tracing::info!(at = %at.display(), "bpf file system mounted");
    Ok(())
}
