//! Enrols the network namespaces of this node's workloads: those that hold a workload's address.

pub(crate) mod namespace;
mod process;
mod roster;

use std::{
    io,
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use cache::{Cache, Change, NetworkMode, Str};
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::{
    health::{Condition, Readiness},
    kernel,
};
use process::{Inode, Processes};
use roster::{Failures, Manager, Roster};

/// How often all processes are looked at while a workload's namespace is missing.
const SEARCH: Duration = Duration::from_millis(300);
/// How often known namespaces are checked for life.
const CHECK: Duration = Duration::from_millis(500);
/// How long changes are gathered, so that a mesh that changes all the time costs little.
const GATHER: Duration = Duration::from_millis(50);
/// How often a failure that goes on is logged again.
const REMIND: Duration = Duration::from_secs(60);

/// What enrolment measures.
#[derive(Clone, Debug)]
struct Metrics {
    enrolled: IntGauge,
    failures: IntCounterVec,
}

/// Follows the mesh's workloads of this node and the namespaces of its processes.
#[derive(Debug)]
pub struct Enroller {
    cache: Arc<Cache>,
    manager: kernel::Manager,
    processes: Processes,
    /// The host's namespace and our own: never managed.
    never: Vec<Inode>,
    /// Addresses of this node's workloads, by uid.
    workloads: FxHashMap<Str, Box<[IpAddr]>>,
    roster: Roster,
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
    /// Makes it; nothing is enrolled yet. `proc` is where the host's processes are seen.
    ///
    /// # Errors
    /// `proc` is no proc file system, or its first process may not be looked at.
    pub fn new(cache: Arc<Cache>, manager: kernel::Manager, proc: &Path, registry: &Registry) -> anyhow::Result<Self> {
        let processes = Processes::open(proc).with_context(|| format!("cannot open --proc {}", proc.display()))?;
        let host = processes.host().with_context(|| {
            format!(
                "cannot see the host's network namespace under --proc {}: run as root with CAP_SYS_PTRACE",
                proc.display()
            )
        })?;
        let own = process::own().context("cannot see our own network namespace")?;
        let metrics = Metrics {
            enrolled: IntGauge::new(
                "meshd_enrolled_namespaces",
                "Network namespaces of this node's workloads that are managed.",
            )?,
            failures: IntCounterVec::new(
                Opts::new(
                    "meshd_enrol_failures_total",
                    "What kept a namespace from being enrolled or taken out, by reason.",
                ),
                &["reason"],
            )?,
        };
        registry.register(Box::new(metrics.enrolled.clone()))?;
        registry.register(Box::new(metrics.failures.clone()))?;
        for reason in ["proc", "namespace", "map"] {
            metrics.failures.with_label_values(&[reason]);
        }
        let (workloads, roster) = (FxHashMap::default(), Roster::default());
        Ok(Self { cache, manager, processes, never: vec![host, own], workloads, roster, metrics, reminded: None })
    }
}

impl Enroller {
    /// Enrols until told to stop. It begins once the maps are programmed, so that a managed connection finds them so.
    ///
    /// # Errors
    /// None that it recovers from; the result fits a required thread.
    pub fn run(
        mut self,
        runtime: &Handle,
        programmed: &CancellationToken,
        readiness: &Readiness,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut changes = self.cache.subscribe();
        runtime.block_on(async {
            tokio::select! { () = programmed.cancelled() => {}, () = stop.cancelled() => {} }
        });
        let mut changed = true;
        while !stop.is_cancelled() {
            changed |= changes.pending().is_some_and(|change| self.follow(&change));
            if changed || !self.covered() || !self.roster.holds() {
                self.pass(readiness);
            }
            let time = if self.covered() { CHECK } else { SEARCH };
            changed = runtime.block_on(async {
                tokio::select! {
                    () = stop.cancelled() => false,
                    () = tokio::time::sleep(time) => false,
                    change = changes.changed() => {
                        tokio::time::sleep(GATHER).await;
                        self.follow(&change)
                    }
                }
            });
        }
        Ok(())
    }

    fn covered(&self) -> bool {
        self.roster.covers(self.workloads.values())
    }

    fn pass(&mut self, readiness: &Readiness) {
        let mut failures = Failures::default();
        let looked = self.roster.look(&self.processes, &self.never, namespace::visit, &mut self.manager, &mut failures);
        let wanted: FxHashSet<IpAddr> = self.workloads.values().flat_map(|a| a.iter().copied()).collect();
        self.roster.settle(&wanted, &mut self.manager, &mut failures);
        self.metrics.enrolled.set(i64::try_from(self.roster.enrolled()).unwrap_or(i64::MAX));
        self.report(looked, failures, readiness);
    }

    /// Follows the mesh; tells whether a workload of this node came, moved or went.
    fn follow(&mut self, change: &Change) -> bool {
        let mesh = self.cache.load();
        let node = &self.cache.node().name;
        let own =
            |w: &cache::Workload| w.node == *node && w.network_mode == NetworkMode::Standard && !w.addresses.is_empty();
        if change.full {
            let all = mesh.workloads().filter(|w| own(w)).map(|w| (w.uid.clone(), w.addresses.clone())).collect();
            let old = std::mem::replace(&mut self.workloads, all);
            return old != self.workloads;
        }
        let mut changed = false;
        for uid in &change.workloads {
            let now = mesh.workload(uid).filter(|w| own(w)).map(|w| w.addresses.clone());
            changed |= self.workloads.get(uid) != now.as_ref();
            match now {
                Some(addresses) => drop(self.workloads.insert(uid.clone(), addresses)),
                None => drop(self.workloads.remove(uid)),
            }
        }
        changed
    }

    /// Counts what failed, says it once a minute while it goes on, and tells readiness.
    fn report(&mut self, looked: io::Result<()>, mut failures: Failures, readiness: &Readiness) {
        let count = |reason: &str, n: usize| self.metrics.failures.with_label_values(&[reason]).inc_by(n as u64);
        count("proc", failures.denied + usize::from(looked.is_err()));
        count("namespace", failures.unvisited);
        count("map", failures.unwritten);
        if let Err(error) = looked {
            failures.first.get_or_insert_with(|| format!("the host's processes cannot be listed: {error}"));
        }
        if failures.denied > 0 {
            let text = "the network namespaces of some processes may not be seen: CAP_SYS_PTRACE is missing";
            failures.first.get_or_insert_with(|| text.to_owned());
        }
        let Some(first) = failures.first else {
            self.reminded = None;
            return readiness.met(Condition::Enrolled);
        };
        if self.reminded.is_none_or(|at| at.elapsed() >= REMIND) {
            self.reminded = Some(Instant::now());
            tracing::warn!(reason = first, "not every workload of this node can be enrolled");
        }
        readiness.waiting(Condition::Enrolled, first);
    }
}
