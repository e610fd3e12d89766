//! Keeps the steering maps in step with the mesh.

mod plan;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use cache::{Cache, Change};
use prometheus::{IntCounter, IntGauge, Registry};
use rustc_hash::FxHashSet;
use tokio_util::sync::CancellationToken;
use xds::Status;

use crate::{
    health::{Condition, Readiness},
    kernel::{MapError, Steering},
};
use plan::{Plan, Step};

/// How often the first full state is looked for.
const FIRST: Duration = Duration::from_millis(20);

/// How long changes are gathered after some were programmed; the first one after a pause goes at once.
const GATHER: Duration = Duration::from_millis(10);
/// How often what found no room is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What it measures.
#[derive(Clone, Debug)]
struct Metrics {
    programmed: IntGauge,
    left_out: IntGauge,
    full: IntCounter,
}

/// Follows the mesh and programs what changed.
#[derive(Debug)]
pub struct Sync {
    cache: Arc<Cache>,
    steering: Steering,
    plan: Plan,
    /// Addresses that found the map full; tried again with each change.
    left_out: FxHashSet<SocketAddr>,
    /// It was said that some are left out, and some still are.
    warned: bool,
    /// Told when what the control plane sent is programmed.
    status: Option<Arc<Status>>,
    metrics: Metrics,
}

impl Sync {
    /// Makes it; nothing is programmed yet. `status` is that of the control plane's client, if there is one.
    ///
    /// # Errors
    /// The registry has a metric of one of these names already.
    pub fn new(
        cache: Arc<Cache>,
        steering: Steering,
        status: Option<Arc<Status>>,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let metrics = Metrics {
            programmed: IntGauge::new(
                "meshd_steering_services",
                "Service addresses and ports that the kernel steers.",
            )?,
            left_out: IntGauge::new(
                "meshd_steering_services_left_out",
                "Service addresses and ports that the kernel does not steer because its maps are full.",
            )?,
            full: IntCounter::new(
                "meshd_steering_map_full_total",
                "Times that a service address could not be programmed because a map was full.",
            )?,
        };
        registry.register(Box::new(metrics.programmed.clone()))?;
        registry.register(Box::new(metrics.left_out.clone()))?;
        registry.register(Box::new(metrics.full.clone()))?;
        let plan = Plan::new(cache.node().network.clone());
        Ok(Self { cache, steering, plan, left_out: FxHashSet::default(), warned: false, status, metrics })
    }
}

impl Sync {
    /// Follows the mesh until told to stop: waits for the first full state, programs it, says so, and goes on with changes.
    ///
    /// # Errors
    /// None that it recovers from; the result fits a required task.
    pub async fn run(
        mut self,
        programmed: CancellationToken,
        readiness: Arc<Readiness>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        while !self.cache.state().complete {
            // A first state that is empty changes nothing, so nobody is told of it.
            tokio::select! { () = tokio::time::sleep(FIRST) => {}, () = stop.cancelled() => return Ok(()) }
        }
        readiness.met(Condition::State);
        let mut changes = self.cache.subscribe();
        loop {
            let change = tokio::select! {
                change = changes.changed() => change,
                () = tokio::time::sleep(RETRY), if !self.left_out.is_empty() => Change::default(),
                () = stop.cancelled() => return Ok(()),
            };
            self.program(&change);
            readiness.met(Condition::Maps);
            programmed.cancel();
            tokio::select! { () = tokio::time::sleep(GATHER) => {}, () = stop.cancelled() => return Ok(()) }
        }
    }

    fn program(&mut self, change: &Change) {
        let received = self.status.as_ref().and_then(|status| status.take_unprogrammed());
        let mesh = Arc::clone(&*self.cache.load());
        let mut steps = self.plan.steps(&mesh, change);
        // What makes room comes before what needs it, and what waits for room comes last.
        steps.sort_by_key(|step| matches!(step, Step::Set(..)));
        for step in steps {
            match step {
                Step::Set(address, endpoints) => drop(self.set(address, &endpoints)),
                Step::Remove(address) => self.remove(address),
            }
        }
        let waiting: Vec<_> = self.left_out.iter().copied().collect();
        for address in waiting {
            match self.plan.endpoints(&mesh, address) {
                // One that finds no room tells that of the others.
                Some(endpoints) if !self.set(address, &endpoints) => break,
                Some(_) => {}
                None => drop(self.left_out.remove(&address)),
            }
        }
        self.warned &= !self.left_out.is_empty();
        self.metrics.left_out.set(count(self.left_out.len()));
        self.metrics.programmed.set(count(self.plan.len().saturating_sub(self.left_out.len())));
        if let Some((status, received)) = self.status.as_ref().zip(received) {
            status.programmed(received);
        }
    }
}

impl Sync {
    /// Programs an address; tells whether it found room.
    fn set(&mut self, address: SocketAddr, endpoints: &[SocketAddr]) -> bool {
        let Err(error) = self.steering.set_service(address, endpoints) else {
            self.left_out.remove(&address);
            return true;
        };
        if matches!(error, MapError::Full { .. }) {
            self.metrics.full.inc();
        }
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(%address, %error, "a service cannot be steered as it should, and more may follow");
        }
        self.left_out.insert(address);
        false
    }

    fn remove(&mut self, address: SocketAddr) {
        self.left_out.remove(&address);
        if let Err(error) = self.steering.remove_service(address) {
            tracing::warn!(%address, %error, "a service cannot be taken out of the maps");
        }
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
