//! A process in a pod, told what to do (`load.rs` is its other end).

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use tests::netns::Namespace;

use super::load::{Done, Order};

/// A running load process; it ends with its standard input, at the latest by `Drop`.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts this program once more, in a namespace and a cgroup.
    pub fn start(namespace: &Namespace, cgroup: &Path) -> Result<Self> {
        let mut command = Command::new(env::current_exe().context("finding this program")?);
        command.arg("load").arg(namespace.path()).arg(cgroup).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("starting a load process")?;
        let stdin = child.stdin.take().expect("standard input is piped");
        let stdout = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let mut worker = Self { child, stdin, stdout };
        worker.ask(&Order::Rest)?;
        Ok(worker)
    }

    /// Gives an order and waits until it is done.
    pub fn ask(&mut self, order: &Order) -> Result<Done> {
        let line = serde_json::to_string(order).context("an order")?;
        writeln!(self.stdin, "{line}").with_context(|| format!("giving the order {line}"))?;
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).context("waiting for a load process")?;
        let done: Done = serde_json::from_str(&answer).with_context(|| format!("a load process ended at {line}"))?;
        if let Some(error) = done.error {
            bail!("{error}");
        }
        Ok(done)
    }

    /// Returns the processor time it has used so far, seconds.
    pub fn cpu(&mut self) -> Result<f64> {
        Ok(self.ask(&Order::Rest)?.cpu)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
