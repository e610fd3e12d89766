//! Response bodies written by a thread, chunk by chunk, as fast as the client reads.

use std::{
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use hyper::body::Frame;
use tokio::{
    runtime::Handle,
    sync::mpsc,
    time::{Instant, timeout_at},
};

/// How long a client may take to read all of one response.
const RESPONSE: Duration = Duration::from_secs(60);
/// How long a client may take to read as much as a chunk.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes that go to the connection at once.
const CHUNK: usize = 64 << 10;
/// Chunks that wait for a slow client.
const QUEUE: usize = 2;

/// Returns a body that `write` writes on a thread of its own; it is broken off where `write` fails, so that the client
/// knows that it is not whole.
pub(super) fn streamed(write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static) -> Body {
    let (sender, chunks) = mpsc::channel(QUEUE);
    let mut out = Chunks { sender, runtime: Handle::current(), deadline: Instant::now() + RESPONSE, chunk: Vec::new() };
    tokio::task::spawn_blocking(move || {
        if let Err(error) = write(&mut out).and_then(|()| out.flush()) {
            tracing::debug!(%error, "a response ended early");
            // The error takes the place of the next chunk; a client that is gone needs none.
            let _ = out.sender.blocking_send(Err(error));
        }
    });
    Body::new(Chunked(chunks))
}

/// Where the thread writes to: it waits for the client, until the deadline.
struct Chunks {
    sender: mpsc::Sender<io::Result<Bytes>>,
    runtime: Handle,
    deadline: Instant,
    chunk: Vec<u8>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.chunk.capacity() == 0 {
            self.chunk.reserve(CHUNK);
        }
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == CHUNK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut self.chunk));
        let deadline = self.deadline.min(Instant::now() + PATIENCE);
        match self.runtime.block_on(timeout_at(deadline, self.sender.send(Ok(chunk)))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly")),
        }
    }
}

/// A body that ends when its writer does.
pub(super) struct Chunked(pub(super) mpsc::Receiver<io::Result<Bytes>>);

impl hyper::body::Body for Chunked {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }
}
