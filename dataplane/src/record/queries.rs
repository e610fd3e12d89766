//! Questions that others ask the record thread, answered piece by piece between records.

use std::{
    io,
    sync::mpsc::SyncSender,
    time::{Duration, Instant},
};

use axum::body::Bytes;
use telemetry::ConnectionView;
use tokio::sync::mpsc;

use super::{Command, Handle};

/// Connections that one piece of an answer shows.
const PIECE: usize = 128;
/// Pieces that wait for a slow client.
const QUEUE: usize = 4;
/// How long an answer may take altogether.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks the record thread.
#[derive(Clone, Debug)]
pub struct Queries(SyncSender<Command>);

impl Queries {
    /// Asks by way of a handle.
    pub fn new(handle: &Handle) -> Self {
        Self(handle.commands.clone())
    }

    /// Asks nobody: no question has an answer.
    pub fn closed() -> Self {
        Self(std::sync::mpsc::sync_channel(1).0)
    }

    /// Returns the live connections as a JSON array in pieces; nothing if too many questions wait already.
    pub fn connections(&self) -> Option<mpsc::Receiver<io::Result<Bytes>>> {
        let (pieces, answer) = mpsc::channel(QUEUE);
        let question = Answer { pieces, shown: 0, begun: Instant::now() };
        self.0.try_send(Command::Connections(question)).ok().map(|()| answer)
    }
}

/// An answer on its way.
#[derive(Debug)]
pub(super) struct Answer {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    /// Connections shown so far.
    shown: usize,
    begun: Instant,
}

impl Answer {
    /// Sends the next piece if the client has taken the ones before. Tells whether it did, and whether there is more to send.
    pub(super) fn go_on<I: Iterator<Item = ConnectionView>>(
        &mut self,
        connections: impl FnOnce() -> I,
    ) -> (bool, bool) {
        if self.begun.elapsed() > PATIENCE {
            // A client that reads too slowly is told that the answer is not whole, if it listens at all.
            let _ = self.pieces.try_send(Err(io::ErrorKind::TimedOut.into()));
            return (false, false);
        }
        let Ok(place) = self.pieces.try_reserve() else { return (false, !self.pieces.is_closed()) };
        let mut piece = if self.shown == 0 { b"[".to_vec() } else { Vec::new() };
        let mut rest = connections().skip(self.shown);
        for view in rest.by_ref().take(PIECE) {
            piece.extend_from_slice(if self.shown == 0 { b"\n" } else { b",\n" });
            serde_json::to_writer(&mut piece, &view).expect("a view serializes, and a Vec takes all");
            self.shown += 1;
        }
        let over = rest.next().is_none();
        if over {
            piece.extend_from_slice(b"\n]\n");
        }
        place.send(Ok(piece.into()));
        (true, !over)
    }
}
