//! The mesh as a file tells it: the YAML that ztunnel takes for local runs, reloaded when it changes.
//!
//! [`MeshFile::load`] applies the file once and fails clearly; [`MeshFile::run`] then keeps the [`Cache`] as the file says. A file that
//! cannot be used, or is gone, leaves the last good state.

mod mesh;
mod schema;
mod stamp;
mod status;
mod yaml;

#[cfg(test)]
mod tests;

use std::{
    collections::hash_map::DefaultHasher,
    fs::File,
    hash::Hasher,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cache::Cache;
use tokio_util::sync::CancellationToken;

use self::stamp::Stamp;
pub use self::{
    mesh::Mesh,
    status::{FileReport, FileStatus},
};

/// The largest file that is read, in bytes.
pub const MAX_BYTES: u64 = 64 << 20;

/// How often the file is looked at. What looks new is read once it has stayed the same from one look to the next, so that a file is
/// not read while it is being written.
const POLL: Duration = Duration::from_millis(200);
/// A file that never stays the same is read all the same after so many looks.
const MAX_UNSETTLED: u32 = 3;
/// How many warnings of one file are logged.
const MAX_WARNINGS: usize = 20;

/// Why a mesh file cannot be used. Every message names the file, and what it can of line, resource and field.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{path}: cannot read the mesh file: {why}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        why: std::io::Error,
    },
    /// It is a directory, a pipe or the like.
    #[error("{path}: the mesh file is not a regular file")]
    NotAFile {
        /// The file.
        path: String,
    },
    /// It is larger than [`MAX_BYTES`].
    #[error("{path}: the mesh file is larger than {MAX_BYTES} bytes")]
    TooLarge {
        /// The file.
        path: String,
    },
    /// It holds nothing, as a file does that is about to be written.
    #[error("{path}: the mesh file is empty; a mesh without anything is written `workloads: []`")]
    Empty {
        /// The file.
        path: String,
    },
    /// It is the form that ztunnel had before 2023.
    #[error(
        "{path}: a list at the top is the old form of this file (workloadIp, vips); now the list of workloads stands under \
         `workloads:`, each with `workloadIps: [...]` and `services: {{...}}`"
    )]
    OldForm {
        /// The file.
        path: String,
    },
    /// It is not YAML, or not of the right form.
    #[error("{path}:{line}:{column}: {field}{reason}")]
    Syntax {
        /// The file.
        path: String,
        /// Line, from 1; 0 if it is not known.
        line: u64,
        /// Column, from 1; 0 if it is not known.
        column: u64,
        /// The field, followed by `: `; empty if it is not known.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It says what cannot be.
    #[error("{path}:{line}: {resource}: {field}: {reason}")]
    Invalid {
        /// The file.
        path: String,
        /// Line at which the resource starts, from 1.
        line: u64,
        /// The resource, such as `workload shop/cart`.
        resource: String,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// A mesh file that is applied to a cache.
#[derive(Debug)]
pub struct MeshFile {
    path: PathBuf,
    cache: Arc<Cache>,
    status: Arc<FileStatus>,
    /// The file as it was when it was last read, whatever came of it.
    read: Option<Stamp>,
    /// Hash of the content that is applied.
    applied: Option<u64>,
    /// What is wrong at the moment, with the hash of the content if it was read: said once.
    trouble: Option<(Option<u64>, String)>,
}

impl MeshFile {
    /// Reads a file and applies it; whatever is wrong with it is the caller's to report. Warnings are logged.
    pub fn load(path: impl Into<PathBuf>, cache: Arc<Cache>) -> Result<Self, FileError> {
        let path = path.into();
        cache.set_source("file");
        let status = Arc::new(FileStatus::default());
        let mut file = Self { path, cache, status, read: None, applied: None, trouble: None };
        file.read = Stamp::of(&file.path).ok();
        let text = read(&file.path)?;
        file.apply(&text)?;
        Ok(file)
    }

    /// Returns how the file fares; it stays up to date while [`Self::run`] runs.
    pub fn status(&self) -> Arc<FileStatus> {
        self.status.clone()
    }

    /// Keeps the cache as the file says until `shutdown`: a file written in place, renamed over or swapped by a link (as a
    /// ConfigMap's) is applied within a second.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut looks = tokio::time::interval(POLL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut unsettled = None;
        while shutdown.run_until_cancelled(looks.tick()).await.is_some() {
            let look = tokio::task::spawn_blocking(move || {
                self.look(&mut unsettled);
                (self, unsettled)
            });
            match look.await {
                Ok(state) => (self, unsettled) = state,
                Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
                // The runtime is shutting down.
                Err(_) => return,
            }
        }
    }

    /// Looks once whether the file has changed, and reads it if it has and has settled.
    fn look(&mut self, unsettled: &mut Option<(Stamp, u32)>) {
        let stamp = match Stamp::of(&self.path) {
            Ok(stamp) => stamp,
            Err(source) => {
                self.read = None;
                return self.refuse(None, &FileError::Read { path: shown(&self.path), why: source });
            }
        };
        if self.read == Some(stamp) {
            return *unsettled = None;
        }
        match unsettled {
            Some((last, _)) if *last == stamp => {}
            Some((_, looks)) if *looks >= MAX_UNSETTLED => {}
            Some((last, looks)) => return (*last, *looks) = (stamp, *looks + 1),
            None => return *unsettled = Some((stamp, 1)),
        }
        *unsettled = None;
        self.reload(stamp);
    }

    fn reload(&mut self, stamp: Stamp) {
        let text = match read(&self.path) {
            Ok(text) => text,
            Err(error) => return self.refuse(None, &error),
        };
        // What changed while it was read is read again.
        self.read = Some(stamp).filter(|s| Stamp::of(&self.path).is_ok_and(|now| now == *s));
        let content = hash(&text);
        if self.applied == Some(content) {
            self.cache.confirm();
            return self.recovered();
        }
        match self.apply(&text) {
            Ok(()) => self.recovered(),
            Err(error) => self.refuse(Some(content), &error),
        }
    }

    fn apply(&mut self, text: &str) -> Result<(), FileError> {
        let Mesh { workloads, services, policies, warnings } = Mesh::parse(text, &self.path)?;
        let (workload_count, service_count) = (workloads.len(), services.len());
        self.cache.replace_policies(policies);
        let changed = self.cache.replace(workloads, services);
        self.applied = Some(hash(text));
        self.status.applied(warnings.len());
        for warning in warnings.iter().take(MAX_WARNINGS) {
            tracing::warn!("{warning}");
        }
        if let Some(more @ 1..) = warnings.len().checked_sub(MAX_WARNINGS) {
            tracing::warn!("{}: {more} more warnings", shown(&self.path));
        }
        let path = shown(&self.path);
        tracing::info!(%path, workloads = workload_count, services = service_count, changed, "applied the mesh file");
        Ok(())
    }

    /// Notes that the file cannot be used, once for each content.
    fn refuse(&mut self, content: Option<u64>, error: &FileError) {
        let trouble = Some((content, error.to_string()));
        if self.trouble != trouble {
            self.trouble = trouble;
            self.status.refused(error);
            tracing::warn!("{error}; the last good state stays");
        }
    }

    fn recovered(&mut self) {
        if self.trouble.take().is_some() {
            self.status.recovered();
            tracing::info!("{}: the mesh file is good again", shown(&self.path));
        }
    }
}

/// Reads a file within its bounds.
fn read(path: &Path) -> Result<String, FileError> {
    let failed = |why| FileError::Read { path: shown(path), why };
    // Asked before it is opened: opening a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(FileError::NotAFile { path: shown(path) });
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(FileError::TooLarge { path: shown(path) });
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|b| **b == b'\n').count() as u64;
        let column = 1 + before.iter().rev().take_while(|b| **b != b'\n').count() as u64;
        let (field, reason) = (String::new(), "not UTF-8".to_owned());
        FileError::Syntax { path: shown(path), line, column, field, reason }
    })
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// Returns a path as a message shows it: on one line.
fn shown(path: &Path) -> String {
    path.display().to_string().escape_debug().to_string()
}

/// The longest part of a message, in characters: names and values come from the file, and may be as long as that.
const MOST_SHOWN: usize = 400;

/// Cuts a part of a message that nobody would read to its end.
fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MOST_SHOWN) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}
