//! The search of namespaces for connections that nobody watches yet.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use abi::maps::{SETTINGS, setting::ADOPT_NETNS};
use anyhow::{Context as _, Result};
use aya::{
    Btf, Ebpf,
    maps::{Array, MapData},
    programs::Iter,
};

use super::{bpf, explain, map::Handle, netns, sys};

/// The program that looks at each socket.
pub(super) const ITERATOR: &str = "adopt";

/// Adopts connections that are older than the telemetry programs, or than their namespace's enrolment. All handles share their state.
#[derive(Clone, Debug)]
pub struct Adopter(Arc<Mutex<State>>);

struct State {
    settings: Array<MapData, u64>,
    /// One link serves every namespace: a walk is over the one that the thread which begins it is in.
    link: Option<OwnedFd>,
    attached: u64,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("link", &self.link).field("attached", &self.attached).finish_non_exhaustive()
    }
}

impl Adopter {
    pub(super) fn new(ebpf: &Ebpf) -> Result<Self> {
        let settings = Handle::of(ebpf, SETTINGS)?.open()?;
        Ok(Self(Arc::new(Mutex::new(State { settings, link: None, attached: 0 }))))
    }

    /// Gets ready to search; the other telemetry programs are attached.
    pub(super) fn attach(&self, ebpf: &mut Ebpf, btf: &Btf) -> Result<()> {
        load(ebpf, btf)?;
        let program: &Iter = ebpf.program(ITERATOR).context("it was loaded just now")?.try_into()?;
        let link = bpf::link_iterator(program.fd()?.as_fd(), None)
            .map_err(|error| explain::load(error.into(), "link the iterator over TCP sockets"))?;
        let mut state = self.state();
        state.link = Some(link);
        state.attached += 1;
        Ok(())
    }

    /// Waits for a search that runs, and lets no other begin.
    pub(super) fn detach(&self) {
        self.state().link = None;
    }

    /// Returns how many times telemetry has been attached, while it is. Who has searched a namespace since then need not search it
    /// again: what is opened in a managed namespace is seen.
    pub fn attached(&self) -> Option<u64> {
        let state = self.state();
        state.link.as_ref().map(|_| state.attached)
    }

    /// Adopts every open connection of a namespace that is managed already. Nothing is done while telemetry is not attached, nor for
    /// connections that are watched.
    ///
    /// # Errors
    /// The namespace may not be entered, or the kernel refused.
    pub fn adopt(&self, namespace: BorrowedFd<'_>) -> Result<()> {
        let mut state = self.state();
        let State { settings, link: Some(link), .. } = &mut *state else { return Ok(()) };
        // Entering concerns one thread only; one of our own ends with it.
        thread::scope(|scope| {
            let entered = scope.spawn(|| -> Result<()> {
                sys::enter_netns(namespace).context("cannot enter a network namespace")?;
                settings.set(ADOPT_NETNS, netns::current()?, 0).context("cannot name the namespace to the program")?;
                walk(link)
            });
            entered.join().expect("nothing in that thread panics")
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Loads the program.
pub(super) fn load(ebpf: &mut Ebpf, btf: &Btf) -> Result<()> {
    let program: &mut Iter = ebpf.program_mut(ITERATOR).context("there is no iterator over TCP sockets")?.try_into()?;
    program.load("tcp", btf).map_err(|error| explain::load(error.into(), "load the iterator over TCP sockets"))
}

fn walk(link: &OwnedFd) -> Result<()> {
    bpf::iterate(link.as_fd()).context("cannot iterate over TCP sockets")
}
