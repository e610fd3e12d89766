//! How the process ends: in one order, each step with its deadline.

use std::{future::Future, time::Duration};

use anyhow::Context;
use telemetry::Switch;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};

use super::App;
use crate::tasks::Ended;

/// Detaching telemetry, reading what it left, writing out the log.
const LAST_RECORDS: Duration = Duration::from_secs(5);
/// Scrapes and other requests that run.
pub(super) const LAST_REQUESTS: Duration = Duration::from_secs(5);
/// Taking the rest out of the kernel.
const UNLOAD: Duration = Duration::from_secs(5);

/// The signals that end the process.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

impl App {
    /// Waits for a signal or for the first part that ends early, then drains. A second signal ends the process at once, everything
    /// detached or kept as the flag says.
    pub(super) async fn wait(self, mut signals: Signals, mut ended: Ended) -> anyhow::Result<()> {
        let result = tokio::select! {
            name = signals.next() => {
                tracing::info!(signal = name, "draining");
                Ok(())
            }
            error = ended.early() => Err(error),
        };
        let (pins, proc) = (self.pins.clone(), self.proc.clone());
        tokio::select! {
            () = self.drain() => result,
            name = signals.next() => {
                tracing::warn!(signal = name, "ending at once");
                if let Some(Err(error)) = pins.map(|pins| pins.uninstall(&proc, Duration::ZERO)) {
                    tracing::warn!("{error:#}");
                }
                std::process::exit(130);
            }
        }
    }

    async fn drain(self) {
        self.readiness.drain();
        // Steering stays until the end: connections opened meanwhile still find their service.
        within("the last records", LAST_RECORDS, async {
            let told = match self.pins {
                Some(_) => self.control.set(Switch::Monitoring, false).await.map_err(Into::into),
                // It goes on counting; the next start reads it.
                None if self.control.get(Switch::Monitoring) => self.monitor.clone().pause().await,
                None => Ok(()),
            };
            if let Err(error) = told {
                tracing::warn!(error = format!("{error:#}"), "telemetry could not be ended in order");
            }
        })
        .await;
        self.monitor.rest();
        within("the last requests", LAST_REQUESTS, self.tasks.finish()).await;
        let monitor = self.monitor.clone();
        within("unloading", UNLOAD, async {
            let _ = tokio::task::spawn_blocking(move || monitor.unload()).await;
        })
        .await;
        tracing::info!("ended");
    }
}

pub(super) async fn within(what: &str, deadline: Duration, step: impl Future<Output = ()>) {
    if timeout(deadline, step).await.is_err() {
        tracing::warn!(what, ?deadline, "took too long and was given up");
    }
}
