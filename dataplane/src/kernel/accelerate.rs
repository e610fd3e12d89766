//! Socket redirect in the kernel: which connections join, how many have, and how it ends.

use std::{
    os::fd::AsFd as _,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use abi::{
    joined::{Joined, flags},
    maps::{
        COUNTERS, JOINED, SETTINGS, SOCKETS, STORAGE, counter,
        setting::{ACCELERATE, UNREAD},
    },
};
use anyhow::{Context as _, Result};
use aya::{
    Btf, Ebpf,
    maps::{HashMap, MapData, PerCpuArray, SockHash},
    programs::{ProgramError, SkMsg},
};
use rustc_hash::{FxHashMap, FxHashSet};
use zerocopy::transmute;

use super::{
    bpf, explain, links,
    map::Handle,
    namespaces::Namespaces,
    pins::Pins,
    sys,
    walk::{Form, Settings, Walker},
};

/// The program that sees what joined sockets send, and the one that finds who may join.
pub(super) const MESSAGE: &str = "message";
pub(super) const JOIN: Form = Form {
    storage: "join",
    tcp: "join_tcp",
    what: "joins sockets",
    // Before, the kernel holds a lock that putting a socket into a map takes.
    tcp_since: (6, 5),
};

/// How long a send may take that was under way when redirect was switched off.
const UNDER_WAY: Duration = Duration::from_millis(10);
/// How often it is looked whether everything was read.
const AGAIN: Duration = Duration::from_millis(20);

type PerCpu = PerCpuArray<MapData, [u64; counter::COUNT as usize]>;

/// What programs that see what sockets send have counted since the maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joins {
    /// Sockets that joined their peer.
    pub joined: u64,
    /// Joined sockets whose end was reported.
    pub parted: u64,
    /// Sockets that could not join: no room, or the kernel refused.
    pub refused: u64,
    /// Payload bytes that ended connections had sent beside TCP.
    pub redirected: u64,
    /// Times that a socket went back to TCP because its peer had too much to read.
    pub held_back: u64,
    /// Connections to waypoints that could not be told what was dialled.
    pub untold: u64,
}

/// Finds connections that may join. All handles share their state.
#[derive(Clone, Debug)]
pub struct Accelerator(Arc<Mutex<State>>);

struct State {
    settings: Settings,
    counters: PerCpu,
    joined: HashMap<MapData, u64, [u8; size_of::<Joined>()]>,
    sockets: Handle,
    storage: Handle,
    namespaces: Namespaces,
    walker: Option<Walker>,
    /// Sockets that the last sweep found gone.
    gone: FxHashSet<u64>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("walker", &self.walker).field("gone", &self.gone).finish_non_exhaustive()
    }
}

impl Accelerator {
    pub(super) fn new(ebpf: &Ebpf, namespaces: Namespaces) -> Result<Self> {
        let state = State {
            settings: Handle::of(ebpf, SETTINGS)?.open()?,
            counters: Handle::of(ebpf, COUNTERS)?.open()?,
            joined: Handle::of(ebpf, JOINED)?.open()?,
            sockets: Handle::of(ebpf, SOCKETS)?,
            storage: Handle::of(ebpf, STORAGE)?,
            namespaces,
            walker: None,
            gone: FxHashSet::default(),
        };
        Ok(Self(Arc::new(Mutex::new(state))))
    }

    /// Loads the programs and lets connections join once they have come to so many segments, both ways together.
    ///
    /// The iterator's link is pinned: who takes everything out of the kernel without this program asks it what waits to be read.
    pub(super) fn attach(&self, ebpf: &mut Ebpf, pins: &Pins, btf: &Btf, after: u32) -> Result<()> {
        let mut state = self.state();
        load_message(ebpf)?;
        let message: &SkMsg = ebpf.program(MESSAGE).context("it was loaded just now")?.try_into()?;
        bpf::attach_to_sockets(message.fd()?.as_fd(), state.sockets.duplicate()?.as_fd())
            .context("cannot attach the program that redirects messages")?;
        let storage = state.storage.duplicate()?;
        let walker = Walker::new(ebpf, btf, JOIN, storage.as_fd(), &state.namespaces)?;
        forget_left(pins)?;
        let path = pins.link(walker.name(JOIN));
        bpf::pin(walker.link(), &path).with_context(|| format!("cannot pin {}", path.display()))?;
        state.settings.set(ACCELERATE, u64::from(after.max(1)), 0).context("cannot let connections join")?;
        state.walker = Some(walker);
        Ok(())
    }

    /// Lets no more connections join, and those that have go by TCP from now on.
    ///
    /// # Errors
    /// The settings map could not be written.
    pub fn rest(&self) -> Result<()> {
        self.state().settings.set(ACCELERATE, 0, 0).context("cannot have connections go by TCP")
    }

    /// Notes that all that have joined have left: what they sent counts, and they do not join again.
    pub(super) fn all_have_left(&self) -> Result<()> {
        const WHAT: &str = "cannot tell joined sockets of another version";
        let mut state = self.state();
        for entry in state.joined.iter().collect::<Vec<_>>() {
            let (cookie, value) = entry.context(WHAT)?;
            let mut joined: Joined = transmute!(value);
            joined.flags |= flags::LEAVING | flags::LEFT;
            let value: [u8; size_of::<Joined>()] = transmute!(joined);
            state.joined.insert(cookie, value, 0).context(WHAT)?;
        }
        Ok(())
    }

    /// Joins what may join now.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn join(&self) -> Result<()> {
        let State { settings, walker, .. } = &mut *self.state();
        walker.as_ref().map_or(Ok(()), |walker| walker.iterate(settings))
    }

    /// Returns what the programs counted.
    ///
    /// # Errors
    /// The map could not be read.
    pub fn joins(&self) -> Result<Joins> {
        let each = self.state().counters.get(&0, 0).context("cannot read the kernel's counters")?;
        let sum = |slot: u32| each.iter().map(|cpu| cpu[slot as usize]).sum();
        Ok(Joins {
            joined: sum(counter::JOINED),
            parted: sum(counter::PARTED),
            refused: sum(counter::NOT_JOINED),
            redirected: sum(counter::REDIRECTED),
            held_back: sum(counter::HELD_BACK),
            untold: sum(counter::NOT_TOLD),
        })
    }

    /// Counts the sockets that are joined, and forgets those that two sweeps in a row found gone with their peer: nobody reports ends while
    /// telemetry is detached.
    ///
    /// # Errors
    /// A map could not be read or written.
    pub fn sweep(&self) -> Result<usize> {
        let mut state = self.state();
        let sockets: SockHash<MapData, u64> = state.sockets.open()?;
        let open: FxHashSet<u64> = sockets.keys().collect::<Result<_, _>>().context("cannot list joined sockets")?;
        let mut joined = FxHashMap::default();
        for entry in state.joined.iter() {
            let (cookie, value) = entry.context("cannot list joined sockets")?;
            joined.insert(cookie, transmute!(value));
        }
        // One that has left is in no list, and is there until its end is reported.
        let is_left = |socket: &Joined| socket.flags & (flags::LEFT | flags::CLOSED) == flags::LEFT;
        let is_there = |cookie: &u64| open.contains(cookie) || joined.get(cookie).is_some_and(is_left);
        let mut gone: FxHashSet<u64> = joined
            .iter()
            .filter(|(cookie, socket)| !is_there(cookie) && !is_there(&socket.peer))
            .map(|(cookie, _)| *cookie)
            .collect();
        for cookie in gone.intersection(&state.gone).copied().collect::<Vec<_>>() {
            _ = state.joined.remove(&cookie);
            gone.remove(&cookie);
        }
        state.gone = gone;
        Ok(open.len())
    }

    /// Has everything go by TCP, and waits until what went beside it was read; tells whether it was, by the deadline. Only then the
    /// sockets may leave: the kernel throws away what they have not read.
    ///
    /// # Errors
    /// The kernel refused.
    pub(super) fn quiesce(&self, deadline: Duration) -> Result<bool> {
        let mut state = self.state();
        let State { settings, walker, .. } = &mut *state;
        let Some(walker) = walker else { return Ok(true) };
        quiesce(settings, walker, deadline)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As [`Accelerator::quiesce`], of what another process has left pinned, its settings there. `proc` shows the host's processes.
pub(super) fn quiesce_left(pins: &Pins, settings: &Path, proc: &Path, deadline: Duration) -> Result<bool> {
    let over_storage = bpf::get(&pins.link(JOIN.storage)).map(|link| Walker::of(link, None));
    let every = || Namespaces::new(proc, None, false);
    let walker = over_storage.or_else(|_| bpf::get(&pins.link(JOIN.tcp)).map(|link| Walker::of(link, Some(every()))));
    let (Ok(walker), Ok(settings)) = (walker, MapData::from_pin(settings)) else { return Ok(true) };
    quiesce(&mut aya::maps::Map::Array(settings).try_into()?, &walker, deadline)
}

/// Removes the pin of a program that joins.
pub(super) fn forget_left(pins: &Pins) -> Result<()> {
    [JOIN.storage, JOIN.tcp].into_iter().try_for_each(|name| links::remove(pins, name)).context("cannot remove a pin")
}

fn quiesce(settings: &mut Settings, walker: &Walker, deadline: Duration) -> Result<bool> {
    const SETTING: &str = "cannot have connections go by TCP";
    let begin = Instant::now();
    settings.set(ACCELERATE, 0, 0).context(SETTING)?;
    sys::wait_for_programs().context("cannot wait for programs that run")?;
    pause(UNDER_WAY);
    loop {
        settings.set(UNREAD, 0, 0).context(SETTING)?;
        walker.iterate(settings)?;
        if settings.get(&UNREAD, 0).context(SETTING)? == 0 {
            return Ok(true);
        }
        if begin.elapsed() >= deadline {
            return Ok(false);
        }
        pause(AGAIN);
    }
}

#[expect(clippy::disallowed_methods, reason = "the kernel does not tell when a queue was read")]
fn pause(time: Duration) {
    thread::sleep(time);
}

/// Loads the program that sees what sockets send, if it has not been loaded.
pub(super) fn load_message(ebpf: &mut Ebpf) -> Result<()> {
    let program: &mut SkMsg = ebpf.program_mut(MESSAGE).context("there is no program for messages")?.try_into()?;
    match program.load() {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(()),
        Err(error) => Err(explain::load(error.into(), "load the program that sees what sockets send")),
    }
}
