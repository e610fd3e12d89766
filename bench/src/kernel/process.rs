//! What the kernel says about a process.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use nix::{time::clock_getcpuclockid, unistd::Pid};

/// Returns the processor time that a process has had, with threads that have ended, seconds.
pub fn cpu(pid: u32) -> Result<f64> {
    let pid = Pid::from_raw(pid.try_into().context("a process's number")?);
    let clock = clock_getcpuclockid(pid).context("the processor time of a process")?;
    Ok(Duration::from(clock.now().context("the processor time of a process")?).as_secs_f64())
}

/// Returns a field of `/proc/PID/status` that is in KiB (`VmRSS`), as MiB.
pub fn mebibytes(pid: u32, field: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("reading a process's status")?;
    let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<f64>().ok());
    Ok(kib.with_context(|| format!("{field} of a process"))? / 1024.0)
}
