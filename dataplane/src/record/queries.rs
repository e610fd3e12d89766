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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use telemetry::ConnectionView;
    use tokio::sync::mpsc;

    use super::{Answer, PIECE, QUEUE};

    fn view(cookie: u64) -> ConnectionView {
        let nowhere = "0.0.0.0:0".parse().unwrap();
        ConnectionView {
            cookie,
            netns: 0,
            direction: "OUTBOUND",
            state: "ESTABLISHED",
            local: nowhere,
            remote: nowhere,
            original: None,
            adopted: false,
            start_time: String::new(),
            age_ms: 0,
            reported_ms_ago: 0,
            ignored: None,
            source: None,
            destination: None,
            service: None,
            waypoint: false,
            sent_bytes: 0,
            received_bytes: 0,
            retransmissions: 0,
            packet_loss: 0,
            segments_in: 0,
            segments_out: 0,
            srtt_us: 0,
            rttvar_us: 0,
            min_rtt_us: 0,
            mss: 0,
            cwnd: 0,
            error: 0,
            flags: 0,
        }
    }

    /// The cookies that an answer over these slots shows, and in how many pieces.
    fn shown(slots: &[Option<u64>]) -> (Vec<u64>, usize) {
        let (pieces, mut answer) = mpsc::channel(QUEUE);
        let mut question = Answer { pieces, slot: 0, begun: false, asked: Instant::now() };
        let from = |slot: usize| {
            let live = slots.iter().enumerate().skip(slot);
            live.filter_map(|(slot, cookie)| cookie.map(|cookie| (slot, view(cookie))))
        };
        let (mut text, mut count) = (Vec::new(), 0);
        loop {
            let (moved, more) = question.go_on(from);
            assert!(moved, "the client takes every piece at once");
            text.extend_from_slice(&answer.try_recv().unwrap().unwrap());
            count += 1;
            if !more {
                break;
            }
        }
        let all: Vec<serde_json::Value> = serde_json::from_slice(&text).unwrap();
        (all.iter().map(|view| view["cookie"].as_u64().unwrap()).collect(), count)
    }

    #[test]
    fn every_connection_is_shown_once_in_pieces_that_make_one_array() {
        let many: Vec<_> = (0..3 * PIECE as u64).map(|n| (n % 3 != 1).then_some(n)).collect();
        let wanted: Vec<_> = many.iter().flatten().copied().collect();
        assert_eq!(shown(&many), (wanted, 3));
        assert_eq!(shown(&[None, Some(7)]), (vec![7], 1));
        assert_eq!(shown(&[]), (vec![], 1));
    }

    #[test]
    fn a_client_that_takes_nothing_is_waited_for_and_one_that_is_gone_is_not() {
        let (pieces, answer) = mpsc::channel(1);
        let mut question = Answer { pieces, slot: 0, begun: false, asked: Instant::now() };
        let endless = |slot: usize| (slot..).map(|slot| (slot, view(slot as u64)));
        assert_eq!(question.go_on(endless), (true, true));
        assert_eq!(question.go_on(endless), (false, true));
        drop(answer);
        assert_eq!(question.go_on(endless), (false, false));
    }
}
