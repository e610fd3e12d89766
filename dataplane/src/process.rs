//! Network namespaces as the processes under /proc show them.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, open, openat, readlinkat},
    sys::stat::{Mode, fstat},
};
use rustc_hash::FxHashMap;

/// A network namespace while it lives: the inode behind `/proc/PID/ns/net`. It is used again once the namespace is gone.
pub(crate) type Inode = u64;

/// The processes of the host.
#[derive(Debug)]
pub(crate) struct Processes {
    root: PathBuf,
    directory: OwnedFd,
}

/// What one look at all processes gave.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Some process of each namespace.
    pub(crate) namespaces: FxHashMap<Inode, u32>,
    /// Processes whose namespace we may not see.
    pub(crate) denied: usize,
}

/// A process that keeps a namespace alive. The descriptor stands for the process, not for its number, so that another
/// process of the same number is never taken for it.
#[derive(Debug)]
pub(crate) struct Holder {
    directory: OwnedFd,
    inode: Inode,
}

impl Processes {
    /// Opens a mounted proc file system.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let directory = open(root, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Self { root: root.to_owned(), directory })
    }

    /// Returns the namespace of the host's first process.
    pub(crate) fn host(&self) -> io::Result<Inode> {
        namespace_of(&self.directory, "1/ns/net")
    }

    /// Looks at every process. A process that ends meanwhile, or is a zombie, has no namespace.
    pub(crate) fn look(&self) -> io::Result<Found> {
        let mut found = Found::default();
        let mut link = String::new();
        for entry in std::fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            link.clear();
            link.extend([name.to_str().unwrap_or_default(), "/ns/net"]);
            match namespace_of(&self.directory, &link) {
                Ok(inode) => drop(found.namespaces.entry(inode).or_insert(pid)),
                // The first process is the host's own, whose namespace is never a pod's.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && pid != 1 => found.denied += 1,
                Err(_) => {}
            }
        }
        Ok(found)
    }

    /// Takes hold of a process that was seen in a namespace; an error if it has left it.
    pub(crate) fn holder(&self, pid: u32, inode: Inode) -> io::Result<Holder> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = openat(&self.directory, pid.to_string().as_str(), flags, Mode::empty())?;
        let holder = Holder { directory, inode };
        if holder.holds() { Ok(holder) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

impl Holder {
    /// Tells whether the process still lives in the namespace.
    pub(crate) fn holds(&self) -> bool {
        namespace_of(&self.directory, "ns/net").is_ok_and(|inode| inode == self.inode)
    }

    /// Opens the namespace, to enter it.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        let namespace = openat(&self.directory, "ns/net", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        if fstat(&namespace)?.st_ino == self.inode { Ok(namespace) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

/// Returns the namespace of the calling thread.
pub(crate) fn own() -> io::Result<Inode> {
    let own = open("/proc/thread-self", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    namespace_of(&own, "ns/net")
}

/// Reads a link such as `net:[4026531840]`.
fn namespace_of(directory: impl AsFd, link: &str) -> io::Result<Inode> {
    let text = readlinkat(directory, link)?;
    let inode = text.to_str().and_then(|text| text.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok());
    inode.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use super::Processes;

    /// Adds a process to a made-up proc tree.
    pub(crate) fn process(root: &Path, pid: u32, inode: u64) {
        let ns = root.join(pid.to_string()).join("ns");
        fs::create_dir_all(&ns).unwrap();
        symlink(format!("net:[{inode}]"), ns.join("net")).unwrap();
    }

    #[test]
    fn each_namespace_is_found_once_and_odd_entries_are_passed_over() {
        let root = tempfile::tempdir().unwrap();
        process(root.path(), 1, 100);
        process(root.path(), 20, 200);
        process(root.path(), 21, 200);
        fs::create_dir_all(root.path().join("30")).unwrap();
        fs::create_dir_all(root.path().join("self")).unwrap();
        fs::write(root.path().join("meminfo"), "").unwrap();
        let processes = Processes::open(root.path()).unwrap();
        let found = processes.look().unwrap();
        let mut inodes: Vec<_> = found.namespaces.keys().copied().collect();
        inodes.sort_unstable();
        assert_eq!((inodes, found.denied), (vec![100, 200], 0));
        assert_eq!(processes.host().unwrap(), 100);
    }

    #[test]
    fn a_process_of_the_same_number_is_not_taken_for_the_one_that_ended() {
        let root = tempfile::tempdir().unwrap();
        process(root.path(), 20, 200);
        let processes = Processes::open(root.path()).unwrap();
        let holder = processes.holder(20, 200).unwrap();
        assert!(holder.holds());
        fs::remove_dir_all(root.path().join("20")).unwrap();
        process(root.path(), 20, 200);
        assert!(!holder.holds());
        assert!(processes.holder(20, 201).is_err(), "it is in another namespace");
    }
}
