//! A family's series: one writer, any number of readers that it never waits for.
//!
//! A [`Row`] is one label set with the counters of every metric that has it. The record thread finds or makes rows in its
//! [`Table`] and adds to them through a [`Handle`]; readers load the rows last published and read the counters as they are.

mod handle;
mod row;
mod saved;
mod table;

pub(crate) use row::{Row, Slot};
pub(crate) use saved::{Restored, Saved, TEXTS, handle as restored, texts_of};
pub(crate) use table::{Published, Standing, Table};

pub use handle::Handle;
