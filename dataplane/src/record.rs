//! The record thread: from the kernel's ring, sockets, aside map and counters to the recorder.

mod queries;

use std::{
    ops::ControlFlow,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use abi::maps;
use anyhow::Context;
use telemetry::{Clock, Recorder};

use crate::kernel::{Counters, Snapshot, Source};
use queries::Answer;
pub use queries::Queries;

/// How often the ring is emptied; the kernel wakes us earlier if it fills up.
const WAKE: Duration = Duration::from_millis(20);
/// How often it is emptied while a pass walks over sockets.
const MEANWHILE: Duration = Duration::from_millis(5);
/// How often series are retired, lines handed over, and the kernel's counters read.
const MAINTAIN: Duration = Duration::from_millis(100);
/// How often that is done while nothing is attached.
const IDLE: Duration = Duration::from_secs(1);
/// How often an answer goes on while nothing is attached.
const ANSWER: Duration = Duration::from_millis(5);
/// How long the last log lines may take.
const FLUSH: Duration = Duration::from_secs(1);
/// Ends of connections that leave the aside map together.
const ASIDE: usize = 256;
/// Passes from one self check to the next: a minute where open connections report every 5 s.
const CHECK: u32 = 12;
/// Commands that may wait.
const COMMANDS: usize = 16;

/// What the thread is asked to do.
#[derive(Debug)]
enum Command {
    /// Telemetry is about to be attached: begin to read.
    Begin(SyncSender<()>),
    /// Look at every open connection.
    Look(SyncSender<()>),
    /// Telemetry has been detached: read what is left, then rest.
    End(SyncSender<()>),
    /// Read no more: the thread ends.
    Quit,
    /// Show the live connections.
    Connections(Answer),
}

/// What speaks to the record thread.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: SyncSender<Command>,
}

/// The record thread's own part.
pub struct Thread {
    recorder: Recorder,
    source: Source,
    interval: Duration,
    commands: Receiver<Command>,
    answers: Vec<Answer>,
    /// The kernel's counters when they were last read.
    counters: Counters,
    /// Passes until the next self check.
    check_in: u32,
    /// Records that were given up unread, as far as they are counted.
    given_up: u64,
}

/// Makes the record thread's part and what speaks to it. `interval` is how often open connections report.
pub fn new(recorder: Recorder, source: Source, interval: Duration) -> (Thread, Handle) {
    let (sender, commands) = sync_channel(COMMANDS);
    let counters = [0; maps::counter::COUNT as usize];
    let thread =
        Thread { recorder, source, interval, commands, answers: Vec::new(), counters, check_in: 1, given_up: 0 };
    (thread, Handle { commands: sender })
}

impl Handle {
    /// Has the thread begin to read, before telemetry is attached and while monitoring still is off: what is older counts
    /// as adopted. Waits until it has.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn begin(&self) -> anyhow::Result<()> {
        self.ask(Command::Begin)
    }

    /// Has the thread look at every open connection, a last time before telemetry is detached. Waits until it has.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn look(&self) -> anyhow::Result<()> {
        self.ask(Command::Look)
    }

    /// Has the thread read all that is left after telemetry was detached, write out the log and rest. Waits until it has.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn end(&self) -> anyhow::Result<()> {
        self.ask(Command::End)
    }

    /// Has the thread end; it reads what is left first. Does not wait.
    pub fn quit(&self) {
        // A thread that does not take commands any more is left behind.
        let _ = self.commands.try_send(Command::Quit);
    }

    fn ask(&self, command: impl FnOnce(SyncSender<()>) -> Command) -> anyhow::Result<()> {
        let (done, answer) = sync_channel(1);
        self.commands.send(command(done)).ok().context("the record thread has ended")?;
        answer.recv().context("the record thread has ended")
    }
}

impl Thread {
    /// Reads and records until every handle is gone.
    ///
    /// # Errors
    /// The ring cannot be waited for.
    pub fn run(mut self) -> anyhow::Result<()> {
        self.resume();
        loop {
            match self.commands.recv_timeout(if self.answers.is_empty() { IDLE } else { ANSWER }) {
                Ok(Command::Begin(done)) => {
                    // What waits since a process before is counted before anybody asks.
                    self.drain();
                    self.maintain();
                    let _ = done.send(());
                    if self.follow()?.is_break() {
                        return Ok(());
                    }
                }
                Ok(Command::Look(done) | Command::End(done)) => drop(done.send(())),
                Ok(Command::Connections(answer)) => self.answers.push(answer),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Command::Quit) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            self.answer();
            self.recorder.maintain(Clock::monotonic_ns());
        }
    }

    /// Reads while telemetry is attached; breaks when every handle is gone.
    fn follow(&mut self) -> anyhow::Result<ControlFlow<()>> {
        let mut pass_due = Instant::now() + self.interval;
        let mut maintain_due = Instant::now() + MAINTAIN;
        loop {
            // A client that takes its answer is answered without a pause, one that does not waits for the next round.
            if !self.answer() {
                self.source.wait(WAKE).context("cannot wait for the ring")?;
            }
            self.drain();
            let now = Instant::now();
            if now >= pass_due {
                // A pass that took longer than the interval does not make the next ones follow at once.
                pass_due = (pass_due + self.interval).max(now);
                self.pass();
                self.check_in = self.check_in.saturating_sub(1);
                self.maintain();
            } else if now >= maintain_due {
                maintain_due = now + MAINTAIN;
                self.maintain();
            }
            match self.commands.try_recv() {
                Ok(Command::Connections(answer)) => self.answers.push(answer),
                Ok(Command::Begin(done)) => drop(done.send(())),
                Ok(Command::Look(done)) => {
                    self.pass();
                    let _ = done.send(());
                }
                Ok(Command::End(done)) => {
                    self.finish();
                    let _ = done.send(());
                    return Ok(ControlFlow::Continue(()));
                }
                Err(TryRecvError::Empty) => {}
                Ok(Command::Quit) | Err(TryRecvError::Disconnected) => {
                    self.finish();
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
    }

    /// Goes on where a process before ended.
    fn resume(&mut self) {
        let Self { recorder, source, .. } = self;
        self.counters = source.counters().unwrap_or(self.counters);
        let Some(positions) = recorder.positions() else { return };
        if !source.resume(positions) {
            tracing::warn!("these are not the rings that counters were saved with: they are read from where they are");
        }
        if let Err(error) = self.remove_taken() {
            tracing::warn!(error = format!("{error:#}"), "what found the ring full cannot be read");
        }
    }

    /// Removes what found the rings full and was taken by a process before that did not come to remove it.
    fn remove_taken(&mut self) -> anyhow::Result<()> {
        let Self { recorder, source, .. } = self;
        for key in source.all_aside()? {
            if recorder.is_over(&source.put_aside(&key)?) {
                source.remove_aside(&key)?;
            }
        }
        for key in source.all_sums()? {
            if recorder.is_summed(&key) {
                source.remove_sum(&key)?;
            }
        }
        Ok(())
    }

    /// Takes what the rings hold: a batch counts once what it came to is saved, and only then leaves its ring.
    fn drain(&mut self) {
        let Self { recorder, source, .. } = self;
        loop {
            let more = source.take(&mut |record| recorder.record(record));
            recorder.commit(source.positions());
            source.publish();
            if !more {
                return;
            }
        }
    }

    /// Shows the recorder every open connection, as much at a time as the ring takes.
    fn pass(&mut self) {
        match self.source.snapshot() {
            Ok(Some(snapshot)) => {
                self.recorder.begin_pass(Clock::monotonic_ns());
                let complete = self.show(snapshot).unwrap_or_else(|error| {
                    tracing::warn!(error = format!("{error:#}"), "not all open connections could be read");
                    false
                });
                if !complete {
                    self.source.show_all();
                }
                if self.recorder.end_pass(complete)
                    && let Err(error) = self.remove_missed()
                {
                    tracing::warn!(error = format!("{error:#}"), "connections that ended unnoticed stay");
                }
            }
            // Packets report, or telemetry is being detached.
            Ok(None) => {}
            Err(error) => tracing::warn!(error = format!("{error:#}"), "open connections cannot be read"),
        }
        self.measure();
    }

    fn show(&mut self, mut snapshot: Snapshot) -> anyhow::Result<bool> {
        loop {
            let more = self.beside(|| snapshot.go_on())??;
            let written = self.source.written();
            self.drain();
            self.take_quiet()?;
            if !more {
                // A record that is still being written keeps those behind it, of this pass too.
                return Ok(snapshot.is_complete() && self.source.has_read(&written));
            }
        }
    }

    /// Has something done by another thread, and reads the rings meanwhile: a walk over many sockets takes longer than they may wait.
    fn beside<T: Send>(&mut self, what: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let (done, is_done) = sync_channel(1);
        thread::scope(|scope| {
            let walk = thread::Builder::new().name("walk".into());
            walk.spawn_scoped(scope, move || done.send(what())).context("no thread to walk in")?;
            loop {
                match is_done.recv_timeout(MEANWHILE) {
                    Ok(result) => return Ok(result),
                    Err(RecvTimeoutError::Timeout) => {
                        self.drain();
                        self.drain_aside()?;
                    }
                    // It has panicked, which leaving this scope does, too.
                    Err(RecvTimeoutError::Disconnected) => anyhow::bail!("a walk broke off"),
                }
            }
        })
    }

    /// Ends the connections that passes missed, once nothing is on its way that tells how they ended: a program that took note of an end may
    /// not have come to write it, where its processor was taken from this machine for a while.
    fn remove_missed(&mut self) -> anyhow::Result<()> {
        self.source.wait_for_programs()?;
        let written = self.source.written();
        self.drain();
        self.drain_aside()?;
        if self.source.has_read(&written) {
            self.recorder.remove_missed();
        }
        Ok(())
    }

    /// Takes those connections in which there is nothing new.
    fn take_quiet(&mut self) -> anyhow::Result<()> {
        let Self { recorder, source, .. } = self;
        let mut unknown = false;
        source.quiet(&mut |cookie| unknown |= !recorder.quiet(cookie))?;
        recorder.commit(source.positions());
        if unknown {
            // Their records did not come to us, or the table is full.
            source.show_all();
        }
        Ok(())
    }

    /// Measures how full the kernel's maps are, and counts what had to be given up of them.
    fn measure(&mut self) {
        let usage = match self.source.usage() {
            Ok(usage) => usage,
            Err(error) => return tracing::warn!(error = format!("{error:#}"), "the kernel's maps cannot be measured"),
        };
        let metrics = self.recorder.metrics();
        metrics.malformed.inc_by(usage.given_up - self.given_up);
        self.given_up = usage.given_up;
        for (map, (used, capacity)) in [
            (maps::MANAGER, usage.manager),
            (maps::SIGNALLED, usage.signalled),
            (maps::SERVICES, usage.services),
            (maps::ENDPOINTS, usage.endpoints),
            (maps::ASIDE, usage.aside),
            (maps::UNTOLD, usage.untold),
            (maps::SUMS, usage.sums),
        ] {
            let (entries, room) = metrics.map(map);
            entries.set(used.into());
            room.set(capacity.into());
        }
    }

    /// Reads what was put aside and what the kernel counted, and has the recorder do its housekeeping.
    fn maintain(&mut self) {
        if let Err(error) = self.drain_aside().and_then(|()| self.drain_sums()) {
            tracing::warn!(error = format!("{error:#}"), "what found the ring full cannot be read");
        }
        let Self { recorder, source, .. } = self;
        match source.counters() {
            Ok(totals) => {
                recorder.kernel_counters(&totals);
                // What waits to be added up has been counted by the kernel and not yet been read.
                if self.check_in == 0 && !source.sums_wait(&totals) {
                    self.check_in = CHECK;
                    if !recorder.check(&self.counters, &totals) {
                        tracing::warn!(
                            "metrics do not account for all that the kernel has told: see meshd_telemetry_accounted_ratio"
                        );
                    }
                }
                self.counters = totals;
            }
            Err(error) => tracing::warn!(error = format!("{error:#}"), "the kernel's counters cannot be read"),
        }
        recorder.maintain(Clock::monotonic_ns());
    }

    /// Takes what was put aside: what that came to is saved before it is removed.
    fn drain_aside(&mut self) -> anyhow::Result<()> {
        let Self { recorder, source, .. } = self;
        for some in source.aside()?.chunks(ASIDE) {
            for key in some {
                recorder.record(&source.put_aside(key)?);
            }
            recorder.commit(source.positions());
            for key in some {
                source.remove_aside(key)?;
            }
        }
        Ok(())
    }

    /// Takes what was added up, as [`Thread::drain_aside`] does.
    fn drain_sums(&mut self) -> anyhow::Result<()> {
        let Self { recorder, source, .. } = self;
        for some in source.sums()?.chunks(ASIDE) {
            for key in some {
                recorder.sum(key, &source.sum(key)?);
            }
            recorder.commit(source.positions());
            for key in some {
                source.remove_sum(key)?;
            }
        }
        Ok(())
    }

    /// Reads all there is a last time, after telemetry was detached.
    fn finish(&mut self) {
        self.drain();
        self.maintain();
        if !self.recorder.flush(FLUSH) {
            tracing::warn!("the access log takes no more lines: some are lost");
        }
    }

    /// Goes on with the answers; tells whether any of them moved.
    fn answer(&mut self) -> bool {
        let recorder = &self.recorder;
        let mut moved = false;
        self.answers.retain_mut(|answer| {
            let (step, more) = answer.go_on(|slot| recorder.connections_from(slot));
            moved |= step;
            more
        });
        moved
    }
}
