//! Waiting for a condition with a deadline, never for a time.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// How long a condition may take that nothing else bounds: far above what it takes, far below a hang.
pub const DEADLINE: Duration = Duration::from_secs(20);

const RETRY: Duration = Duration::from_millis(25);

/// Tries again until an attempt succeeds; past the deadline the last attempt's error is returned.
#[expect(clippy::disallowed_methods, reason = "between two tries of a condition that has a deadline")]
pub fn eventually<T>(deadline: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => {
                return Err(error).with_context(|| format!("not so after {deadline:?}"));
            }
            Err(_) => thread::sleep(RETRY),
        }
    }
}
