//! Passes over all live connections.

use std::{
    fs::File,
    io::{ErrorKind, Read as _},
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use anyhow::{Context as _, Result};

use super::bpf;

/// Walks of one pass. The second finds what the first missed; more are needed only while connections come by the thousand a walk.
const WALKS: u32 = 16;
/// Steps of one pass, far more than a full table of connections needs: a ring that can not be emptied ends the pass.
const STEPS: u32 = 1 << 16;

/// One pass: every connection that is established from its begin to its end is shown once, in the ring.
///
/// Where the ring fills up the walk stops until it has been emptied. The kernel then finds its place by counting sockets, so that those
/// that went meanwhile make others be missed; the program tells whether it came back to where it stopped. If it did not, the walk is
/// repeated; the program shows a socket once a pass.
#[derive(Debug)]
pub struct Snapshot {
    link: Arc<OwnedFd>,
    walk: File,
    walks: u32,
    steps: u32,
    whole: bool,
}

impl Snapshot {
    pub(super) fn begin(link: Arc<OwnedFd>) -> Result<Self> {
        let walk = begin(&link)?;
        Ok(Self { link, walk, walks: 1, steps: 0, whole: false })
    }

    /// Walks on until the ring fills up, and tells whether the pass goes on from there. `missed` tells whether the walk that has come to
    /// its end passed sockets over.
    ///
    /// # Errors
    /// The kernel could not go on; the pass is not complete.
    pub(super) fn go_on(&mut self, missed: impl FnOnce() -> Result<bool>) -> Result<bool> {
        self.steps += 1;
        // There is no output: the program shows what it finds in the ring.
        match self.walk.read(&mut [0]) {
            Ok(_) if missed()? => {
                self.walk = begin(&self.link)?;
                self.walks += 1;
            }
            Ok(_) => self.whole = true,
            // The ring fills up, or (EAGAIN too) a million sockets in a row had nothing to show.
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error).context("cannot read the iterator over socket storage"),
        }
        Ok(!self.whole && self.walks <= WALKS && self.steps < STEPS)
    }

    /// Tells whether the pass has shown every connection: at its end, if it did not have to be given up.
    pub fn is_complete(&self) -> bool {
        self.whole
    }
}

fn begin(link: &OwnedFd) -> Result<File> {
    bpf::begin_iteration(link.as_fd()).context("cannot iterate over socket storage")
}
