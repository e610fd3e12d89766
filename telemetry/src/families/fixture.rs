//! A small mesh and its families, for tests of this crate.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use cache::{Cache, Held, Node, Service, Workload};
use prometheus::Registry;

use super::{Ends, Families};
use crate::{Exposition, Format, SelfMetrics};

/// The address that every destination of these tests is reached at.
pub(crate) const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 13));
/// One second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Families, their exposition and the mesh that they describe.
pub(crate) struct Fixture {
    pub(crate) families: Families,
    pub(crate) exposition: Exposition,
    cache: Cache,
}

impl Fixture {
    pub(crate) fn new(max_series: usize) -> Self {
        let families = Families::new(max_series, "Kubernetes".into());
        let registry = Registry::new();
        let metrics = SelfMetrics::register(&registry).expect("the registry is new");
        let exposition = Exposition::new(families.reader(), registry, metrics.scrape);
        Self { families, exposition, cache: Cache::new(Node::default()) }
    }

    /// Puts a workload into the mesh.
    pub(crate) fn workload(&self, workload: Workload) -> Arc<Held<Workload>> {
        let uid = workload.uid.clone();
        self.cache.apply(cache::Delta { workloads: vec![workload], ..Default::default() });
        Arc::clone(self.cache.load().workload(&uid).expect("it was put there"))
    }

    /// Puts a service into the mesh.
    pub(crate) fn service(&self, service: Service) -> Arc<Held<Service>> {
        let key = service.key();
        self.cache.apply(cache::Delta { services: vec![service], ..Default::default() });
        Arc::clone(self.cache.load().service(&key).expect("it was put there"))
    }

    /// Resolves the ends of a connection from the workload of a name to another.
    pub(crate) fn ends(&mut self, source: &str, destination: &str) -> Ends {
        let source = self.workload(pod("shop", source));
        let destination = self.workload(pod("echo", destination));
        self.families.ends(Some(&source), Some(&destination), ADDRESS, None)
    }

    /// Publishes and scrapes.
    pub(crate) fn scrape(&mut self, format: Format) -> String {
        self.families.publish();
        encode(&self.exposition, format)
    }

    /// Publishes, scrapes and returns the samples.
    pub(crate) fn samples(&mut self) -> Samples {
        Samples::of(&self.scrape(Format::Text))
    }
}

/// Scrapes.
pub(crate) fn encode(exposition: &Exposition, format: Format) -> String {
    let mut out = Vec::new();
    exposition.encode(format, &mut out).expect("a vector takes everything");
    String::from_utf8(out).expect("both formats are UTF-8")
}

/// A pod whose names are all made of one.
pub(crate) fn pod(namespace: &str, name: &str) -> Workload {
    Workload {
        uid: arcstr::format!("cluster1//v1/Pod/{namespace}/{name}"),
        name: arcstr::format!("{name}-x2x"),
        namespace: namespace.into(),
        service_account: arcstr::format!("{name}-account"),
        trust_domain: "cluster.local".into(),
        cluster_id: "cluster1".into(),
        workload_name: name.into(),
        canonical_name: arcstr::format!("{name}-app"),
        canonical_revision: "v2".into(),
        ..Workload::default()
    }
}

/// Samples of a scrape by name and labels, as written.
pub(crate) struct Samples(BTreeMap<String, f64>);

impl Samples {
    pub(crate) fn of(text: &str) -> Self {
        let mut samples = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
            let value = value.parse().expect("a value is a number");
            assert!(samples.insert(series.to_owned(), value).is_none(), "{series} stands twice");
        }
        Self(samples)
    }

    /// Returns the samples of a metric that have all of these pieces of label text.
    pub(crate) fn find(&self, metric: &str, labels: &[&str]) -> Vec<f64> {
        let begin = format!("{metric}{{");
        let fits = |series: &str| series.starts_with(&begin) && labels.iter().all(|label| series.contains(label));
        self.0.iter().filter(|(series, _)| fits(series)).map(|(_, value)| *value).collect()
    }

    /// Returns the sum of a metric's samples and of what retired from it.
    pub(crate) fn total(&self, metric: &str) -> f64 {
        let retired = format!("family=\"{metric}\"");
        self.find(metric, &[]).iter().sum::<f64>()
            + self.find("meshd_telemetry_retired_total", &[&retired]).iter().sum::<f64>()
    }
}
