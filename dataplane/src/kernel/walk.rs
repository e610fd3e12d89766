//! Walks over all sockets that have storage.
//!
//! As a rule one walk over the storage itself is over all of them. Hardened kernels let no program walk over the elements of a map; there the
//! TCP sockets of one network namespace after the other are walked over ([`Namespaces`]).

use std::{
    fs::File,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
    thread,
    time::Duration,
};

use abi::maps::{SETTINGS, setting::VISITED};
use anyhow::{Context as _, Result};
use aya::{
    Btf, Ebpf,
    maps::{Array, MapData},
    programs::{Iter, ProgramError},
};

use super::{
    bpf, explain,
    map::Handle,
    namespaces::{Namespace, Namespaces},
    sys,
};

/// How many walks are begun at a time: each is an open file.
const BEGUN: usize = 64;
/// How long namespaces are known, where that they are looked for anew with each walk would be too often.
const KNOWN: Duration = Duration::from_secs(1);

/// The settings map.
pub(super) type Settings = Array<MapData, u64>;

/// One program that walks over sockets with storage, in its two forms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// The one that walks over socket storage.
    pub(super) storage: &'static str,
    /// The one that walks over the TCP sockets of a namespace.
    pub(super) tcp: &'static str,
    /// What it does, for people.
    pub(super) what: &'static str,
    /// The oldest kernel that may walk over TCP sockets with it.
    pub(super) tcp_since: (u32, u32),
}

/// A program that is ready to walk.
#[derive(Debug)]
pub(super) struct Walker {
    link: OwnedFd,
    over: Option<Namespaces>,
}

impl Walker {
    /// Loads a program and ties it to a storage map: to that itself where the kernel has it, else to the namespaces.
    pub(super) fn new(
        ebpf: &mut Ebpf,
        btf: &Btf,
        form: Form,
        storage: BorrowedFd<'_>,
        namespaces: &Namespaces,
    ) -> Result<Self> {
        if !namespaces.instead() {
            match over_storage(ebpf, btf, form, storage) {
                Ok(link) => return Ok(Self { link, over: None }),
                Err(error) => {
                    tracing::info!("{error:#}: the sockets of one network namespace after the other are walked over");
                }
            }
        }
        load_tcp(ebpf, btf, form)?;
        let program: &Iter = ebpf.program(form.tcp).context("it was loaded just now")?.try_into()?;
        let link = bpf::link_iterator(program.fd()?.as_fd(), None)
            .map_err(|error| explain::load(error.into(), "link an iterator over TCP sockets"))?;
        Ok(Self { link, over: Some(namespaces.clone()) })
    }

    /// Takes a link for a walker that another process has made one of.
    pub(super) fn of(link: OwnedFd, over: Option<Namespaces>) -> Self {
        Self { link, over }
    }

    /// The name under which it is in the kernel.
    pub(super) fn name(&self, form: Form) -> &'static str {
        if self.over.is_some() { form.tcp } else { form.storage }
    }

    /// Its link.
    pub(super) fn link(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }

    /// Begins what together is over every socket.
    pub(super) fn begin(self: &Arc<Self>) -> Result<Walks> {
        let begun = match &self.over {
            None => vec![Begun { walk: begin(&self.link)?, namespace: None }],
            Some(_) => Vec::new(),
        };
        let left = self.over.as_ref().map_or_else(|| Ok(Vec::new()), |namespaces| namespaces.list(Duration::ZERO))?;
        Ok(Walks { walker: Arc::clone(self), begun, left })
    }

    /// Walks over every socket with a program that never asks to stop.
    pub(super) fn iterate(&self, settings: &mut Settings) -> Result<()> {
        const WHAT: &str = "cannot iterate over sockets";
        let Some(namespaces) = &self.over else { return bpf::iterate(self.link.as_fd()).context(WHAT) };
        let all = namespaces.list(KNOWN)?;
        inside(|| {
            for namespace in &all {
                settings.set(VISITED, 0, 0).context(WHAT)?;
                sys::enter_netns(namespace.file()).context("cannot enter a network namespace")?;
                bpf::iterate(self.link.as_fd()).context(WHAT)?;
                namespace.walked(settings.get(&VISITED, 0).context(WHAT)? != 0);
            }
            Ok(())
        })
    }
}

/// Walks that together are over every socket, one after the other.
#[derive(Debug)]
pub(super) struct Walks {
    walker: Arc<Walker>,
    /// The last one is under way.
    begun: Vec<Begun>,
    left: Vec<Arc<Namespace>>,
}

#[derive(Debug)]
struct Begun {
    walk: File,
    namespace: Option<Arc<Namespace>>,
}

impl Walks {
    /// Returns the walk that is under way, to be read to its end; none once all are over.
    pub(super) fn under_way(&mut self) -> Result<Option<&mut File>> {
        if self.begun.is_empty() {
            let next = self.left.split_off(self.left.len().saturating_sub(BEGUN));
            self.begun = inside(|| next.into_iter().map(|namespace| self.walker.enter(namespace)).collect())?;
        }
        Ok(self.begun.last_mut().map(|begun| &mut begun.walk))
    }

    /// Begins the walk under way again.
    pub(super) fn again(&mut self) -> Result<()> {
        let Some(Begun { namespace, .. }) = self.begun.pop() else { return Ok(()) };
        self.begun.push(match namespace {
            Some(namespace) => inside(|| self.walker.enter(namespace))?,
            None => Begun { walk: begin(&self.walker.link)?, namespace: None },
        });
        Ok(())
    }

    /// Notes that the walk under way has come to its end, and tells whether it was the last.
    pub(super) fn over(&mut self, settings: &mut Settings) -> Result<bool> {
        const WHAT: &str = "cannot tell whether a namespace is used";
        if let Some(Begun { namespace: Some(namespace), .. }) = self.begun.pop() {
            namespace.walked(settings.get(&VISITED, 0).context(WHAT)? != 0);
            settings.set(VISITED, 0, 0).context(WHAT)?;
        }
        Ok(self.begun.is_empty() && self.left.is_empty())
    }
}

impl Walker {
    /// Begins a walk over a namespace, in the calling thread, which has entered it then.
    fn enter(&self, namespace: Arc<Namespace>) -> Result<Begun> {
        sys::enter_netns(namespace.file()).context("cannot enter a network namespace")?;
        Ok(Begun { walk: begin(&self.link)?, namespace: Some(namespace) })
    }
}

fn begin(link: &OwnedFd) -> Result<File> {
    bpf::begin_iteration(link.as_fd()).context("cannot begin to iterate over sockets")
}

/// Does something that enters namespaces: that concerns one thread only, and one of our own ends with it.
fn inside<T: Send>(what: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(what).join().expect("nothing in that thread panics"))
}

fn over_storage(ebpf: &mut Ebpf, btf: &Btf, form: Form, storage: BorrowedFd<'_>) -> Result<OwnedFd> {
    load_storage(ebpf, btf, form)?;
    let program: &Iter = ebpf.program(form.storage).context("it was loaded just now")?.try_into()?;
    bpf::link_iterator(program.fd()?.as_fd(), Some(storage))
        .map_err(|error| explain::load(error.into(), "tie an iterator to the socket storage"))
}

/// Loads the form that walks over socket storage.
pub(super) fn load_storage(ebpf: &mut Ebpf, btf: &Btf, form: Form) -> Result<()> {
    load(
        ebpf,
        btf,
        form.storage,
        "bpf_sk_storage_map",
        &format!("load the iterator over socket storage that {}", form.what),
    )
}

/// Loads the form that walks over TCP sockets.
pub(super) fn load_tcp(ebpf: &mut Ebpf, btf: &Btf, form: Form) -> Result<()> {
    let (release, version) = explain::kernel_version();
    let (major, minor) = form.tcp_since;
    anyhow::ensure!(
        version.is_none_or(|version| version >= form.tcp_since),
        "Linux {release} is older than {major}.{minor}: it cannot walk over TCP sockets with what {}",
        form.what
    );
    load(ebpf, btf, form.tcp, "tcp", &format!("load the iterator over TCP sockets that {}", form.what))
}

fn load(ebpf: &mut Ebpf, btf: &Btf, name: &str, target: &str, what: &str) -> Result<()> {
    let program: &mut Iter =
        ebpf.program_mut(name).with_context(|| format!("there is no program {name}"))?.try_into()?;
    match program.load(target, btf) {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(()),
        Err(error) => Err(explain::load(error.into(), what)),
    }
}

/// Takes a form out of the kernel. That it was not there is fine.
pub(super) fn unload(ebpf: &mut Ebpf, name: &str) -> Result<()> {
    let program: &mut Iter =
        ebpf.program_mut(name).with_context(|| format!("there is no program {name}"))?.try_into()?;
    match program.unload() {
        Ok(()) | Err(ProgramError::NotLoaded) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot unload the program {name}")),
    }
}

/// Opens the settings map.
pub(super) fn settings(ebpf: &Ebpf) -> Result<Settings> {
    Handle::of(ebpf, SETTINGS)?.open()
}
