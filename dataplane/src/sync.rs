//! Keeps the steering maps in step with the mesh.

mod balance;
mod explain;
mod plan;
mod route;
mod site;
mod waypoint;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cache::{Cache, Change, Str};
use prometheus::{IntCounter, IntGauge, Registry};
use rustc_hash::FxHashSet;
use tokio_util::sync::CancellationToken;
use xds::Status;

use crate::{
    health::{Condition, Readiness},
    kernel::{Dialled, Kernel, MapError, Steering, Target, Waypoints},
    memory,
};
pub use explain::{Answer, Considered, Explainer, Verdict};
use plan::{Plan, Step};
use site::Site;

/// Where the admin port explains a connection.
pub(crate) const EXPLAIN: &str = "/debug/explain";
/// Where it tells where connections to services go.
pub(crate) const SERVICES: &str = "/debug/steering";
/// How long changes are gathered after some were programmed; the first one after a pause goes at once.
const GATHER: Duration = Duration::from_millis(10);
/// How often what found no room is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What it measures.
#[derive(Clone, Debug)]
struct Metrics {
    programmed: IntGauge,
    left_out: IntGauge,
    contested: IntGauge,
    full: IntCounter,
}

/// Follows the mesh and programs what changed.
#[derive(Debug)]
pub struct Sync {
    cache: Arc<Cache>,
    steering: Steering,
    waypoints: Waypoints,
    plan: Plan,
    /// Where this node is, for who explains.
    site: Arc<Mutex<Site>>,
    /// Addresses that found the map full; tried again with each change.
    left_out: FxHashSet<Dialled>,
    /// It was said that some are left out, and some still are.
    warned: bool,
    /// Told when what the control plane sent is programmed.
    status: Option<Arc<Status>>,
    metrics: Metrics,
}

impl Sync {
    /// Makes it; nothing is programmed yet. `cluster` is the node's. `status` is that of the control plane's client, if there is one.
    ///
    /// # Errors
    /// The registry has a metric of one of these names already.
    pub fn new(
        cache: Arc<Cache>,
        kernel: &Kernel,
        cluster: Str,
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
            contested: IntGauge::new(
                "meshd_steering_addresses_contested",
                "Addresses of services that are not steered because a workload has them too.",
            )?,
            full: IntCounter::new(
                "meshd_steering_map_full_total",
                "Times that a service address could not be programmed because a map was full.",
            )?,
        };
        registry.register(Box::new(metrics.programmed.clone()))?;
        registry.register(Box::new(metrics.left_out.clone()))?;
        registry.register(Box::new(metrics.contested.clone()))?;
        registry.register(Box::new(metrics.full.clone()))?;
        let node = cache.node();
        let (network, node) = (node.network.clone(), node.name.clone());
        let site = Site { network, node, cluster, ..Site::default() };
        let (plan, site) = (Plan::new(site.clone()), Arc::new(Mutex::new(site)));
        let (steering, waypoints) = (kernel.steering(), kernel.waypoints());
        Ok(Self {
            cache,
            steering,
            waypoints,
            plan,
            site,
            left_out: FxHashSet::default(),
            warned: false,
            status,
            metrics,
        })
    }
}

impl Sync {
    /// Makes one who explains what is programmed.
    pub fn explainer(&self) -> Explainer {
        let steering = self.steering.clone();
        Explainer::new(self.cache.clone(), self.site.clone(), move |dialled| steering.has(dialled))
    }

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
        let mut changes = self.cache.subscribe();
        loop {
            let change = tokio::select! {
                change = changes.changed() => change,
                () = tokio::time::sleep(RETRY), if !self.left_out.is_empty() => Change::default(),
                () = stop.cancelled() => return Ok(()),
            };
            // The first whole state is a change of everything.
            if !self.cache.state().complete {
                continue;
            }
            readiness.met(Condition::State);
            self.program(&change);
            readiness.met(Condition::Maps);
            if !programmed.is_cancelled() {
                programmed.cancel();
                memory::give_back();
            }
            tokio::select! { () = tokio::time::sleep(GATHER) => {}, () = stop.cancelled() => return Ok(()) }
        }
    }

    fn program(&mut self, change: &Change) {
        let mesh = Arc::clone(&*self.cache.load());
        let mut steps = self.plan.steps(&mesh, change);
        if change.full {
            // What a daemon before has programmed, and nobody wants any more; some of it may be among the steps already.
            let gone = self.steering.programmed().into_iter().filter(|dialled| !self.plan.has(*dialled));
            steps.extend(gone.map(Step::Remove));
        }
        self.site.lock().unwrap_or_else(PoisonError::into_inner).clone_from(self.plan.site());
        // Before anything goes to a waypoint: its own namespace must not.
        if let Err(error) = self.waypoints.set_addresses(self.plan.own_waypoints()) {
            tracing::warn!(%error, "a waypoint on this node may be sent to itself");
        }
        // What makes room comes before what needs it, and what waits for room comes last.
        steps.sort_by_key(|step| matches!(step, Step::Set(..)));
        for step in steps {
            match step {
                Step::Set(dialled, target) => drop(self.set(dialled, &target)),
                Step::Remove(dialled) => self.remove(dialled),
            }
        }
        let waiting: Vec<_> = self.left_out.iter().copied().collect();
        for dialled in waiting {
            match self.plan.target(&mesh, dialled) {
                // One that finds no room tells that of the others.
                Some(target) if !self.set(dialled, &target) => break,
                Some(_) => {}
                None => drop(self.left_out.remove(&dialled)),
            }
        }
        if let Some((status, received)) = self.status.as_ref().zip(change.received) {
            status.programmed(received);
        }
        self.warned &= !self.left_out.is_empty();
        self.metrics.contested.set(count(self.plan.contested()));
        self.metrics.left_out.set(count(self.left_out.len()));
        self.metrics.programmed.set(count(self.plan.len().saturating_sub(self.left_out.len())));
    }
}

impl Sync {
    /// Programs what is dialled; tells whether it found room. If it did not, connects go where they want to.
    fn set(&mut self, dialled: Dialled, target: &Target) -> bool {
        let Err(error) = self.steering.set(dialled, target) else {
            self.left_out.remove(&dialled);
            return true;
        };
        if matches!(error, MapError::Full { .. }) {
            self.metrics.full.inc();
        }
        if !std::mem::replace(&mut self.warned, true) {
            let address = dialled.address;
            tracing::warn!(%address, %error, "a service cannot be steered, and more may follow");
        }
        self.left_out.insert(dialled);
        false
    }

    fn remove(&mut self, dialled: Dialled) {
        self.left_out.remove(&dialled);
        if let Err(error) = self.steering.remove(dialled) {
            let address = dialled.address;
            tracing::warn!(%address, %error, "a service cannot be taken out of the maps");
        }
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
