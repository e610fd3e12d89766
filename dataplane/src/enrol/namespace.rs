//! What is known of a network namespace only inside of it.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    ifaddrs::getifaddrs,
    sched::{CloneFlags, setns},
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrLike, SockaddrStorage, socket},
};

use crate::process::Inode;

/// What a visit found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// The namespace's cookie, never used twice while the machine runs.
    pub(super) cookie: u64,
    /// Its addresses but those of loopback and link-local ones.
    pub(super) addresses: Vec<IpAddr>,
}

/// Stack of the visiting thread.
const STACK: usize = 256 << 10;

/// Enters one namespace after the other on a thread that ends afterwards, so that no thread of ours can be left in one.
pub(super) fn visit(namespaces: Vec<(Inode, io::Result<OwnedFd>)>) -> Vec<io::Result<Seen>> {
    let count = namespaces.len();
    let visitor = std::thread::Builder::new().name("netns".into()).stack_size(STACK);
    let visits = visitor.spawn(move || namespaces.into_iter().map(|(_, opened)| inside(&opened?)).collect());
    let failed = |text: &str| (0..count).map(|_| Err(io::Error::other(text))).collect();
    match visits.map(std::thread::JoinHandle::join) {
        Ok(Ok(seen)) => seen,
        Ok(Err(_)) => failed("the visiting thread panicked"),
        Err(_) => failed("no thread to visit from"),
    }
}

fn inside(namespace: &OwnedFd) -> io::Result<Seen> {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    Ok(Seen { cookie: cookie()?, addresses: addresses()? })
}

/// Returns the addresses of the namespace that the calling thread is in, but those of loopback and link-local ones.
pub(crate) fn addresses() -> io::Result<Vec<IpAddr>> {
    let all = getifaddrs()?.filter_map(|interface| ip(&interface.address?));
    let mut addresses: Vec<_> = all.filter(is_own).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    match address.family()? {
        AddressFamily::Inet => address.as_sockaddr_in().map(|a| a.ip().into()),
        AddressFamily::Inet6 => address.as_sockaddr_in6().map(|a| a.ip().into()),
        _ => None,
    }
}

fn is_own(address: &IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !address.is_loopback() && !address.is_unspecified() && !link_local
}

/// Socket option that tells the cookie of a socket's namespace (`include/uapi/asm-generic/socket.h`), since Linux 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;

fn cookie() -> io::Result<u64> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut cookie = 0_u64;
    let mut size = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes, which is what `cookie` has; the descriptor is open.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, (&raw mut cookie).cast(), &raw mut size)
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::{addresses, is_own};

    #[test]
    fn loopback_and_link_local_addresses_are_nobodys() {
        for no in ["127.0.0.1", "::1", "169.254.1.1", "fe80::1", "0.0.0.0"] {
            assert!(!is_own(&no.parse().unwrap()), "{no}");
        }
        for yes in ["10.0.0.1", "fd00::1", "2001:db8::1"] {
            assert!(is_own(&yes.parse().unwrap()), "{yes}");
        }
        assert!(addresses().unwrap().iter().all(is_own));
    }
}
