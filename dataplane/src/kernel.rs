//! The kernel programs of this node: loaded, attached, their maps written, their records read.
//!
//! [`Kernel`] owns programs and links. Links and maps are pinned ([`Pins`]): they outlive a process that is killed, and the next one
//! takes them over. What other parts of the program need of the maps they get as handles of their own: [`Manager`] (which namespaces),
//! [`Steering`] (which services), [`Source`] (records and counters).

mod accelerate;
mod adopt;
mod bpf;
mod btf;
mod carry;
mod cgroup;
mod chosen;
mod explain;
mod links;
mod manager;
mod map;
mod metadata;
mod namespaces;
mod netns;
mod object;
mod pins;
mod probe;
mod reuse;
mod ring;
mod segments;
mod snapshot;
mod source;
mod steering;
mod sys;
mod telemetry;
mod walk;
mod waypoints;

use std::{path::PathBuf, time::Duration};

use abi::maps as sizes;
use anyhow::{Context as _, Result};
use aya::{Btf, Ebpf};

use self::namespaces::Namespaces;
pub use self::{
    accelerate::{Accelerator, Joins},
    adopt::Adopter,
    cgroup::find_cgroup_root,
    chosen::Chosen,
    manager::{Enrolled, Manager},
    map::MapError,
    netns::{host_netns_cookie, netns_cookie},
    pins::Pins,
    probe::{Check, probe},
    segments::Segments,
    snapshot::Snapshot,
    source::{AsideKey, Counters, Source, Usage},
    steering::{Dialled, Steering, Target},
    waypoints::Waypoints,
};

const TYPES: &str = "cannot read the kernel's types, /sys/kernel/btf/vmlinux";

/// How long what went beside TCP may wait to be read before what saw to it is taken out of the kernel.
pub const LAST_READS: Duration = Duration::from_secs(2);

/// How open connections report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// User space pulls the totals of all of them; no program runs per packet.
    Snapshot,
    /// Their packets report them; idle ones are not seen.
    Packet,
}

/// What a waypoint is told before the first byte of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// Nothing.
    None,
    /// Who connects and what was dialled, by PROXY protocol version 2.
    Proxy,
    /// What was dialled, in Kmesh's form.
    Tlv,
}

/// What the programs are loaded with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cgroup v2 directory to attach to; what runs in it and below it is seen.
    pub cgroup: PathBuf,
    /// Where the bpf file system is mounted, or will be.
    pub bpf_fs: PathBuf,
    /// Everything stays attached when this is dropped, for the next one to take over.
    pub keep: bool,
    /// Where the host's processes are seen: `/proc`, or a mount of the host's.
    pub proc: PathBuf,
    /// How open connections report.
    pub progress: Progress,
    /// Least time between two progress records of one connection with [`Progress::Packet`].
    pub report_interval: Duration,
    /// Sockets are walked over namespace by namespace, as on a kernel that lets no program walk over socket storage.
    pub walk_namespaces: bool,
    /// Every namespace but the host's own is managed.
    pub manage_all: bool,
    /// Adopted connections count with the totals that TCP already had.
    pub adopt_history: bool,
    /// Connections between two sockets of this node go beside TCP once they have come to so many segments.
    pub accelerate: Option<u32>,
    /// What waypoints are told of what was dialled.
    pub waypoint_metadata: Metadata,
    /// Connections whose end can wait aside while the ring is full. (Socket storage itself needs no limit: it is part of its socket.)
    pub max_connections: u32,
    /// Service addresses and ports that can be steered.
    pub max_services: u32,
    /// Endpoints of all services together.
    pub max_endpoints: u32,
    /// Records that each CPU's ring holds, a power of two; none: `abi::ring::slots`.
    pub ring_slots: Option<u32>,
}

impl Default for Options {
    /// The sizes of `abi::maps`, snapshots, five seconds, and no cgroup: that must be given.
    fn default() -> Self {
        Self {
            cgroup: PathBuf::new(),
            bpf_fs: PathBuf::from("/sys/fs/bpf"),
            keep: false,
            proc: PathBuf::from("/proc"),
            progress: Progress::Snapshot,
            report_interval: Duration::from_secs(5),
            walk_namespaces: false,
            manage_all: false,
            adopt_history: false,
            accelerate: None,
            waypoint_metadata: Metadata::None,
            max_connections: sizes::ASIDE_ENTRIES,
            max_services: sizes::SERVICE_ENTRIES,
            max_endpoints: sizes::ENDPOINT_ENTRIES,
            ring_slots: None,
        }
    }
}

impl Options {
    /// Entries of the map for ends of connections that user space knows nothing of.
    fn untold(&self) -> u32 {
        self.max_connections.min(sizes::UNTOLD_ENTRIES)
    }
}

/// The programs and what holds them in the kernel. Dropping it takes everything out, or leaves all of it, as the options say.
pub struct Kernel {
    ebpf: Ebpf,
    guard: Guard,
    left: bool,
    replaced: bool,
    cgroup: std::fs::File,
    progress: Progress,
    telemetry: telemetry::Telemetry,
    source: Option<Source>,
    manager: Manager,
    steering: Steering,
    waypoints: Waypoints,
    accelerator: Accelerator,
}

impl Kernel {
    /// Tells what would keep [`Kernel::load`] from working, before anything is done, and locks the cgroup's pins.
    ///
    /// # Errors
    /// Names the rights that are missing, says what is wrong with the cgroup directory, or that another daemon serves it.
    pub fn check(options: &Options) -> Result<Pins> {
        probe::rights()?;
        Pins::claim(&options.bpf_fs, &options.cgroup)
    }

    /// Makes the maps, or takes those over that an earlier daemon left, and loads and attaches the steering programs.
    ///
    /// # Errors
    /// Says what is missing: rights, a cgroup v2 directory, kernel types, a newer kernel. What stays is what the options say.
    pub fn load(options: &Options) -> Result<Self> {
        Self::load_into(options, Pins::claim(&options.bpf_fs, &options.cgroup)?)
    }

    /// As [`Kernel::load`], with pins that are locked already.
    ///
    /// # Errors
    /// As [`Kernel::load`].
    pub fn load_into(options: &Options, pins: Pins) -> Result<Self> {
        let mut guard = Guard { pins: pins.clone(), keep: options.keep, accelerator: None };
        let cgroup = cgroup::open(&options.cgroup)?;
        let types = btf::kernel()?;
        let mut found = reuse::Found::look(&pins, options)?;
        found.older.quiesce(&pins, &options.proc, LAST_READS)?;
        let options = &Options {
            ring_slots: found.ring_slots.or(options.ring_slots),
            max_connections: found.max_connections.unwrap_or(options.max_connections),
            ..options.clone()
        };
        let left = telemetry::Telemetry::is_left(&pins);
        let mut ebpf = object::load(options, &types, Some(&pins), &found.older)?;
        let every = Namespaces::new(&options.proc, None, options.walk_namespaces);
        found.older.carry(&mut ebpf, &every)?;
        found.copy(&ebpf)?;
        object::attach_steering(&mut ebpf, &cgroup, &pins)?;
        let manager = Manager::new(&ebpf)?;
        let told = (!options.manage_all).then(|| manager.clone());
        let namespaces = Namespaces::new(&options.proc, told, options.walk_namespaces);
        let telemetry = telemetry::Telemetry::new(&ebpf, namespaces.clone())?;
        let steering = Steering::new(&ebpf, options)?;
        let waypoints = Waypoints::new(&ebpf)?;
        let accelerator = Accelerator::new(&ebpf, namespaces)?;
        if found.older.is_there() {
            accelerator.all_have_left()?;
        }
        metadata::attach(&mut ebpf, &cgroup, &pins, options.waypoint_metadata)?;
        guard.accelerator = Some(accelerator.clone());
        match options.accelerate {
            Some(after) => {
                let btf = Btf::from_sys_fs().context(TYPES)?;
                accelerator.attach(&mut ebpf, &pins, &btf, after).context("--accelerate does not work here")?;
            }
            // One that a daemon before has let join.
            None => accelerator.rest()?,
        }
        let source = Source::new(&ebpf, options, telemetry.iterator(), steering.used())?;
        drop(types);
        sys::give_memory_back();
        if found.taken_over {
            tracing::info!(telemetry = left, "taken over from a meshd before");
        }
        let progress = options.progress;
        let (replaced, source) = (found.older.is_there(), Some(source));
        let mut kernel = Self {
            ebpf,
            guard,
            left,
            replaced,
            cgroup,
            progress,
            telemetry,
            source,
            manager,
            steering,
            waypoints,
            accelerator,
        };
        if left && (replaced || found.is_moving()) {
            kernel.attach_telemetry()?;
        }
        // What the programs from before wrote meanwhile.
        found.copy(&kernel.ebpf)?;
        found.forget_moved(&pins)?;
        if replaced {
            // Sockets that those saw.
            found.older.carry(&mut kernel.ebpf, &every)?;
            found.older.remove(&mut kernel.ebpf)?;
        }
        Ok(kernel)
    }

    /// Opens the memory of saved counters. What is none of ours there is removed, with a warning.
    ///
    /// # Errors
    /// There is no memory to be had, or nothing can be pinned.
    pub fn counters(&self) -> Result<Segments> {
        let pins = &self.guard.pins;
        Segments::open(pins).or_else(|error| {
            tracing::warn!("{error:#}: counters begin again");
            self.forget_counters()
        })
    }

    /// Removes saved counters, and returns memory that is empty.
    ///
    /// # Errors
    /// As [`Kernel::counters`].
    pub fn forget_counters(&self) -> Result<Segments> {
        Segments::remove(&self.guard.pins)?;
        Segments::open(&self.guard.pins)
    }

    /// Opens what switches were set to at run time.
    ///
    /// # Errors
    /// Nothing can be pinned.
    pub fn chosen(&self) -> Result<Chosen> {
        Chosen::open(&self.guard.pins)
    }

    /// Tells whether maps of another version were replaced: rings and counters of the kernel begin anew.
    pub fn replaced(&self) -> bool {
        self.replaced
    }

    /// Tells whether an earlier daemon has left telemetry attached, which has been counting since.
    pub fn telemetry_left(&self) -> bool {
        self.left
    }

    /// Loads and attaches the telemetry programs, if they are not attached already. Returns how open connections report now: by
    /// packets where the kernel has no iterator that is of use for it, with a warning.
    ///
    /// # Errors
    /// A program was refused, which is explained; then none of them is attached.
    pub fn attach_telemetry(&mut self) -> Result<Progress> {
        if let Some(progress) = self.telemetry.attached() {
            return Ok(progress);
        }
        let btf = Btf::from_sys_fs().context(TYPES)?;
        let pins = &self.guard.pins;
        let attached = self.telemetry.attach(&mut self.ebpf, &self.cgroup, pins, &btf, self.progress);
        if attached.is_err()
            && let Err(error) = self.telemetry.detach(&mut self.ebpf, pins)
        {
            tracing::warn!("{error:#}");
        }
        drop(btf);
        sys::give_memory_back();
        attached
    }

    /// Detaches and unloads the telemetry programs. What they have written stays in the maps until it is read.
    ///
    /// # Errors
    /// The settings map could not be written.
    pub fn detach_telemetry(&mut self) -> Result<()> {
        self.telemetry.detach(&mut self.ebpf, &self.guard.pins)
    }

    /// Tells how open connections report, if telemetry is attached.
    pub fn telemetry(&self) -> Option<Progress> {
        self.telemetry.attached()
    }

    /// Lists the programs that are in the kernel, in the order in which they were attached.
    pub fn loaded(&self) -> Vec<&'static str> {
        let all = object::STEERING.into_iter().chain(telemetry::ALL);
        all.filter(|name| self.ebpf.program(name).is_some_and(|program| program.fd().is_ok())).collect()
    }

    /// Hands out the one reader of records. It stays good however often telemetry is attached and detached.
    ///
    /// # Panics
    /// When called twice: a ring has one reader.
    pub fn take_source(&mut self) -> Source {
        self.source.take().expect("the source is taken once, when the record thread is built")
    }

    /// Hands out the managed namespaces. All handles share their state.
    pub fn manager(&self) -> Manager {
        self.manager.clone()
    }

    /// Hands out who adopts older connections. All handles share their state.
    pub fn adopter(&self) -> Adopter {
        self.telemetry.adopter()
    }

    /// Hands out who joins sockets. All handles share their state.
    pub fn accelerator(&self) -> Accelerator {
        self.accelerator.clone()
    }

    /// Hands out the steered services. All handles share their state.
    pub fn steering(&self) -> Steering {
        self.steering.clone()
    }

    /// Hands out the namespaces of waypoints. All handles share their state.
    pub fn waypoints(&self) -> Waypoints {
        self.waypoints.clone()
    }
}

/// Takes everything out of the kernel, or leaves it there.
struct Guard {
    pins: Pins,
    keep: bool,
    accelerator: Option<Accelerator>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        let quiet = self.accelerator.as_ref().map_or(Ok(true), |accelerator| accelerator.quiesce(LAST_READS));
        if let Err(error) = quiet.and_then(|quiet| self.pins.remove(quiet)) {
            tracing::warn!("{error:#}");
        }
    }
}
