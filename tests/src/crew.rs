//! Clients that work side by side until they are told to stop, each keeping account.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
};

use anyhow::{Context as _, Result};

use crate::truth::Truth;

/// Clients at work, a thread each.
#[derive(Debug)]
pub struct Crew {
    clients: Vec<JoinHandle<Result<Truth>>>,
    stop: Arc<AtomicBool>,
}

impl Crew {
    /// Has the clients begin. Each works until the flag is set, and tells what that came to.
    pub fn start<C: Send + 'static>(clients: Vec<C>, work: fn(C, &AtomicBool) -> Result<Truth>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |client| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || work(client, &stop))
        };
        let clients = clients.into_iter().map(start).collect();
        Self { clients, stop }
    }

    /// Waits for the end of every client's work, and tells what all of it came to; `explain` adds to what went wrong.
    ///
    /// # Errors
    /// Those of a client.
    ///
    /// # Panics
    /// Where a client has.
    pub fn end(self, mut explain: impl FnMut() -> String) -> Result<Truth> {
        self.stop.store(true, Relaxed);
        let mut truth = Truth::default();
        for client in self.clients {
            truth.add(client.join().expect("a client returns its errors").with_context(&mut explain)?);
        }
        Ok(truth)
    }
}
