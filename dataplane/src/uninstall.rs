//! `meshd uninstall`: takes out of the kernel what a meshd has left there.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::{
    cli::Uninstall,
    kernel::{self, Pins},
};

/// Removes everything of one cgroup, and what belongs to cgroups that are gone; fails where a daemon still runs.
pub fn run(flags: &Uninstall) -> ExitCode {
    let (text, code) = match remove(flags) {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error) => (format!("error: {error:#}"), ExitCode::FAILURE),
    };
    // Who closed our output still gets the exit code.
    let _ = writeln!(io::stdout(), "{text}");
    code
}

fn remove(flags: &Uninstall) -> anyhow::Result<String> {
    let cgroup = flags.cgroup.clone().map_or_else(|| kernel::find_cgroup_root(&flags.proc), Ok)?;
    Ok(match Pins::find(&flags.bpf_fs, &cgroup)? {
        Some(pins) => {
            pins.uninstall(&flags.proc, kernel::LAST_READS)?;
            format!("removed everything that meshd had attached to {}", cgroup.display())
        }
        None => format!("meshd has nothing attached to {}", cgroup.display()),
    })
}
