//! System calls that no library at hand makes.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd},
    time::Duration,
};

const SO_NETNS_COOKIE: libc::c_int = 71;

/// Returns the magic number of the file system that a file is on.
pub(super) fn filesystem(file: &File) -> io::Result<i64> {
    // SAFETY: zero is a valid value of every field.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and the structure is ours to be written.
    check(unsafe { libc::fstatfs(file.as_raw_fd(), &mut found) })?;
    Ok(found.f_type as i64)
}

/// Returns the cookie of the network namespace that a socket belongs to.
pub(super) fn socket_netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    let value = (&raw mut cookie).cast();
    // SAFETY: the descriptor is open; the kernel writes at most `length` bytes to `cookie`.
    check(unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, value, &mut length) })?;
    Ok(cookie)
}

/// Moves the calling thread, and it alone, into a network namespace.
pub(super) fn enter_netns(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the call touches no memory.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })
}

/// Memory of a map, shared with the kernel.
#[derive(Debug)]
pub(super) struct Mapping {
    address: *mut u8,
    length: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; who reads it takes care of order.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps part of a map.
    pub(super) fn new(fd: BorrowedFd<'_>, offset: usize, length: usize, writable: bool) -> io::Result<Self> {
        let protection = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        if address == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(Self { address: address.cast(), length })
        }
    }

    /// The mapping's first byte; valid for its length as long as it lives.
    pub(super) fn address(&self) -> *mut u8 {
        self.address
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no pointer to it outlives it.
        unsafe { libc::munmap(self.address.cast(), self.length) };
    }
}

/// Waits for wake-ups of one file, and only for these: data that is there already does not end a wait.
#[derive(Debug)]
pub(super) struct WakeUps(OwnedFd);

impl WakeUps {
    /// Begins to watch a file, which must stay open.
    pub(super) fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: the call touches no memory.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        check(epoll)?;
        // SAFETY: the kernel just made this descriptor for us alone.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
        // SAFETY: both descriptors are open, the event is read only.
        check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &mut event) })?;
        Ok(Self(epoll))
    }

    /// Waits for a wake-up, at most this long. A signal ends it too.
    pub(super) fn wait(&self, at_most: Duration) -> io::Result<()> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let milliseconds = i32::try_from(at_most.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the descriptor is open; the kernel writes at most one event.
        let waited = unsafe { libc::epoll_wait(self.0.as_fd().as_raw_fd(), &mut event, 1, milliseconds) };
        match check(waited.min(0)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other,
        }
    }
}

/// Waits until every program that runs now has ended: the kernel waits for all its readers that were at work (RCU), which programs are.
pub(super) fn wait_for_programs() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the call touches no memory.
    let waited = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if waited < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The size of a page of memory.
pub(super) fn page_size() -> usize {
    // SAFETY: the call touches no memory.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// Gives memory that is free back to the system: reading all types of the kernel takes tens of MiB for a moment.
pub(super) fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call touches only memory that is not in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn check(returned: libc::c_int) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
