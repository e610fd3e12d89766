//! The cookies by which the kernel knows network namespaces.

use std::{
    fs::File,
    os::{fd::AsFd, unix::net::UnixDatagram},
    path::Path,
    thread,
};

use anyhow::{Context as _, Result};

use super::{explain, sys};

/// Returns the cookie of the network namespace that a file stands for, as `/proc/PID/ns/net` does. It never changes and is never
/// given twice.
///
/// # Errors
/// The file is no network namespace, or may not be entered (`CAP_SYS_ADMIN`).
pub fn netns_cookie(namespace: &File) -> Result<u64> {
    Ok(cookies(&[namespace])?[0])
}

/// As [`netns_cookie`], of several.
pub(super) fn cookies(namespaces: &[impl AsFd + Sync]) -> Result<Vec<u64>> {
    // Entering concerns one thread only; one of our own ends with it.
    thread::scope(|scope| {
        let entered = scope.spawn(|| {
            let enter = |namespace: &_| -> Result<u64> {
                sys::enter_netns(AsFd::as_fd(namespace))
                    .map_err(|error| explain::load(error.into(), "enter a network namespace to identify it"))?;
                current()
            };
            namespaces.iter().map(enter).collect()
        });
        entered.join().expect("nothing in that thread panics")
    })
}

/// Returns the cookie of the host's own namespace: that of the first process which `proc` shows. Where it may not be looked at, this
/// process's own is taken for it, which it is for a process with the host's network.
///
/// # Errors
/// As [`netns_cookie`].
pub fn host_netns_cookie(proc: &Path) -> Result<u64> {
    let first = proc.join("1/ns/net");
    let namespace = match File::open(&first) {
        Ok(namespace) => namespace,
        Err(error) => {
            tracing::warn!(
                "cannot look at {}, so this process's network is taken for the host's: {error}",
                first.display()
            );
            File::open("/proc/self/ns/net").context("cannot open /proc/self/ns/net")?
        }
    };
    netns_cookie(&namespace)
}

/// Returns the cookie of the calling thread's namespace.
pub(super) fn current() -> Result<u64> {
    // A socket of any family knows its namespace; this one needs no address.
    let socket = UnixDatagram::unbound().context("cannot make a socket")?;
    sys::socket_netns_cookie(socket.as_fd())
        .context("the kernel does not tell the cookie of a network namespace (Linux 5.14 and newer do)")
}
