//! Enrols the network namespaces of this node's workloads: those that hold a workload's address.

mod adoption;
mod metrics;
pub(crate) mod namespace;
mod roster;

use std::{
    io,
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use cache::{Cache, Change, NetworkMode, Str, Workload};
use prometheus::Registry;
use rustc_hash::{FxHashMap, FxHashSet};
use telemetry::NodeAddresses;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::{
    cli::Manage,
    health::{Condition, Readiness},
    kernel::{self, Kernel},
    process::{self, Inode, Processes},
};
use adoption::Adoption;
use metrics::Metrics;
use roster::{Failures, Manager, Roster};

/// How often known namespaces are checked for life and, while a workload's is missing, all processes are looked at.
const LOOK: Duration = Duration::from_millis(400);
/// How long changes are gathered, so that a mesh that changes all the time costs little.
const GATHER: Duration = Duration::from_millis(50);
/// How often a failure that goes on is logged again.
const REMIND: Duration = Duration::from_secs(60);
/// How often it is looked for namespaces that the CNI signal enrolled and that are gone.
const SWEEP: Duration = Duration::from_secs(600);

/// Follows the mesh's workloads of this node and the namespaces of its processes.
#[derive(Debug)]
pub struct Enroller {
    cache: Arc<Cache>,
    manager: kernel::Manager,
    waypoints: kernel::Waypoints,
    processes: Processes,
    /// The host's namespace and our own: never managed.
    never: Vec<Inode>,
    /// Mesh state enrols, not the CNI signal alone.
    by_mesh: bool,
    /// Addresses of this node's workloads, by uid.
    workloads: FxHashMap<Str, Box<[IpAddr]>>,
    roster: Roster,
    adoption: Adoption,
    /// Told which addresses each namespace has.
    node: Arc<NodeAddresses>,
    /// When the signal's namespaces were last looked through, and which of them were gone then.
    swept: (Instant, FxHashSet<u64>),
    metrics: Metrics,
    reminded: Option<Instant>,
}

impl Manager for kernel::Manager {
    fn enrol(&mut self, cookie: u64) -> anyhow::Result<()> {
        Ok(Self::enrol(self, cookie)?)
    }
    fn remove(&mut self, cookie: u64) -> anyhow::Result<()> {
        Ok(Self::remove(self, cookie)?)
    }
}

impl Enroller {
    /// Makes it; nothing is enrolled yet. `proc` is where the host's processes are seen; by [`Manage::Mesh`] the workloads that
    /// mesh state has on this node are enrolled, else the CNI signal's word is only kept tidy. Whatever is managed is searched for older
    /// connections. `node` is told which addresses each namespace has.
    ///
    /// # Errors
    /// `proc` cannot be read.
    pub fn new(
        cache: Arc<Cache>,
        kernel: &Kernel,
        proc: &Path,
        manage: Manage,
        node: Arc<NodeAddresses>,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let processes = Processes::open(proc).with_context(|| format!("cannot open --proc {}", proc.display()))?;
        let own = process::own().context("cannot see our own network namespace")?;
        // Where the host's first process may not be looked at, no address of the host's is a workload's all the same.
        let never = processes.host().into_iter().chain([own]).collect();
        Ok(Self {
            cache,
            manager: kernel.manager(),
            waypoints: kernel.waypoints(),
            processes,
            never,
            by_mesh: manage == Manage::Mesh,
            workloads: FxHashMap::default(),
            roster: Roster::default(),
            adoption: Adoption::new(kernel.adopter(), manage == Manage::All),
            node,
            swept: (Instant::now(), FxHashSet::default()),
            metrics: Metrics::register(registry)?,
            reminded: None,
        })
    }

    /// Enrols until told to stop. It begins once the maps are programmed, so that a managed connection finds them so; `looked` is told when
    /// every namespace was looked into once.
    ///
    /// # Errors
    /// None that it recovers from; the result fits a required thread.
    pub fn run(
        mut self,
        runtime: &Handle,
        programmed: &CancellationToken,
        looked: &CancellationToken,
        readiness: &Readiness,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut changes = self.cache.subscribe();
        runtime.block_on(async {
            tokio::select! { () = programmed.cancelled() => {}, () = stop.cancelled() => {} }
        });
        let mut changed = true;
        let mut left = self.enrolled_before();
        while !stop.is_cancelled() {
            changed |= changes.pending().is_some_and(|change| self.follow(&change));
            let search = self.search_is_due();
            let due = changed || search || self.missing() > 0 || !self.roster.holds() || !left.is_empty();
            if due && self.pass(readiness) {
                self.leave(std::mem::take(&mut left));
            }
            looked.cancel();
            if self.swept.0.elapsed() >= SWEEP {
                self.sweep(readiness);
            }
            changed = runtime.block_on(async {
                tokio::select! {
                    () = stop.cancelled() => false,
                    () = tokio::time::sleep(LOOK) => false,
                    change = changes.changed() => {
                        tokio::time::sleep(GATHER).await;
                        self.follow(&change)
                    }
                }
            });
        }
        Ok(())
    }

    /// Lists the namespaces that a daemon before has enrolled for mesh state.
    fn enrolled_before(&self) -> Vec<u64> {
        let listed = self.manager.list().unwrap_or_else(|error| {
            tracing::warn!(error = format!("{error:#}"), "the map of managed namespaces cannot be read");
            Vec::new()
        });
        listed.into_iter().filter(|namespace| namespace.mesh).map(|namespace| namespace.netns).collect()
    }

    /// Takes those of these namespaces out that are not wanted any more.
    fn leave(&mut self, left: Vec<u64>) {
        for cookie in left.into_iter().filter(|cookie| !self.roster.has_enrolled(*cookie)) {
            if let Err(error) = self.manager.remove(cookie) {
                tracing::warn!(%error, "a namespace that is not the mesh's any more cannot be taken out");
                self.metrics.map.inc();
            }
        }
    }

    /// Follows the mesh; tells whether a workload of this node came, moved or went.
    fn follow(&mut self, change: &Change) -> bool {
        if !self.by_mesh {
            return false;
        }
        let mesh = self.cache.load();
        let node = &self.cache.node().name;
        let ours = |w: &Workload| w.node == *node && w.network_mode == NetworkMode::Standard && !w.addresses.is_empty();
        if change.full {
            let all = mesh.workloads_here().filter(|w| ours(w)).map(|w| (w.uid.clone(), w.addresses.clone())).collect();
            let old = std::mem::replace(&mut self.workloads, all);
            return old != self.workloads;
        }
        let mut changed = false;
        for uid in &change.workloads {
            let now = mesh.workload(uid).filter(|w| ours(w)).map(|w| w.addresses.clone());
            changed |= self.workloads.get(uid) != now.as_ref();
            match now {
                Some(addresses) => drop(self.workloads.insert(uid.clone(), addresses)),
                None => drop(self.workloads.remove(uid)),
            }
        }
        changed
    }

    /// Counts the workloads that no enrolled namespace holds.
    fn missing(&self) -> usize {
        self.roster.missing(self.workloads.values())
    }

    fn search_is_due(&mut self) -> bool {
        self.adoption.due(&self.manager).unwrap_or_else(|error| {
            tracing::warn!(error = format!("{error:#}"), "the map of signalled namespaces cannot be read");
            self.metrics.map.inc();
            false
        })
    }

    fn pass(&mut self, readiness: &Readiness) -> bool {
        let mut failures = Failures::default();
        let looked = self.roster.look(&self.processes, &self.never, namespace::visit, &mut self.manager, &mut failures);
        let wanted: FxHashSet<IpAddr> = self.workloads.values().flat_map(|a| a.iter().copied()).collect();
        self.node.set_pods(self.roster.addresses(&wanted));
        // Before it is managed: a waypoint must not be sent to itself.
        if let Err(error) = self.waypoints.set_namespaces(self.roster.addresses(&wanted)) {
            failures.unwritten += 1;
            failures.first.get_or_insert_with(|| error.to_string());
        }
        let before = self.roster.enrolled();
        self.roster.settle(&wanted, &mut self.manager, &mut failures);
        // After they are managed: so nothing is missed in between.
        let unsearched = self.adoption.search(&mut self.roster);
        self.metrics.adoption.inc_by(unsearched.len() as u64);
        if let Some(error) = unsearched.first() {
            tracing::warn!(error = format!("{error:#}"), "some connections older than meshd are not seen");
        }
        let (enrolled, missing) = (self.roster.enrolled(), self.missing());
        if enrolled != before {
            tracing::info!(enrolled, missing, "network namespaces of this node's workloads");
        }
        self.metrics.enrolled.set(count(enrolled));
        self.metrics.missing.set(count(missing));
        self.report(looked, failures, readiness)
    }

    /// Counts what failed, says it once a minute while it goes on, and tells readiness; returns whether nothing did.
    fn report(&mut self, looked: io::Result<()>, mut failures: Failures, readiness: &Readiness) -> bool {
        self.metrics.unseen.set(count(failures.denied));
        self.metrics.namespace.inc_by(failures.unvisited as u64);
        self.metrics.map.inc_by(failures.unwritten as u64);
        if let Err(error) = looked {
            self.metrics.proc.inc();
            failures.first.get_or_insert_with(|| format!("the host's processes cannot be listed: {error}"));
        }
        if failures.denied > 0 && self.missing() > 0 {
            let text =
                "a workload's network namespace may be among those that may not be seen: CAP_SYS_PTRACE is missing";
            failures.first.get_or_insert_with(|| text.to_owned());
        }
        let Some(first) = failures.first else {
            self.reminded = None;
            readiness.met(Condition::Enrolled);
            return true;
        };
        if self.reminded.is_none_or(|at| at.elapsed() >= REMIND) {
            self.reminded = Some(Instant::now());
            tracing::warn!(reason = first, "not every workload of this node can be enrolled");
        }
        readiness.waiting(Condition::Enrolled, first);
        false
    }

    /// Takes back what the CNI signal said of namespaces that two sweeps in a row found gone: nobody signals their end.
    fn sweep(&mut self, readiness: &Readiness) {
        self.swept.0 = Instant::now();
        let signalled: Vec<_> = match self.manager.list() {
            Ok(all) => all.into_iter().filter(|n| n.signal).map(|n| n.netns).collect(),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the map of managed namespaces cannot be read");
                return;
            }
        };
        if signalled.is_empty() || !self.pass(readiness) {
            return;
        }
        let gone: FxHashSet<_> = signalled.into_iter().filter(|cookie| !self.roster.knows(*cookie)).collect();
        for cookie in gone.intersection(&self.swept.1) {
            if let Err(error) = self.manager.forget_signal(*cookie) {
                tracing::warn!(%error, "a namespace that is gone cannot be taken out");
                self.metrics.map.inc();
            }
        }
        self.swept.1 = gone;
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
