//! Where the image is.

use std::{fmt, io, sync::atomic::AtomicU64};

/// Words of a segment: 256 KiB.
pub const SEGMENT: usize = 1 << 15;

/// Memory in segments of [`SEGMENT`] words, each made when it is needed, zero at first. That of a data plane outlives it.
pub trait Memory: fmt::Debug + Send {
    /// Returns how many segments there are.
    fn segments(&self) -> usize;

    /// Returns the words of a segment; there is one of that number.
    fn segment(&self, number: usize) -> &[AtomicU64];

    /// Makes one more.
    ///
    /// # Errors
    /// There is no memory to be had.
    fn grow(&mut self) -> io::Result<()>;
}

/// Memory of this process, gone with it.
#[derive(Debug, Default)]
pub struct Heap(Vec<Box<[AtomicU64]>>);

impl Memory for Heap {
    fn segments(&self) -> usize {
        self.0.len()
    }

    fn segment(&self, number: usize) -> &[AtomicU64] {
        &self.0[number]
    }

    fn grow(&mut self) -> io::Result<()> {
        self.0.push((0..SEGMENT).map(|_| AtomicU64::new(0)).collect());
        Ok(())
    }
}
