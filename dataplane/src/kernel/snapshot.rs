//! Passes over all live connections.

use std::{
    io::{ErrorKind, Read as _},
    sync::Arc,
};

use abi::maps::setting::STOPPED;
use anyhow::{Context as _, Result};

use super::walk::{Settings, Walker, Walks};

/// Walks over the same sockets in one pass. The second finds what the first missed; more are needed only while connections come by the thousand a walk.
const WALKS: u32 = 16;
/// Steps of one pass, far more than a full table of connections needs: a ring that can not be emptied ends the pass.
const STEPS: u32 = 1 << 16;

/// One pass: every connection that is established from its begin to its end is shown once, in the ring.
///
/// Where the ring fills up the walk stops until it has been emptied. The kernel then finds its place by counting sockets, so that those
/// that went meanwhile make others be missed; the program tells whether it came back to where it stopped. If it did not, the walk is
/// repeated; the program shows a socket once a pass.
pub struct Snapshot {
    walks: Walks,
    settings: Settings,
    repeated: u32,
    steps: u32,
    whole: bool,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("walks", &self.walks).field("whole", &self.whole).finish_non_exhaustive()
    }
}

impl Snapshot {
    pub(super) fn begin(walker: &Arc<Walker>, settings: Settings) -> Result<Self> {
        Ok(Self { walks: walker.begin()?, settings, repeated: 0, steps: 0, whole: false })
    }

    /// Walks on until the ring fills up, or a walk is over, and tells whether the pass goes on from there. Its records are in the ring then,
    /// which may be read meanwhile; [`super::Source::quiet`] has the rest, and is to be asked before the pass goes on.
    ///
    /// # Errors
    /// The kernel could not go on; the pass is not complete.
    pub fn go_on(&mut self) -> Result<bool> {
        let Self { walks, settings, .. } = self;
        self.steps += 1;
        let Some(walk) = walks.under_way()? else {
            self.whole = true;
            return Ok(false);
        };
        // There is no output: the program shows what it finds in the ring.
        match walk.read(&mut [0]) {
            Ok(_) if settings.get(&STOPPED, 0).context("cannot tell how the walk went")? != 0 => {
                settings.set(STOPPED, 0, 0).context("cannot begin a walk")?;
                walks.again()?;
                self.repeated += 1;
            }
            Ok(_) => {
                self.whole = walks.over(settings)?;
                self.repeated = 0;
            }
            // The ring fills up, or (EAGAIN too) a million sockets in a row had nothing to show.
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error).context("cannot read an iterator over sockets"),
        }
        Ok(!self.whole && self.repeated < WALKS && self.steps < STEPS)
    }

    /// Tells whether the pass has shown every connection: at its end, if it did not have to be given up.
    pub fn is_complete(&self) -> bool {
        self.whole
    }
}
