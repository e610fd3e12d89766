//! A mesh of any size, with names as long as real ones.

use std::{net::Ipv4Addr, sync::Arc};

use cache::{Cache, Node, Service, Str, Workload};

/// Workloads of one service.
pub const REPLICAS: usize = 10;
/// The port that services have and workloads listen on.
pub const PORT: u16 = 9080;
/// The node that `Cache`s of [`cache`] belong to.
pub const NODE: &str = "worker-0.eu-central-1.compute.internal";

/// Makes the `n`th workload.
pub fn workload(n: usize) -> Workload {
    let app = n / REPLICAS;
    let name = arcstr::format!("productpage-{app}-v1-8499c849b9-{n:05}");
    let namespace = namespace(n);
    Workload {
        uid: arcstr::format!("Kubernetes//v1/Pod/{namespace}/{name}"),
        name,
        service_account: arcstr::format!("bookinfo-productpage-{app}"),
        trust_domain: Str::from("cluster.local"),
        node: if n.is_multiple_of(REPLICAS) {
            NODE.into()
        } else {
            arcstr::format!("worker-{}.internal", n % REPLICAS)
        },
        cluster_id: Str::from("Kubernetes"),
        workload_name: arcstr::format!("productpage-{app}-v1"),
        workload_type: Str::from("deployment"),
        canonical_name: arcstr::format!("productpage-{app}"),
        canonical_revision: Str::from("v1"),
        addresses: [address(n).into()].into(),
        services: [(arcstr::format!("{namespace}/{}", hostname(app)), [(PORT, PORT)].into())].into(),
        namespace,
        ..Workload::default()
    }
}

/// Makes the service of the workload `n` and its nine neighbours.
pub fn service(n: usize) -> Service {
    let app = n / REPLICAS;
    Service {
        name: arcstr::format!("productpage-{app}"),
        namespace: namespace(n),
        hostname: hostname(app),
        vips: [(Str::new(), vip(n).into())].into(),
        ports: [(PORT, PORT)].into(),
        ..Service::default()
    }
}

/// Returns the address of the workload `n`.
pub fn address(n: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 128, 0, 0).to_bits() + n as u32)
}

/// Returns the virtual address of the workload's service.
pub fn vip(n: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 0).to_bits() + (n / REPLICAS) as u32)
}

/// Makes a cache that holds so many workloads and their services.
pub fn cache(workloads: usize) -> Arc<Cache> {
    let cache = Cache::new(Node { name: NODE.into(), network: Str::new() });
    cache.replace((0..workloads).map(workload), (0..workloads).step_by(REPLICAS).map(service));
    Arc::new(cache)
}

fn namespace(n: usize) -> Str {
    arcstr::format!("bookinfo-{}", n / (REPLICAS * 10))
}

fn hostname(app: usize) -> Str {
    arcstr::format!("productpage-{app}.bookinfo-{}.svc.cluster.local", app / 10)
}
