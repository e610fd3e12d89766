//! The ports, bound before anything is loaded.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
};

use anyhow::{Context, bail};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};
use tokio::net::TcpListener as Listener;

use crate::cli::Run;

/// Listeners of the three ports.
#[derive(Debug)]
pub struct Ports {
    /// Metrics.
    pub metrics: Listener,
    /// Readiness.
    pub ready: Listener,
    /// Admin.
    pub admin: Listener,
}

impl Ports {
    /// Binds all three; call inside a tokio runtime.
    ///
    /// # Errors
    /// One line that names address and flag, and a port in use as such.
    pub fn bind(flags: &Run) -> anyhow::Result<Self> {
        if !flags.admin_address.ip().to_canonical().is_loopback() {
            tracing::warn!(
                address = %flags.admin_address,
                "the admin port has no authentication and --admin-address opens it to others than this host"
            );
        }
        Ok(Self {
            metrics: bound("--metrics-address", flags.metrics_address)?,
            ready: bound("--ready-address", flags.ready_address)?,
            admin: bound("--admin-address", flags.admin_address)?,
        })
    }
}

fn bound(flag: &str, address: SocketAddr) -> anyhow::Result<Listener> {
    let listener = match listener(address) {
        Ok(listener) => listener,
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            bail!("port {} is in use: {flag} {address} cannot be bound; choose another with {flag}", address.port())
        }
        Err(e) => return Err(e).with_context(|| format!("{flag} {address} cannot be bound")),
    };
    Listener::from_std(listener).with_context(|| format!("{flag} {address} cannot be served"))
}

/// `[::]` takes IPv4 too; where IPv6 is off it becomes `0.0.0.0`.
fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let any_v6 = matches!(address.ip(), IpAddr::V6(ip) if ip.is_unspecified());
    match raw_listener(address) {
        Err(e) if any_v6 && matches!(e.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
            raw_listener(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        other => other,
    }
}

fn raw_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &false)?;
    }
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrStorage::from(address))?;
    listen(&fd, Backlog::new(1024)?)?;
    Ok(TcpListener::from(fd))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpStream};

    use super::{bound, listener};

    #[test]
    fn the_unspecified_address_takes_ipv4_too() {
        let open = listener("[::]:0".parse().unwrap()).unwrap();
        let port = open.local_addr().unwrap().port();
        TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).unwrap();
    }

    #[tokio::test]
    async fn a_port_in_use_is_told_by_number_and_flag() {
        let open = listener("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = open.local_addr().unwrap();
        let text = format!("{:#}", bound("--metrics-address", address).unwrap_err());
        assert!(text.contains(&format!("port {} is in use", address.port())) && text.contains("--metrics-address"));
    }
}
