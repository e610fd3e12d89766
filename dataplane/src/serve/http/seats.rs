//! The connections that one port serves at a time, and which of them goes when others come.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use prometheus::IntCounter;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

/// All seats of a port.
#[derive(Debug)]
pub(super) struct Seats {
    most: usize,
    taken: Mutex<Vec<Weak<Seat>>>,
    /// Told when a seat was given back, or its holder waits for a request. One waits for that.
    freed: Notify,
    displaced: IntCounter,
}

/// A connection's place; the last handle that is dropped gives it back.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    state: Mutex<State>,
    leave: CancellationToken,
}

#[derive(Clone, Copy, Debug)]
struct State {
    at_work: bool,
    since: Instant,
}

/// A request that is being answered, as long as this lives.
#[derive(Debug)]
pub(super) struct Work(Arc<Seat>);

impl Seats {
    pub(super) fn new(most: usize, displaced: IntCounter) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default(), freed: Notify::new(), displaced })
    }

    /// Waits for a seat; whoever has waited for a request the longest gives up theirs.
    pub(super) async fn take(self: &Arc<Self>) -> Arc<Seat> {
        loop {
            if let Some(seat) = self.try_take() {
                return seat;
            }
            self.freed.notified().await;
        }
    }

    fn try_take(self: &Arc<Self>) -> Option<Arc<Seat>> {
        let mut taken = self.taken();
        taken.retain(|seat| seat.strong_count() > 0);
        if taken.len() < self.most {
            let state = Mutex::new(State { at_work: false, since: Instant::now() });
            let seat = Arc::new(Seat { seats: self.clone(), state, leave: CancellationToken::new() });
            taken.push(Arc::downgrade(&seat));
            return Some(seat);
        }
        let all: Vec<_> = taken.iter().filter_map(Weak::upgrade).collect();
        // The last handle may be one of these: who gives a seat back wants the list.
        drop(taken);
        let leaving = all.iter().any(|seat| seat.leave.is_cancelled());
        let idle = all.iter().map(|seat| (seat, seat.state())).filter(|(_, state)| !state.at_work);
        if let Some((longest, _)) = idle.min_by_key(|(_, state)| state.since).filter(|_| !leaving) {
            self.displaced.inc();
            longest.leave.cancel();
        }
        None
    }

    fn taken(&self) -> MutexGuard<'_, Vec<Weak<Seat>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// A request has come.
    pub(super) fn work(self: &Arc<Self>) -> Work {
        self.set(true);
        Work(self.clone())
    }

    /// Tells for how long the request has been at work, if there is one.
    pub(super) fn at_work_for(&self) -> Option<Duration> {
        let state = self.state();
        state.at_work.then(|| state.since.elapsed())
    }

    /// Waits until another one needs the seat.
    pub(super) async fn left(&self) {
        self.leave.cancelled().await;
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, at_work: bool) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State { at_work, since: Instant::now() };
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.set(false);
        self.0.seats.freed.notify_one();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.freed.notify_one();
    }
}
