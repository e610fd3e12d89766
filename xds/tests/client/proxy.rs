//! What is between a client and its server, and can break.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Forwards connections; cuts one when its server has sent as much as is allowed.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    allowed: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts in front of a server, with a number of bytes that one connection may bring.
    pub(crate) async fn start(server: SocketAddr, allowed: usize) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let allowed = Arc::new(AtomicUsize::new(allowed));
        let shared = allowed.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let allowed = shared.load(SeqCst);
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        forward(client, server, allowed).await;
                    }
                });
            }
        });
        Self { address, allowed, task }
    }

    /// Changes what the connections opened from now on may bring.
    pub(crate) fn allow(&self, bytes: usize) {
        self.allowed.store(bytes, SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(client: TcpStream, server: TcpStream, mut allowed: usize) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(drop) };
    let down = async {
        let mut buffer = vec![0; 16 << 10];
        while allowed > 0 {
            let wanted = allowed.min(buffer.len());
            let count = from_server.read(&mut buffer[..wanted]).await?;
            if count == 0 {
                break;
            }
            to_client.write_all(&buffer[..count]).await?;
            allowed -= count;
        }
        std::io::Result::Ok(())
    };
    tokio::select! {
        _ = up => {}
        _ = down => {}
    }
}
