//! A buffer of one size before a writer.

use std::io::{self, Write};

/// Bytes written at once.
const SIZE: usize = 64 * 1024;

/// Collects text and writes it in pieces of 64 KiB; a longer text is written in several.
pub(crate) struct Buffer<'a> {
    bytes: Vec<u8>,
    out: &'a mut dyn Write,
}

impl<'a> Buffer<'a> {
    pub(crate) fn new(out: &'a mut dyn Write) -> Self {
        Self { bytes: Vec::with_capacity(SIZE), out }
    }

    #[inline]
    pub(crate) fn put(&mut self, text: &str) -> io::Result<()> {
        if text.len() > SIZE - self.bytes.len() {
            return self.put_over_edge(text);
        }
        self.bytes.extend_from_slice(text.as_bytes());
        Ok(())
    }

    pub(crate) fn put_all(&mut self, texts: &[&str]) -> io::Result<()> {
        texts.iter().try_for_each(|text| self.put(text))
    }

    #[inline]
    pub(crate) fn put_number(&mut self, number: u64) -> io::Result<()> {
        self.put(itoa::Buffer::new().format(number))
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.bytes)?;
        self.bytes.clear();
        Ok(())
    }

    #[cold]
    fn put_over_edge(&mut self, text: &str) -> io::Result<()> {
        let mut rest = text.as_bytes();
        while rest.len() > SIZE - self.bytes.len() {
            let (now, later) = rest.split_at(SIZE - self.bytes.len());
            self.bytes.extend_from_slice(now);
            self.flush()?;
            rest = later;
        }
        self.bytes.extend_from_slice(rest);
        Ok(())
    }
}
