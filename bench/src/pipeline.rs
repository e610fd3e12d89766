//! The whole record path over a mesh, as `meshd` builds it.

use std::{io::Write, sync::Arc};

use anyhow::{Context as _, Result};
use telemetry::{AccessLog, Clock, Config, Exposition, NodeAddresses, Recorder, Switch, Switches};

/// Builds the record path with these switches on, `sink` taking the log.
pub fn build(
    cache: Arc<cache::Cache>,
    on: &[Switch],
    sink: impl Write + Send + 'static,
) -> Result<(Recorder, Arc<Exposition>)> {
    let config = Config::default();
    let switches = Arc::new(Switches::default());
    for switch in on {
        switches.set(*switch, true);
    }
    let log = AccessLog::new(&config, sink).context("starting the log's writer")?;
    let (node, clock) = (Arc::new(NodeAddresses::default()), Arc::new(Clock::measure()));
    Ok(telemetry::new(config, cache, switches, node, clock, log))
}
