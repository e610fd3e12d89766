//! What is known of the mesh, and how its file fares, measured when asked.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::UNIX_EPOCH,
};

use cache::Cache;
use prometheus::{
    Gauge, IntCounterVec, IntGauge, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use xds::file::FileStatus;

/// Reads cache and file status at each scrape.
struct Metrics {
    cache: Arc<Cache>,
    file: Option<Arc<FileStatus>>,
    gauges: Gauges,
    /// Held while the counters follow the file's status.
    loads: Mutex<IntCounterVec>,
}

struct Gauges {
    workloads: IntGauge,
    services: IntGauge,
    updated: Gauge,
    good: IntGauge,
}

/// Registers the metrics of a cache and, where the mesh comes from one, of its file.
pub(super) fn register(
    cache: Arc<Cache>,
    file: Option<Arc<FileStatus>>,
    registry: &Registry,
) -> prometheus::Result<()> {
    let gauges = Gauges {
        workloads: IntGauge::new("meshd_mesh_workloads", "Workloads that are known.")?,
        services: IntGauge::new("meshd_mesh_services", "Services that are known.")?,
        updated: Gauge::new(
            "meshd_mesh_updated_timestamp_seconds",
            "When the mesh state was last told or confirmed by its source, Unix time.",
        )?,
        good: IntGauge::new("meshd_mesh_file_good", "1 while the mesh state is what the file says, else 0.")?,
    };
    let loads = IntCounterVec::new(
        Opts::new("meshd_mesh_file_loads_total", "New contents of the mesh file, by what became of them."),
        &["result"],
    )?;
    registry.register(Box::new(Metrics { cache, file, gauges, loads: Mutex::new(loads) }))
}

impl Collector for Metrics {
    fn desc(&self) -> Vec<&Desc> {
        let Gauges { workloads, services, updated, good } = &self.gauges;
        [workloads.desc(), services.desc(), updated.desc(), good.desc()].concat()
    }

    #[expect(clippy::disallowed_methods, reason = "the label's values are a closed set of our own")]
    fn collect(&self) -> Vec<MetricFamily> {
        let Gauges { workloads, services, updated, good } = &self.gauges;
        let mesh = self.cache.load();
        workloads.set(i64::try_from(mesh.workload_count()).unwrap_or(i64::MAX));
        services.set(i64::try_from(mesh.service_count()).unwrap_or(i64::MAX));
        let since_epoch = self.cache.state().updated_wall.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        updated.set(since_epoch.unwrap_or_default().as_secs_f64());
        let mut all = [workloads.collect(), services.collect(), updated.collect()].concat();
        if let Some(file) = &self.file {
            let loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
            let report = file.report();
            for (result, total) in [("applied", report.loads), ("refused", report.errors)] {
                let counter = loads.with_label_values(&[result]);
                counter.inc_by(total.saturating_sub(counter.get()));
            }
            good.set(report.good.into());
            all.extend([good.collect(), loads.collect()].concat());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use cache::{Cache, Node};
    use prometheus::Registry;
    use xds::file::MeshFile;

    #[test]
    fn cache_and_file_are_measured_when_asked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mesh.yaml");
        fs::write(&path, "workloads:\n- uid: a\n  name: a\n  namespace: shop\n  workloadIps: [10.0.0.5]\n").unwrap();
        let cache = Arc::new(Cache::new(Node::default()));
        let file = MeshFile::load(&path, cache.clone()).unwrap();
        let registry = Registry::new();
        super::register(cache, Some(file.status()), &registry).unwrap();
        for _ in 0..2 {
            let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
            for line in [
                "meshd_mesh_workloads 1",
                "meshd_mesh_file_good 1",
                "meshd_mesh_file_loads_total{result=\"applied\"} 1",
            ] {
                assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
            }
        }
    }
}
