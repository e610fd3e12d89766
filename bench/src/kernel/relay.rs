//! What a sidecar does at the least: it takes connections that were redirected to it, opens each again to where it was meant to go, and
//! carries bytes both ways. One thread and one poll for all of them, as an Envoy of one worker has it; no TLS, no HTTP, no policy.

use std::{io, net::Ipv4Addr, thread};

use anyhow::{Context as _, Result};
use socket2::SockRef;
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpSocket, TcpStream},
};
use tokio_util::task::TaskTracker;

/// The mark of the relay's own connections, by which they are not redirected once more.
pub const MARK: u32 = 0x6d;
const BUFFER: usize = 64 << 10;

/// Begins to relay what comes to a port, on a thread of its own, until the process ends.
pub fn start(port: u16) -> Result<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)));
    let listener = listener.with_context(|| format!("listening on {port}"))?;
    thread::Builder::new().name("relay".to_owned()).spawn(move || {
        runtime.block_on(async {
            let relayed = TaskTracker::new();
            while let Ok((stream, _)) = listener.accept().await {
                // What fails here fails at the client too, which tells.
                relayed.spawn(relay(stream));
            }
        });
    })?;
    Ok(0)
}

async fn relay(mut from: TcpStream) -> io::Result<()> {
    let meant = SockRef::from(&from).original_dst_v4()?.as_socket();
    let socket = TcpSocket::new_v4()?;
    SockRef::from(&socket).set_mark(MARK)?;
    let mut to = socket.connect(meant.ok_or(io::ErrorKind::AddrNotAvailable)?).await?;
    from.set_nodelay(true)?;
    to.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut from, &mut to, BUFFER, BUFFER).await.map(drop)
}
