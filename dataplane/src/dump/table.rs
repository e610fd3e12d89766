//! Rows in columns.

use std::{fmt::Write as _, io};

/// A column is padded to at most so many characters; a longer cell moves the rest of its row.
const WIDEST: usize = 64;

/// Rows of cells, held as one text until it is known how wide the columns are.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    /// Cells end with a tab.
    text: String,
    widths: [usize; N],
}

impl<const N: usize> Table<N> {
    /// Makes a table of one row, the header.
    pub(crate) fn new(header: &[&str; N]) -> Self {
        let mut table = Self { text: String::new(), widths: [0; N] };
        table.row(*header);
        table
    }

    /// Adds a row. A cell is printable ASCII without spaces, as what else a name has is written as `\u{hex}`; an empty one is `-`.
    pub(crate) fn row(&mut self, cells: [&str; N]) {
        for (cell, width) in cells.into_iter().zip(&mut self.widths) {
            let start = self.text.len();
            for c in if cell.is_empty() { "-" } else { cell }.chars() {
                if c.is_ascii_graphic() {
                    self.text.push(c);
                } else {
                    let _ = write!(self.text, "{}", c.escape_unicode());
                }
            }
            *width = (*width).max(self.text.len() - start).min(WIDEST);
            self.text.push('\t');
        }
    }

    /// Writes all rows, two spaces between columns.
    pub(crate) fn write(&self, out: &mut impl io::Write) -> io::Result<()> {
        let mut cells = self.text.split_terminator('\t');
        while let Some(first) = cells.next() {
            write!(out, "{first:<width$}", width = self.widths[0])?;
            for (at, width) in self.widths.iter().enumerate().skip(1) {
                let cell = cells.next().unwrap_or_default();
                // The last column ends where its cell does.
                let width = if at == N - 1 { 0 } else { *width };
                write!(out, "  {cell:<width$}")?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}
