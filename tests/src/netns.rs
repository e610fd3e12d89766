//! Network namespaces, named, and removed by `Drop`.

use std::{
    fs::File,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};

use crate::command::{run, run_with};

/// What every namespace of a test begins with.
pub const PREFIX: &str = "mt-";

/// A network namespace of the test's own, loopback up.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace.
    pub fn new(name: &str) -> Result<Self> {
        let namespace = Self { name: format!("{PREFIX}{name}") };
        run(&format!("ip netns add {}", namespace.name))?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Returns its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the file that stands for it.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Runs `ip` commands inside, one a line.
    pub fn ip(&self, lines: &str) -> Result<()> {
        run_with(&format!("ip -n {} -batch -", self.name), lines).map(drop).with_context(|| format!("in {lines}"))
    }

    /// Runs a program inside. Only the network differs: `ip netns exec` would also hide what is mounted under `/sys`.
    pub fn run(&self, line: &str) -> Result<String> {
        run(&format!("nsenter --net={} {line}", self.path().display()))
    }

    /// Sets a network setting (`net.ipv4.tcp_syn_retries`) of this namespace.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        let value = value.to_owned();
        self.enter(move || std::fs::write(&path, value).with_context(|| format!("setting {}", path.display())))?
    }

    /// Runs a function on a thread inside: the sockets that it makes belong to this namespace.
    pub fn enter<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let path = self.path();
        let thread = thread::spawn(move || -> Result<T> {
            let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
            setns(file, CloneFlags::CLONE_NEWNET).context("entering a network namespace")?;
            Ok(work())
        });
        thread.join().expect("the work reports errors and does not panic")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Ends what runs in namespaces that an earlier run left, and removes them.
pub fn remove_left_overs() {
    let names = run("ip netns list").unwrap_or_default();
    for name in names.lines().filter_map(|l| l.split_whitespace().next()).filter(|n| n.starts_with(PREFIX)) {
        for pid in run(&format!("ip netns pids {name}")).unwrap_or_default().split_whitespace() {
            // Gone by itself is as good.
            drop(run(&format!("kill -KILL {pid}")));
        }
        remove(name);
    }
}

fn remove(name: &str) {
    if let Err(error) = run(&format!("ip netns del {name}")) {
        eprintln!("network namespace {name} stays: {error:#}");
    }
}
