//! What the kernel says about a process.

use std::fs;

use anyhow::{Context as _, Result};

/// Returns the processor time that all threads of a process have had, seconds (`/proc/PID/task/*/schedstat`).
pub fn cpu(pid: u32) -> Result<f64> {
    let directory = format!("/proc/{pid}/task");
    let mut ns = 0.0;
    for task in fs::read_dir(&directory).with_context(|| format!("listing {directory}"))? {
        let path = task.with_context(|| format!("listing {directory}"))?.path().join("schedstat");
        // A thread may end between being listed and being read.
        let text = fs::read_to_string(path).unwrap_or_default();
        ns += text.split(' ').next().and_then(|v| v.parse::<f64>().ok()).unwrap_or_default();
    }
    Ok(ns / 1e9)
}

/// Returns a field of `/proc/PID/status` that is in KiB (`VmRSS`), as MiB.
pub fn mebibytes(pid: u32, field: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("reading a process's status")?;
    let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<f64>().ok());
    Ok(kib.with_context(|| format!("{field} of a process"))? / 1024.0)
}
