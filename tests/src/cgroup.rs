//! A cgroup of the test's own, so that nobody else on the machine is observed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{netns::PREFIX, retry::eventually};

/// A child of the cgroup v2 root, removed by `Drop` with all that runs in it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a cgroup.
    pub fn new(name: &str) -> Result<Self> {
        let path = root()?.join(format!("{PREFIX}{name}"));
        fs::create_dir(&path).with_context(|| format!("making the cgroup {}", path.display()))?;
        Ok(Self { path })
    }

    /// Returns its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Finds where cgroup v2 is mounted.
pub fn root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
    let mut mounts = mounts.lines().map(|l| l.split(' '));
    let found = mounts.find_map(|mut m| (m.clone().nth(2)? == "cgroup2").then(|| m.nth(1).map(PathBuf::from))?);
    found.context("no cgroup v2 is mounted: mount -t cgroup2 none /sys/fs/cgroup")
}

/// Removes the cgroups that an earlier run left.
pub fn remove_left_overs() -> Result<()> {
    for entry in fs::read_dir(root()?).context("listing cgroups")? {
        let entry = entry.context("listing cgroups")?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            remove(&entry.path());
        }
    }
    Ok(())
}

fn remove(path: &Path) {
    let removed = eventually(crate::retry::DEADLINE, || {
        fs::write(path.join("cgroup.kill"), "1").context("ending what runs in it")?;
        fs::remove_dir(path).context("removing it")
    });
    if let Err(error) = removed {
        eprintln!("cgroup {} stays: {error:#}", path.display());
    }
}
