//! What the kernel's programs cost, from the kernel's own counts (`bpf_prog_info.run_time_ns`, `run_cnt`).

use std::{collections::BTreeMap, fmt, fs, os::fd::OwnedFd};

use anyhow::{Context as _, Result};
use aya::{programs::loaded_programs, sys::Stats};

/// Runs of one program and the time they took.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name, at most fifteen bytes.
    pub name: String,
    /// How often it ran.
    pub runs: u64,
    /// How long all that took, ns; the counting itself, some 20 ns a run, is part of it.
    pub ns: u64,
}

/// While it lives the kernel counts runs and time of every program.
#[derive(Debug)]
pub struct Counting {
    #[expect(dead_code, reason = "the kernel counts as long as it is open")]
    open: OwnedFd,
}

impl Counting {
    /// Begins to count.
    pub fn begin() -> Result<Self> {
        aya::sys::enable_stats(Stats::RunTime)
            .map(|open| Self { open })
            .context("asking the kernel to count program time")
    }

    /// Reads the counts of every program that a process holds open.
    pub fn read(&self, pid: u32) -> Result<Programs> {
        let held = held(pid, "prog_id")?;
        let mut programs = BTreeMap::new();
        for info in loaded_programs() {
            // A program of somebody else may go between being listed and being asked.
            let Ok(info) = info else { continue };
            if held.contains(&info.id()) {
                let name = info.name_as_str().unwrap_or("?").to_owned();
                let ns = u64::try_from(info.run_time().as_nanos()).context("centuries of program time")?;
                programs.insert(info.id(), Program { name, runs: info.run_count(), ns });
            }
        }
        Ok(Programs(programs))
    }
}

/// The programs of a process, by id.
#[derive(Clone, Debug, Default)]
pub struct Programs(BTreeMap<u32, Program>);

impl Programs {
    /// Returns what has run since an earlier reading.
    pub fn since(&self, begin: &Self) -> Vec<Program> {
        let changed = self.0.iter().map(|(id, program)| match begin.0.get(id) {
            Some(old) => Program { runs: program.runs - old.runs, ns: program.ns - old.ns, ..program.clone() },
            None => program.clone(),
        });
        changed.filter(|p| p.runs > 0).collect()
    }
}

/// The ids of the programs (`prog_id`) or maps (`map_id`) that a process holds open: every file that the kernel describes with one.
pub(super) fn held(pid: u32, kind: &str) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    let directory = format!("/proc/{pid}/fdinfo");
    for entry in fs::read_dir(&directory).with_context(|| format!("listing {directory}"))? {
        let path = entry.with_context(|| format!("listing {directory}"))?.path();
        // A file may be closed between being listed and being read.
        let text = fs::read_to_string(path).unwrap_or_default();
        ids.extend(text.lines().filter_map(|l| l.strip_prefix(kind)?.strip_prefix(':')?.trim().parse::<u32>().ok()));
    }
    Ok(ids)
}

/// Programs by what one connection (or whatever `per` counts) costs.
#[derive(Debug)]
pub struct Table<'a> {
    /// The programs.
    pub programs: &'a [Program],
    /// How many there were of what is shown by.
    pub per: f64,
    /// What that is called.
    pub unit: &'a str,
}

impl Table<'_> {
    /// Returns the time of all programs for one, ns.
    pub fn ns(&self) -> f64 {
        self.programs.iter().map(|p| p.ns as f64).sum::<f64>() / self.per
    }

    /// Returns the runs of all programs for one.
    pub fn runs(&self) -> f64 {
        self.programs.iter().map(|p| p.runs as f64).sum::<f64>() / self.per
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.unit;
        writeln!(f, "| program | runs a {unit} | ns a run | ns a {unit} |\n|---|---|---|---|")?;
        for Program { name, runs, ns } in self.programs {
            let (runs, ns) = (*runs as f64, *ns as f64);
            writeln!(f, "| {name} | {:.2} | {:.0} | {:.0} |", runs / self.per, ns / runs, ns / self.per)?;
        }
        writeln!(f, "| all | {:.2} | | {:.0} |", self.runs(), self.ns())
    }
}
