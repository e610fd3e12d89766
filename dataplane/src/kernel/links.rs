//! Attaching a program to the cgroup by a link that is pinned, or putting it in the place of the one that a pinned link has.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use anyhow::{Context as _, Result};

use super::{bpf, explain, pins::Pins};

/// Attaches a program under a name. Where that name has a link already, the program takes the place of the one before it, so that no
/// event passes between the two.
pub(super) fn attach(pins: &Pins, name: &str, program: BorrowedFd<'_>, cgroup: &File, attach_type: u32) -> Result<()> {
    let path = pins.link(name);
    match bpf::get(&path) {
        Ok(link) => {
            let fits = bpf::cgroup_of(link.as_fd()) == Some((pins.cgroup(), attach_type));
            if fits && bpf::update(link.as_fd(), program).is_ok() {
                return Ok(());
            }
            tracing::warn!("{} is no link of this cgroup that could be taken over: it is made anew", path.display());
            remove(pins, name).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    }
    let link = bpf::attach(program, cgroup.as_fd(), attach_type)
        .map_err(|error| explain::load(error.into(), &format!("attach the program {name} to the cgroup")))?;
    bpf::pin(link.as_fd(), &path).with_context(|| format!("cannot pin {}", path.display()))
}

/// Tells whether a name has a link.
pub(super) fn is_pinned(pins: &Pins, name: &str) -> bool {
    fs::exists(pins.link(name)).unwrap_or(false)
}

/// Detaches what is attached under a name; nothing is as good.
pub(super) fn remove(pins: &Pins, name: &str) -> io::Result<()> {
    let path = pins.link(name);
    if let Ok(link) = bpf::get(&path) {
        // One whose cgroup is gone is detached already.
        _ = bpf::detach(link.as_fd());
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
