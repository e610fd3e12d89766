//! Passes over all live connections.

use std::{
    fs::File,
    io::{ErrorKind, Read as _},
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use abi::Record;
use anyhow::{Context as _, Result};

use super::sys;

/// The kernel's buffer of one read: eight pages.
const PAGES: usize = 8;
/// Walks of one pass. The second finds what the first missed; more are needed only while connections come by the hundred a walk.
const WALKS: u32 = 16;

/// One pass: every connection that is established from its begin to its end is shown once.
///
/// Between two reads of one walk the kernel finds its place by counting sockets, so those that come and go meanwhile make others be
/// missed. The program shows a socket once a pass; therefore the walk is repeated until one fitted into a single read.
#[derive(Debug)]
pub struct Snapshot {
    link: Arc<OwnedFd>,
    walk: File,
    walks: u32,
    /// What the present walk has shown, bytes.
    shown: usize,
    buffer: Vec<u8>,
    /// Begin of a record whose rest is still to be read, bytes.
    kept: usize,
    whole: bool,
}

impl Snapshot {
    pub(super) fn begin(link: Arc<OwnedFd>) -> Result<Self> {
        let walk = begin(&link)?;
        let buffer = vec![0; PAGES * sys::page_size()];
        Ok(Self { link, walk, walks: 1, shown: 0, buffer, kept: 0, whole: false })
    }

    /// Hands over the next records, at most some two hundred, and tells whether there may be more.
    ///
    /// # Errors
    /// The kernel could not go on; the pass is not complete.
    pub fn next_chunk(&mut self, record: &mut dyn FnMut(&[u8])) -> Result<bool> {
        if self.whole || self.walks > WALKS {
            return Ok(false);
        }
        let read = loop {
            match self.walk.read(&mut self.buffer[self.kept..]) {
                // EAGAIN: a million sockets in a row had nothing to show.
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                result => break result.context("cannot read the iterator over socket storage")?,
            }
        };
        if read == 0 {
            return self.end_walk();
        }
        self.shown += read;
        let filled = self.kept + read;
        let records = self.buffer[..filled].chunks_exact(size_of::<Record>());
        let rest = records.remainder().len();
        records.for_each(record);
        self.buffer.copy_within(filled - rest..filled, 0);
        self.kept = rest;
        Ok(true)
    }

    /// Tells whether the pass has shown every connection: at its end, if it did not have to be given up.
    pub fn is_complete(&self) -> bool {
        self.whole
    }

    fn end_walk(&mut self) -> Result<bool> {
        // With room left for one more record the kernel never stopped on its way.
        self.whole = self.shown + size_of::<Record>() <= PAGES * sys::page_size();
        self.walks += 1;
        if self.whole || self.walks > WALKS {
            return Ok(false);
        }
        self.walk = begin(&self.link)?;
        (self.shown, self.kept) = (0, 0);
        Ok(true)
    }
}

fn begin(link: &OwnedFd) -> Result<File> {
    sys::begin_iteration(link.as_fd()).context("cannot iterate over socket storage")
}
