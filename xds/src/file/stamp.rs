//! Whether a file may have changed.

use std::{io, os::unix::fs::MetadataExt, path::Path};

/// What tells one state of a file from another, of the file that the path leads to in the end: a ConfigMap's file is a link to a
/// link to a directory that is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Also changes when a tool sets the time of modification back.
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let m = std::fs::metadata(path)?;
        let (modified, changed) = ((m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec()));
        Ok(Self { device: m.dev(), inode: m.ino(), size: m.len(), modified, changed })
    }
}
