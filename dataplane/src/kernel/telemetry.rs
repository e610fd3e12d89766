//! The telemetry programs, which are in the kernel only while they are wanted.

use std::{
    fs::File,
    os::fd::AsFd as _,
    sync::{Arc, Mutex, PoisonError},
};

use abi::maps::{SETTINGS, STORAGE, setting::TELEMETRY};
use anyhow::{Context as _, Result};
use aya::{
    Btf, Ebpf,
    maps::{Array, MapData},
    programs::Program,
};

use super::{
    Progress,
    adopt::{self, Adopter},
    explain, links,
    map::Handle,
    namespaces::Namespaces,
    object,
    pins::Pins,
    source,
    walk::{Form, Walker},
};

/// In the order in which they are attached: who makes entries comes after who ends them.
const PROGRAMS: [&str; 2] = ["lifecycle", "release"];
const PACKET_PROGRAMS: [&str; 2] = ["packet_ingress", "packet_egress"];
/// The program that shows open connections.
pub(super) const SNAPSHOT: Form =
    Form { storage: "snapshot", tcp: "snapshot_tcp", what: "shows open connections", tcp_since: explain::OLDEST };

/// Every one of them.
pub(super) const ALL: [&str; 7] =
    [PROGRAMS[0], PROGRAMS[1], SNAPSHOT.storage, SNAPSHOT.tcp, adopt::ITERATOR, PACKET_PROGRAMS[0], PACKET_PROGRAMS[1]];

/// Which of them are attached.
pub(super) struct Telemetry {
    settings: Array<MapData, u64>,
    storage: Handle,
    namespaces: Namespaces,
    iterator: source::Iterator,
    adopter: Adopter,
    attached: Option<Progress>,
}

impl Telemetry {
    pub(super) fn new(ebpf: &Ebpf, namespaces: Namespaces) -> Result<Self> {
        Ok(Self {
            settings: Handle::of(ebpf, SETTINGS)?.open()?,
            storage: Handle::of(ebpf, STORAGE)?,
            namespaces,
            iterator: Arc::new(Mutex::new(None)),
            adopter: Adopter::new(ebpf)?,
            attached: None,
        })
    }

    /// The slot that holds the iterator while telemetry is attached.
    pub(super) fn iterator(&self) -> source::Iterator {
        Arc::clone(&self.iterator)
    }

    /// Who searches namespaces while telemetry is attached.
    pub(super) fn adopter(&self) -> Adopter {
        self.adopter.clone()
    }

    pub(super) fn attached(&self) -> Option<Progress> {
        self.attached
    }

    /// Tells whether an earlier daemon has left it attached.
    pub(super) fn is_left(pins: &Pins) -> bool {
        PROGRAMS.iter().chain(&PACKET_PROGRAMS).any(|name| links::is_pinned(pins, name))
    }

    /// Loads and attaches everything. After an error, call `detach`.
    pub(super) fn attach(
        &mut self,
        ebpf: &mut Ebpf,
        cgroup: &File,
        pins: &Pins,
        btf: &Btf,
        wanted: Progress,
    ) -> Result<Progress> {
        for name in PROGRAMS {
            object::attach(ebpf, name, cgroup, pins)?;
        }
        let progress = match wanted {
            Progress::Packet => Progress::Packet,
            Progress::Snapshot => match self.walker(ebpf, btf) {
                Ok(walker) => {
                    *self.iterator.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(walker));
                    Progress::Snapshot
                }
                Err(error) => {
                    tracing::warn!(
                        "this kernel can not list connections, so that only those with packets report ({error:#})"
                    );
                    Progress::Packet
                }
            },
        };
        for name in PACKET_PROGRAMS {
            match progress {
                Progress::Packet => object::attach(ebpf, name, cgroup, pins)?,
                Progress::Snapshot => links::remove(pins, name).context("cannot detach what reports from packets")?,
            }
        }
        if let Err(error) = self.adopter.attach(ebpf, btf) {
            tracing::warn!("this kernel can not list TCP sockets, so that older connections are not seen ({error:#})");
        }
        self.settings.set(TELEMETRY, 1, 0).context("cannot switch the noting of connects on")?;
        self.attached = Some(progress);
        Ok(progress)
    }

    /// Detaches and unloads everything that is attached.
    pub(super) fn detach(&mut self, ebpf: &mut Ebpf, pins: &Pins) -> Result<()> {
        self.attached = None;
        self.adopter.detach();
        let settings = self.settings.set(TELEMETRY, 0, 0).context("cannot switch the noting of connects off");
        *self.iterator.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.namespaces.forget();
        for name in PACKET_PROGRAMS.iter().chain(PROGRAMS.iter().rev()).chain([
            &SNAPSHOT.storage,
            &SNAPSHOT.tcp,
            &adopt::ITERATOR,
        ]) {
            if let Err(error) = links::remove(pins, name) {
                tracing::warn!("the program {name} could not be detached: {error}");
            }
            unload(ebpf, name);
        }
        settings
    }

    fn walker(&self, ebpf: &mut Ebpf, btf: &Btf) -> Result<Walker> {
        Walker::new(ebpf, btf, SNAPSHOT, self.storage.duplicate()?.as_fd(), &self.namespaces)
    }
}

/// Takes a program out of the kernel. That it was not there is fine.
fn unload(ebpf: &mut Ebpf, name: &str) {
    let unloaded = match ebpf.program_mut(name) {
        Some(Program::CgroupSock(program)) => program.unload(),
        Some(Program::SockOps(program)) => program.unload(),
        Some(Program::CgroupSkb(program)) => program.unload(),
        Some(Program::Iter(program)) => program.unload(),
        _ => Ok(()),
    };
    if let Err(error) = unloaded
        && !matches!(error, aya::programs::ProgramError::NotLoaded)
    {
        tracing::warn!("the program {name} could not be unloaded: {error}");
    }
}
