//! What is done to the daemon.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use nix::sys::signal::Signal;
use tests::{Meshd, Sandbox, Scrape};

use crate::FLAGS;

/// One thing that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Blow {
    /// SIGKILL while it serves.
    Kill,
    /// SIGKILL several times in a row, each before or just after it has taken over.
    KillEarly,
    /// SIGSTOP for a while: rings and what is beside them fill up.
    Stop,
    /// SIGTERM, and another one takes over.
    End,
    /// The next one has maps of another size.
    Resize,
    /// Nobody is there for a while.
    Absence,
    /// Nothing.
    Peace,
}

const BLOWS: [Blow; 7] = [Blow::Kill, Blow::KillEarly, Blow::Stop, Blow::End, Blow::Resize, Blow::Absence, Blow::Peace];

/// How often what was done.
#[derive(Debug, Default)]
pub(crate) struct Blows(BTreeMap<Blow, u32>);

impl fmt::Display for Blows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<_> = self.0.iter().map(|(blow, times)| format!("{times} x {blow:?}")).collect();
        f.write_str(&each.join(", "))
    }
}

/// Who does it.
pub(crate) struct Chaos<'a> {
    sandbox: &'a Sandbox,
    meshd: Meshd<'a>,
    rng: Rng,
    services: u32,
    aside: u32,
    blows: Blows,
    before: Scrape,
}

impl<'a> Chaos<'a> {
    pub(crate) fn new(sandbox: &'a Sandbox, meshd: Meshd<'a>, seed: u64) -> Self {
        let (blows, before) = (Blows::default(), Scrape::default());
        Self { sandbox, meshd, rng: Rng::with_seed(seed), services: 10_000, aside: 256, blows, before }
    }

    /// Does one thing after the other for this long. Now and then no counter may have fallen.
    pub(crate) fn reign(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let blow = BLOWS[self.rng.usize(..BLOWS.len())];
            *self.blows.0.entry(blow).or_default() += 1;
            self.strike(blow).with_context(|| format!("{blow:?} after {}", self.blows))?;
            if self.rng.bool() {
                self.look().with_context(|| format!("after {}", self.blows))?;
            }
        }
        Ok(())
    }

    /// Leaves a daemon that runs, and what was done.
    pub(crate) fn end(self) -> (Meshd<'a>, Blows) {
        (self.meshd, self.blows)
    }

    fn strike(&mut self, blow: Blow) -> Result<()> {
        match blow {
            Blow::Kill => {
                self.meshd.ready()?;
                self.meshd.kill()?;
                self.next()
            }
            Blow::KillEarly => {
                for _ in 0..self.rng.u32(1..6) {
                    let moment = Duration::from_millis(self.rng.u64(..250));
                    pass(moment);
                    self.meshd.kill()?;
                    self.next()?;
                }
                Ok(())
            }
            Blow::Stop => {
                self.meshd.signal(Signal::SIGSTOP)?;
                let pause = Duration::from_millis(self.rng.u64(50..4000));
                pass(pause);
                self.meshd.signal(Signal::SIGCONT)
            }
            Blow::End | Blow::Resize => {
                self.meshd.ready()?;
                self.meshd.signal(Signal::SIGTERM)?;
                let status = self.meshd.ended(Duration::from_secs(20))?;
                ensure!(status.success(), "{status}: {}", self.meshd.log());
                if blow == Blow::Resize {
                    (self.services, self.aside) = (self.rng.u32(100..20_000), self.rng.u32(64..512));
                }
                self.next()
            }
            Blow::Absence => {
                self.meshd.kill()?;
                let absence = Duration::from_millis(self.rng.u64(..2000));
                pass(absence);
                self.next()
            }
            Blow::Peace => {
                let peace = Duration::from_millis(self.rng.u64(..1500));
                pass(peace);
                Ok(())
            }
        }
    }

    fn next(&mut self) -> Result<()> {
        let sizes = [format!("--max-services={}", self.services), format!("--max-connections={}", self.aside)];
        let sizes = sizes.each_ref().map(String::as_str);
        self.meshd = Meshd::spawn(self.sandbox, &[&FLAGS[..], &sizes].concat())?;
        Ok(())
    }

    fn look(&mut self) -> Result<()> {
        self.meshd.ready()?;
        let now = self.meshd.scrape()?;
        // Long connections' own series leave when those have been closed for a while.
        now.goes_on_from(&self.before, &["kmesh_tcp_connection_"])?;
        self.before = now;
        Ok(())
    }
}

/// Lets time pass: here it is the moment that is random, and no condition says when it has come.
#[expect(clippy::disallowed_methods, reason = "nothing is waited for")]
fn pass(time: Duration) {
    std::thread::sleep(time);
}
