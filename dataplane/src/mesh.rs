//! Where the mesh state comes from, as the flags say.

use std::sync::Arc;

use cache::Cache;
use prometheus::Registry;

use crate::{cli::Run, tasks::Tasks};

/// A source of mesh state that has been opened.
#[derive(Debug)]
pub enum Mesh {
    /// None: everything is managed, nothing is named.
    None,
}

/// Opens the source that the flags name. A file is read here, so that the first full state is there before the kernel is
/// touched.
///
/// # Errors
/// The file cannot be read or says something wrong; file, line and field are named.
pub fn open(flags: &Run, cache: &Cache) -> anyhow::Result<Mesh> {
    cache.replace([], []);
    Ok(Mesh::None)
}

impl Mesh {
    /// Follows the source from now on.
    ///
    /// # Errors
    /// It cannot be watched.
    pub fn follow(self, tasks: &Tasks, cache: Arc<Cache>, registry: &Registry) -> anyhow::Result<()> {
        match self {
            Self::None => Ok(()),
        }
    }
}
