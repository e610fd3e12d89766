//! How the mesh file fares, for metrics and health.

use std::sync::{Mutex, PoisonError};

use super::FileError;

/// How the mesh file fares.
#[derive(Debug, Default)]
pub struct FileStatus(Mutex<FileReport>);

/// How the mesh file fares at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileReport {
    /// The state applied is what the file says now.
    pub good: bool,
    /// Contents applied, the first one included.
    pub loads: u64,
    /// Contents refused, and times the file became unreadable.
    pub errors: u64,
    /// Warnings of the content applied last.
    pub warnings: u64,
    /// What was wrong last, if anything ever was.
    pub last_error: Option<String>,
}

impl FileStatus {
    /// Returns how the file fares now.
    pub fn report(&self) -> FileReport {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn applied(&self, warnings: usize) {
        self.change(|r| {
            r.good = true;
            r.loads += 1;
            r.warnings = warnings as u64;
        });
    }

    pub(super) fn refused(&self, error: &FileError) {
        self.change(|r| {
            r.good = false;
            r.errors += 1;
            r.last_error = Some(error.to_string());
        });
    }

    pub(super) fn recovered(&self) {
        self.change(|r| r.good = true);
    }

    fn change(&self, change: impl FnOnce(&mut FileReport)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
