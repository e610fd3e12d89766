//! Who this node is: its name, its addresses, its clock.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use telemetry::{Clock, NodeAddresses};

use crate::{cli::Run, enrol::namespace::addresses, memory, tasks::Tasks};

/// How often the node's addresses and the offset of its clocks are looked at again.
const REFRESH: Duration = Duration::from_secs(5);

/// Returns the node's name: as given, else the host's.
///
/// # Errors
/// None was given and the host has none.
pub fn name(flags: &Run) -> anyhow::Result<String> {
    flags.node_name.clone().map_or_else(|| host_name().context("give --node-name"), Ok)
}

/// Returns the host's name.
///
/// # Errors
/// It cannot be read.
pub fn host_name() -> anyhow::Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").context("cannot read the host name")?;
    Ok(name.trim().to_owned())
}

/// Finds the addresses that node traffic comes from, and keeps them and the clock up to date.
pub fn follow(tasks: &Tasks, node: Arc<NodeAddresses>, clock: Arc<Clock>) {
    refresh(&node);
    let stop = tasks.stop().clone();
    // Starting takes more memory than running, on several threads.
    let mut young = true;
    tasks.task("node", async move {
        loop {
            tokio::select! { () = tokio::time::sleep(REFRESH) => {}, () = stop.cancelled() => return Ok(()) }
            refresh(&node);
            clock.remeasure();
            if std::mem::take(&mut young) {
                memory::give_back();
            }
        }
    });
}

fn refresh(node: &NodeAddresses) {
    match addresses() {
        Ok(found) => node.set(found),
        Err(error) => tracing::warn!(%error, "the node's addresses cannot be read"),
    }
}
