//! Socket redirect: has connections that have proved long join; and tells what the programs that see what sockets send have counted.

use std::time::{Duration, Instant};

use prometheus::{IntCounter, IntGauge, Registry};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::kernel::{Accelerator, Joins};

/// How often it is looked who may join.
const LOOK: Duration = Duration::from_millis(100);
/// Looking takes up no more than this part of a processor.
const SHARE: u32 = 20;
/// How often what is joined is counted anew.
const SWEEP: Duration = Duration::from_secs(10);

/// Lets connections join.
#[derive(Debug)]
pub struct Accelerate {
    accelerator: Accelerator,
    metrics: Metrics,
    /// What had joined at the last count, and how many sockets were joined then.
    counted: (Joins, usize),
    seen: Joins,
    swept: Instant,
}

#[derive(Debug)]
struct Metrics {
    joined: IntGauge,
    joins: IntCounter,
    refused: IntCounter,
    redirected: IntCounter,
    held_back: IntCounter,
    untold: IntCounter,
}

impl Accelerate {
    /// Makes it; nothing joins yet.
    ///
    /// # Errors
    /// The registry has a metric of one of these names already, or a map could not be read.
    pub fn new(accelerator: Accelerator, registry: &Registry) -> anyhow::Result<Self> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        let joined = IntGauge::new(
            "meshd_accelerate_joined",
            "Sockets that may send to their peer beside TCP; both ends count.",
        )?;
        registry.register(Box::new(joined.clone()))?;
        let metrics = Metrics {
            joined,
            joins: counter("meshd_accelerate_joins_total", "Sockets that joined their peer on this node.")?,
            refused: counter(
                "meshd_accelerate_refused_total",
                "Sockets that could not join: no room, or the kernel refused.",
            )?,
            redirected: counter(
                "meshd_accelerate_redirected_bytes_total",
                "Payload bytes that ended connections had sent beside TCP.",
            )?,
            held_back: counter(
                "meshd_accelerate_held_back_total",
                "Times that a joined socket went back to TCP for a while because its peer had too much to read.",
            )?,
            untold: counter(
                "meshd_waypoint_untold_total",
                "Connections to waypoints that could not be told what was dialled.",
            )?,
        };
        let seen = accelerator.joins()?;
        let counted = (seen, accelerator.sweep()?);
        Ok(Self { accelerator, metrics, counted, seen, swept: Instant::now() })
    }

    /// Looks for who may join until told to stop.
    ///
    /// # Errors
    /// None that it recovers from; the result fits a required thread.
    pub fn run(mut self, runtime: &Handle, stop: &CancellationToken) -> anyhow::Result<()> {
        let mut warned = false;
        while !stop.is_cancelled() {
            let begin = Instant::now();
            match self.look() {
                Ok(()) => warned = false,
                Err(error) if !std::mem::replace(&mut warned, true) => {
                    tracing::warn!(error = format!("{error:#}"), "no connection can leave TCP now");
                }
                Err(_) => {}
            }
            let pause = LOOK.max(begin.elapsed() * SHARE);
            runtime.block_on(async {
                tokio::select! { () = tokio::time::sleep(pause) => {}, () = stop.cancelled() => {} }
            });
        }
        Ok(())
    }

    fn look(&mut self) -> anyhow::Result<()> {
        self.accelerator.join()?;
        let now = self.accelerator.joins()?;
        if self.swept.elapsed() >= SWEEP {
            self.swept = Instant::now();
            self.counted = (now, self.accelerator.sweep()?);
        }
        self.tell(now);
        Ok(())
    }

    fn tell(&mut self, now: Joins) {
        let (then, open) = self.counted;
        let joined = open as u64 + (now.joined - then.joined);
        self.metrics.joined.set(i64::try_from(joined.saturating_sub(now.parted - then.parted)).unwrap_or(i64::MAX));
        let before = std::mem::replace(&mut self.seen, now);
        self.metrics.joins.inc_by(now.joined - before.joined);
        self.metrics.refused.inc_by(now.refused - before.refused);
        self.metrics.redirected.inc_by(now.redirected - before.redirected);
        self.metrics.held_back.inc_by(now.held_back - before.held_back);
        self.metrics.untold.inc_by(now.untold - before.untold);
    }
}
