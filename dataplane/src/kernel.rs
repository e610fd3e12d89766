//! The kernel programs of this node: loaded, attached, their maps written, their records read.
//!
//! [`Kernel`] owns programs and links. Everything is attached by links that belong to file descriptors, so that nothing stays in the
//! kernel when the process ends, however it ends. What other parts of the program need of the maps they get as handles of their own:
//! [`Manager`] (which namespaces), [`Steering`] (which services), [`Source`] (records and counters).

mod btf;
mod cgroup;
mod explain;
mod manager;
mod map;
mod netns;
mod object;
mod probe;
mod ring;
mod snapshot;
mod source;
mod steering;
mod sys;
mod telemetry;

use std::{path::PathBuf, time::Duration};

use abi::maps as sizes;
use anyhow::{Context as _, Result};
use aya::{Btf, Ebpf};

pub use self::{
    cgroup::find_cgroup_root,
    manager::{Enrolled, Manager},
    map::MapError,
    netns::{host_netns_cookie, netns_cookie},
    probe::{Check, probe},
    snapshot::Snapshot,
    source::{Source, Usage},
    steering::Steering,
};

/// How open connections report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// User space pulls the totals of all of them; no program runs per packet.
    Snapshot,
    /// Their packets report them; idle ones are not seen.
    Packet,
}

/// What the programs are loaded with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cgroup v2 directory to attach to; what runs in it and below it is seen.
    pub cgroup: PathBuf,
    /// Where the host's processes are seen: `/proc`, or a mount of the host's.
    pub proc: PathBuf,
    /// How open connections report.
    pub progress: Progress,
    /// Least time between two progress records of one connection with [`Progress::Packet`].
    pub report_interval: Duration,
    /// Every namespace but the host's own is managed.
    pub manage_all: bool,
    /// Connections whose end can wait aside while the ring is full. (Socket storage itself needs no limit: it is part of its socket.)
    pub max_connections: u32,
    /// Service addresses and ports that can be steered.
    pub max_services: u32,
    /// Endpoints of all services together.
    pub max_endpoints: u32,
    /// Bytes of the ring, a power of two of at least a page.
    pub ring_bytes: u32,
}

impl Default for Options {
    /// The sizes of `abi::maps`, snapshots, five seconds, and no cgroup: that must be given.
    fn default() -> Self {
        Self {
            cgroup: PathBuf::new(),
            proc: PathBuf::from("/proc"),
            progress: Progress::Snapshot,
            report_interval: Duration::from_secs(5),
            manage_all: false,
            max_connections: sizes::ASIDE_ENTRIES,
            max_services: sizes::SERVICE_ENTRIES,
            max_endpoints: sizes::ENDPOINT_ENTRIES,
            ring_bytes: sizes::RING_BYTES,
        }
    }
}

/// The programs and what holds them in the kernel. Dropping it takes everything out.
pub struct Kernel {
    ebpf: Ebpf,
    cgroup: std::fs::File,
    progress: Progress,
    telemetry: telemetry::Telemetry,
    source: Option<Source>,
    manager: Manager,
    steering: Steering,
}

impl Kernel {
    /// Tells what would keep [`Kernel::load`] from working, before anything is done.
    ///
    /// # Errors
    /// Names the rights that are missing, or says what is wrong with the cgroup directory.
    pub fn check(options: &Options) -> Result<()> {
        probe::rights()?;
        cgroup::open(&options.cgroup).map(drop)
    }

    /// Makes the maps, and loads and attaches the steering programs.
    ///
    /// # Errors
    /// Says what is missing: rights, a cgroup v2 directory, kernel types, a newer kernel. Nothing is left attached then.
    pub fn load(options: &Options) -> Result<Self> {
        let cgroup = cgroup::open(&options.cgroup)?;
        let types = btf::kernel()?;
        let mut ebpf = object::load(options, &types)?;
        object::attach_steering(&mut ebpf, &cgroup)?;
        let telemetry = telemetry::Telemetry::new(&ebpf)?;
        let manager = Manager::new(&ebpf)?;
        let steering = Steering::new(&ebpf, options)?;
        let source = Source::new(&ebpf, options, telemetry.iterator(), steering.used())?;
        drop(types);
        sys::give_memory_back();
        Ok(Self { ebpf, cgroup, progress: options.progress, telemetry, source: Some(source), manager, steering })
    }

    /// Loads and attaches the telemetry programs, if they are not attached already. Returns how open connections report now: by
    /// packets where the kernel has no iterator over socket storage, with a warning.
    ///
    /// # Errors
    /// A program was refused, which is explained; then none of them is attached.
    pub fn attach_telemetry(&mut self) -> Result<Progress> {
        if let Some(progress) = self.telemetry.attached() {
            return Ok(progress);
        }
        let btf = Btf::from_sys_fs().context("cannot read the kernel's types, /sys/kernel/btf/vmlinux")?;
        let attached = self.telemetry.attach(&mut self.ebpf, &self.cgroup, &btf, self.progress);
        if attached.is_err()
            && let Err(error) = self.telemetry.detach(&mut self.ebpf)
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
        self.telemetry.detach(&mut self.ebpf)
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

    /// Hands out the steered services. All handles share their state.
    pub fn steering(&self) -> Steering {
        self.steering.clone()
    }
}
