//! What outlives the process: links, maps and saved numbers, by names in the bpf file system.
//!
//! Everything of one cgroup is in `meshd/<cgroup id>`: `links/<program>`, `maps-<version>/<MAP>`, `counters/<n>`, `switches`. The directory is
//! locked by the one daemon that serves the cgroup. A program that ends without a word leaves it all, attached and counting; who starts next takes it over.

mod mount;

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use abi::maps::{SETTINGS, SOCKETS};
use anyhow::{Context as _, Result, bail};
use aya::maps::MapData;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::{accelerate, bpf, cgroup};

/// Below the bpf file system.
const OURS: &str = "meshd";
const LINKS: &str = "links";
const MAPS: &str = "maps-";
const COUNTERS: &str = "counters";
/// Between a map's name and a number.
const MOVED: &str = "-moved-";
const SWITCHES: &str = "switches";
/// How long one daemon may look at the pins of another at most.
const LOOKED_AT: Duration = Duration::from_secs(1);

/// The pins of one cgroup, locked. All handles share the lock; the last one gives it back.
#[derive(Clone, Debug)]
pub struct Pins(Arc<Claimed>);

#[derive(Debug)]
struct Claimed {
    directory: PathBuf,
    cgroup: u64,
    _lock: Flock<File>,
}

impl Pins {
    /// Locks the pins of a cgroup, and removes those of cgroups that are gone. `bpf_fs` is where the bpf file system is, or is to be
    /// mounted.
    ///
    /// # Errors
    /// Another daemon serves the cgroup, there is no such cgroup, or nothing can be pinned there.
    pub fn claim(bpf_fs: &Path, cgroup: &Path) -> Result<Self> {
        let id = id_of(cgroup)?;
        mount::ensure(bpf_fs)?;
        let ours = bpf_fs.join(OURS);
        let directory = ours.join(id.to_string());
        let begin = Instant::now();
        let lock = loop {
            fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
            match lock(&directory) {
                Ok(Some(lock)) => break lock,
                // It was removed between two calls.
                Ok(None) => {}
                // Others that start look for a moment whether it was left behind.
                Err(Errno::EWOULDBLOCK) if begin.elapsed() < LOOKED_AT => pause(),
                Err(Errno::EWOULDBLOCK) => bail!(
                    "another meshd serves the cgroup {} ({} is locked): end it first",
                    cgroup.display(),
                    directory.display()
                ),
                Err(errno) => return Err(errno).with_context(|| format!("cannot lock {}", directory.display())),
            }
        };
        let pins = Self(Arc::new(Claimed { directory, cgroup: id, _lock: lock }));
        for name in [LINKS.to_owned(), maps_of(abi::maps::VERSION)] {
            let path = pins.0.directory.join(name);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        remove_stale(&ours, id);
        Ok(pins)
    }

    /// Finds and locks the pins of a cgroup, if there are any; makes nothing.
    ///
    /// # Errors
    /// As [`Pins::claim`].
    pub fn find(bpf_fs: &Path, cgroup: &Path) -> Result<Option<Self>> {
        let is_there = mount::is_mounted(bpf_fs) && bpf_fs.join(OURS).join(id_of(cgroup)?.to_string()).is_dir();
        if is_there { Self::claim(bpf_fs, cgroup).map(Some) } else { Ok(None) }
    }

    /// Detaches every program that is pinned, and removes all pins. Sockets that have joined stay so unless what came beside TCP is known
    /// to have been read (`quiet`): they go by TCP, and the pin of their map by the next start or removal.
    ///
    /// # Errors
    /// Names what could not be removed.
    pub(super) fn remove(&self, quiet: bool) -> Result<()> {
        let sockets = self.map(SOCKETS);
        if !quiet {
            tracing::warn!(
                "programs have not read all that came beside TCP: {} stays until they have",
                sockets.display()
            );
        }
        let kept = (!quiet).then_some(sockets);
        remove(&self.0.directory, kept.as_deref())
            .with_context(|| format!("cannot remove {}", self.0.directory.display()))
    }

    /// As [`Pins::remove`], after waiting for what came beside TCP to be read. `proc` shows the host's processes.
    ///
    /// # Errors
    /// As [`Pins::remove`], or the kernel refused to tell.
    pub fn uninstall(&self, proc: &Path, deadline: Duration) -> Result<()> {
        self.remove(accelerate::quiesce_left(self, &self.map(SETTINGS), proc, deadline)?)
    }

    /// The id of the cgroup.
    pub(super) fn cgroup(&self) -> u64 {
        self.0.cgroup
    }

    /// Where the link of a program is pinned.
    pub(super) fn link(&self, program: &str) -> PathBuf {
        self.0.directory.join(LINKS).join(program)
    }

    /// Where a map is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.0.directory.join(maps_of(abi::maps::VERSION)).join(name)
    }

    /// Makes room where a map is pinned: it has another name until [`Pins::remove_moved`]. (Renaming is among what is given up at start.)
    pub(super) fn move_map(&self, name: &str, map: &MapData) -> Result<()> {
        let free = (0..).map(|n| self.map(&format!("{name}{MOVED}{n}"))).find(|path| !path.exists());
        map.pin(free.context("numbers have no end")?)?;
        Ok(fs::remove_file(self.map(name))?)
    }

    /// Lists the maps that had this name and were moved: more than one where daemons were killed before they had taken over.
    pub(super) fn moved_maps(&self, name: &str) -> Vec<PathBuf> {
        let moved = (0..).map(|n| self.map(&format!("{name}{MOVED}{n}")));
        moved.take_while(|path| path.exists()).collect()
    }

    /// Unpins the maps that had this name and were moved, the last one first, so that there never is a gap in their numbers.
    pub(super) fn remove_moved(&self, name: &str) -> io::Result<()> {
        self.moved_maps(name).iter().rev().try_for_each(fs::remove_file)
    }

    /// Where saved counters are pinned.
    pub(super) fn counters(&self) -> PathBuf {
        self.0.directory.join(COUNTERS)
    }

    /// Where switches are pinned that were set at run time.
    pub(super) fn switches(&self) -> PathBuf {
        self.0.directory.join(SWITCHES)
    }

    /// Lists the maps of other versions: directories.
    pub(super) fn other_maps(&self) -> Vec<PathBuf> {
        let own = maps_of(abi::maps::VERSION);
        entries(&self.0.directory)
            .filter(|path| {
                path.file_name().and_then(|name| name.to_str()).is_some_and(|n| n.starts_with(MAPS) && n != own)
            })
            .collect()
    }

    /// Unpins everything in a directory but what is kept, and the directory if that is nothing.
    pub(super) fn remove_directory(path: &Path, kept: Option<&Path>) -> io::Result<()> {
        remove(path, kept)
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        // Only what is empty can be removed like this.
        for path in entries(&self.directory).collect::<Vec<_>>() {
            _ = fs::remove_dir(path);
        }
        if fs::remove_dir(&self.directory).is_ok() {
            self.directory.parent().map(fs::remove_dir);
        }
    }
}

fn maps_of(version: u32) -> String {
    format!("{MAPS}{version}")
}

#[expect(clippy::disallowed_methods, reason = "the kernel has no lock that is waited for, for so long")]
fn pause() {
    thread::sleep(Duration::from_millis(10));
}

/// The id by which the kernel knows a cgroup: the inode of its directory.
fn id_of(cgroup: &Path) -> Result<u64> {
    let file = cgroup::open(cgroup)?;
    Ok(file.metadata().with_context(|| format!("cannot examine {}", cgroup.display()))?.ino())
}

/// Locks a directory; nothing if it is not that path's any more.
fn lock(path: &Path) -> Result<Option<Flock<File>>, Errno> {
    let opened = match File::open(path) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Errno::try_from(error).unwrap_or(Errno::EIO)),
    };
    let lock = Flock::lock(opened, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
    let same = fs::metadata(path).is_ok_and(|now| lock.metadata().is_ok_and(|locked| locked.ino() == now.ino()));
    Ok(same.then_some(lock))
}

/// Removes the pins of cgroups that are gone: nobody has locked them, and no link of theirs is attached any more.
fn remove_stale(ours: &Path, own: u64) {
    for directory in entries(ours).collect::<Vec<_>>() {
        let id = directory.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
        let Some(id) = id.filter(|id| *id != own) else { continue };
        let Ok(Some(_lock)) = lock(&directory) else { continue };
        if entries(&directory.join(LINKS)).any(|link| is_attached(&link, id)) {
            continue;
        }
        match remove(&directory, None) {
            Ok(()) => tracing::info!(cgroup = id, "what a meshd left for a cgroup that is gone was removed"),
            Err(error) => tracing::warn!("{} cannot be removed: {error}", directory.display()),
        }
    }
}

fn is_attached(link: &Path, cgroup: u64) -> bool {
    bpf::get(link).ok().and_then(|link| bpf::cgroup_of(link.as_fd())).is_some_and(|(id, _)| id == cgroup)
}

/// Removes a directory of pins but for one, links first: what is attached is detached before what it works with goes.
fn remove(path: &Path, kept: Option<&Path>) -> io::Result<()> {
    let mut below: Vec<_> = entries(path).collect();
    below.sort_by_key(|path| !path.ends_with(LINKS));
    for path in below {
        if path.is_dir() {
            remove(&path, kept)?;
        } else if kept != Some(&path) {
            if path.parent().is_some_and(|parent| parent.ends_with(LINKS))
                && let Ok(link) = bpf::get(&path)
            {
                // One that is detached already is as good.
                _ = bpf::detach(link.as_fd());
            }
            fs::remove_file(&path)?;
        }
    }
    match fs::remove_dir(path) {
        Err(error)
            if error.kind() == io::ErrorKind::DirectoryNotEmpty && kept.is_some_and(|kept| kept.starts_with(path)) =>
        {
            Ok(())
        }
        removed => removed,
    }
}

fn entries(path: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path())
}
