//! The network namespaces whose sockets are walked over where the kernel lets no program walk over socket storage.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Manager, netns};
use crate::process::{Inode, Processes};

/// A namespace that is held open, so that it outlives its last process until its last connection has ended.
#[derive(Debug)]
pub(super) struct Namespace {
    file: OwnedFd,
    cookie: u64,
    /// How many walks in a row came to no socket that has storage.
    without: AtomicU32,
}

/// So many walks without a socket tell that there is none: one that runs beside another may take what that found for its own.
const UNUSED: u32 = 3;

impl Namespace {
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Takes note of a walk, which has come to a socket that has storage, or not.
    pub(super) fn walked(&self, visited: bool) {
        let without = if visited { 0 } else { self.without.load(Relaxed).saturating_add(1) };
        self.without.store(without, Relaxed);
    }

    /// Tells whether a walk may come to a socket that has storage, as far as the last ones tell.
    fn is_used(&self) -> bool {
        self.without.load(Relaxed) < UNUSED
    }
}

/// Those in which sockets may have storage, as the host's processes show them. All handles share their state.
#[derive(Clone, Debug)]
pub(super) struct Namespaces(Arc<State>);

#[derive(Debug)]
struct State {
    proc: PathBuf,
    /// Who tells which are managed; none: all are.
    manager: Option<Manager>,
    /// They are walked over where socket storage could be, too.
    instead: bool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    looked: Option<Instant>,
    all: FxHashMap<Inode, Arc<Namespace>>,
}

impl Namespaces {
    /// Of these the managed ones, or every one that `proc` shows.
    pub(super) fn new(proc: &Path, manager: Option<Manager>, instead: bool) -> Self {
        Self(Arc::new(State { proc: proc.to_owned(), manager, instead, known: Mutex::default() }))
    }

    /// Tells whether they are walked over where socket storage could be, too.
    pub(super) fn instead(&self) -> bool {
        self.0.instead
    }

    /// Lets go of all of them: nobody walks for a while.
    pub(super) fn forget(&self) {
        *self.known() = Known::default();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists those that are managed, or were when a connection was opened that is still there. They are looked for anew unless that was done
    /// so lately.
    pub(super) fn list(&self, lately: Duration) -> Result<Vec<Arc<Namespace>>> {
        let (State { proc, manager, .. }, mut known) = (&*self.0, self.known());
        if known.looked.is_none_or(|looked| looked.elapsed() >= lately) {
            known.look(proc).with_context(|| format!("cannot look for network namespaces in {}", proc.display()))?;
        }
        let managed: Option<FxHashSet<u64>> = match manager {
            Some(manager) => Some(manager.list()?.into_iter().map(|managed| managed.netns).collect()),
            None => None,
        };
        let is_managed = |cookie| managed.as_ref().is_none_or(|managed| managed.contains(&cookie));
        let wanted = known.all.values().filter(|namespace| namespace.is_used() || is_managed(namespace.cookie));
        Ok(wanted.cloned().collect())
    }
}

impl Known {
    fn look(&mut self, proc: &Path) -> Result<()> {
        let processes = Processes::open(proc)?;
        let found = processes.look()?;
        self.all.retain(|inode, namespace| namespace.is_used() || found.namespaces.contains_key(inode));
        let new = found.namespaces.iter().filter(|(inode, _)| !self.all.contains_key(inode));
        // A process that has ended meanwhile is no error.
        let (inodes, files): (Vec<_>, Vec<_>) =
            new.filter_map(|(inode, pid)| Some((*inode, processes.holder(*pid, *inode).ok()?.open().ok()?))).unzip();
        let cookies = netns::cookies(&files)?;
        for ((inode, file), cookie) in inodes.into_iter().zip(files).zip(cookies) {
            self.all.insert(inode, Arc::new(Namespace { file, cookie, without: AtomicU32::new(0) }));
        }
        self.looked = Some(Instant::now());
        Ok(())
    }
}
