//! What a number was measured on.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};

/// Returns a line that names the day, the processor, the kernel and the command of this run.
pub fn describe(command: &str) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or("\t: an unknown processor");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (model, kernel) = (model.trim_start_matches(['\t', ' ', ':']), kernel.trim());
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d");
    format!("{today}, {} x {model}, Linux {kernel}: {command}", processors())
}

/// Returns how many processors this process may use.
pub fn processors() -> usize {
    thread::available_parallelism().map_or(1, Into::into)
}

/// Measures how much of all processors is in use while this process waits, 0 to 1: what others take from a measurement.
pub fn background(during: Duration) -> Result<f64> {
    let begin = Busy::now()?;
    wait(during);
    let busy = Busy::now()?.since(&begin);
    Ok(busy.as_secs_f64() / (during.as_secs_f64() * processors() as f64))
}

/// Lets time pass over which something is counted.
#[expect(clippy::disallowed_methods, reason = "it is the time that is waited for, not a condition")]
pub fn wait(time: Duration) {
    thread::sleep(time);
}

/// How long all processors were not idle, from `/proc/stat`. The kernel measures idle time to the microsecond; interrupts taken
/// while idle are not part of it.
#[derive(Debug)]
pub struct Busy {
    at: Instant,
    idle: Duration,
}

impl Busy {
    /// Reads the clock and the idle time.
    pub fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        let at = Instant::now();
        let line = stat.lines().next().context("/proc/stat is empty")?;
        let ticks = |i| line.split_whitespace().nth(i).and_then(|v| v.parse::<u64>().ok());
        let (idle, iowait) = (ticks(4).context("no idle time")?, ticks(5).context("no iowait time")?);
        // The unit that /proc shows is 1/100 s on every architecture (USER_HZ).
        Ok(Self { at, idle: Duration::from_millis((idle + iowait) * 10) })
    }

    /// Returns the processor time in use since an earlier reading.
    pub fn since(&self, begin: &Self) -> Duration {
        let all = (self.at - begin.at) * u32::try_from(processors()).unwrap_or(1);
        all.saturating_sub(self.idle.saturating_sub(begin.idle))
    }
}

/// Returns the processor time that this process has had, all threads, seconds.
pub fn cpu() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("asking for the processor time")?;
    Ok((usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6)
}

/// Tells whether this run only sees that a benchmark runs: `cargo bench -- --test`, or `cargo test --benches`, which unlike
/// `cargo bench` does not say `--bench`.
pub fn quick() -> bool {
    let said = |flag| std::env::args().any(|argument| argument == flag);
    said("--test") || !said("--bench")
}
