//! A client under test and what can be seen of it.

use std::{sync::Arc, time::Duration};

use cache::{Cache, Node};
use prometheus::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use xds::{Config, Identity, Status, Timing};

use crate::plane::PATIENCE;

/// A client that runs until dropped.
pub(crate) struct World {
    pub(crate) cache: Arc<Cache>,
    pub(crate) status: Arc<Status>,
    registry: Registry,
    task: JoinHandle<()>,
    shutdown: DropGuard,
}

/// A configuration whose waits suit a test.
pub(crate) fn config(address: impl ToString) -> Config {
    Config {
        address: address.to_string().parse().unwrap(),
        root_ca: "/nonexistent/root-cert.pem".into(),
        token: None,
        identity: Identity {
            node: "node-1".to_owned(),
            cluster: "Kubernetes".to_owned(),
            network: String::new(),
            ip: [10, 0, 0, 1].into(),
            pod: "meshd-x".to_owned(),
            namespace: "mesh".to_owned(),
        },
        timing: Timing {
            backoff_min: Duration::from_millis(30),
            backoff_max: Duration::from_millis(60),
            ..Timing::default()
        },
    }
}

impl World {
    pub(crate) fn start(config: Config) -> Self {
        let cache = Arc::new(Cache::new(Node { name: "node-1".into(), network: "".into() }));
        let registry = Registry::new();
        let status = Arc::new(Status::register(&registry).unwrap());
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(xds::run(config, cache.clone(), status.clone(), shutdown.clone()));
        Self { cache, status, registry, task, shutdown: shutdown.drop_guard() }
    }

    /// Starts a client of a control plane that is reached in the clear.
    pub(crate) fn of(plane: &crate::plane::Plane) -> Self {
        Self::start(config(format!("http://{}", plane.address)))
    }

    /// Returns the uids of all workloads and the keys of all services, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let now = self.cache.load();
        let workloads = now.workloads().map(|w| w.uid.to_string());
        let mut names: Vec<_> = workloads.chain(now.services().map(|s| s.key().to_string())).collect();
        names.sort_unstable();
        names
    }

    /// Returns a metric, summed over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|f| f.name() == name).unwrap_or_else(|| panic!("no metric {name}"));
        let value = |m: &prometheus::proto::Metric| m.get_counter().get_value() + m.get_gauge().get_value();
        family.get_metric().iter().map(value).sum()
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("never: {what}; holds {:?}", self.names()));
    }

    /// Waits for a failure and returns its line.
    pub(crate) async fn failure(&self) -> String {
        self.until("a failure", |world| world.status.last_error().is_some()).await;
        self.status.last_error().unwrap()
    }

    /// Ends the client and waits for its end.
    pub(crate) async fn stop(self) {
        drop(self.shutdown);
        tokio::time::timeout(PATIENCE, self.task).await.expect("it does not end").unwrap();
    }
}
