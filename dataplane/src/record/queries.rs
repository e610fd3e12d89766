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
        let question = Answer { pieces, slot: 0, begun: false, asked: Instant::now() };
        self.0.try_send(Command::Connections(question)).ok().map(|()| answer)
    }
}

/// An answer on its way.
#[derive(Debug)]
pub(super) struct Answer {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    /// Where the next piece goes on.
    slot: usize,
    begun: bool,
    asked: Instant,
}

impl Answer {
    /// Sends the next piece if the client has taken the ones before. Tells whether it did, and whether there is more to send.
    pub(super) fn go_on<I>(&mut self, connections_from: impl FnOnce(usize) -> I) -> (bool, bool)
    where
        I: Iterator<Item = (usize, ConnectionView)>,
    {
        if self.asked.elapsed() > PATIENCE {
            // A client that reads too slowly is told that the answer is not whole, if it listens at all.
            let _ = self.pieces.try_send(Err(io::ErrorKind::TimedOut.into()));
            return (false, false);
        }
        let Ok(place) = self.pieces.try_reserve() else { return (false, !self.pieces.is_closed()) };
        let mut piece = Vec::new();
        let mut shown = 0;
        for (slot, view) in connections_from(self.slot).take(PIECE) {
            piece.extend_from_slice(if std::mem::replace(&mut self.begun, true) { b",\n" } else { b"[\n" });
            serde_json::to_writer(&mut piece, &view).expect("a view serializes, and a Vec takes all");
            self.slot = slot + 1;
            shown += 1;
        }
        let over = shown < PIECE;
        if over {
            piece.extend_from_slice(if self.begun { b"\n]\n" } else { b"[]\n" });
        }
        place.send(Ok(piece.into()));
        (true, !over)
    }
}
