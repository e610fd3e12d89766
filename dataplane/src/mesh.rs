//! Where the mesh state comes from, as the flags say.

mod metrics;
mod standing;

use std::{net::IpAddr, sync::Arc};

use anyhow::Context;
use cache::Cache;
use prometheus::Registry;
use xds::{
    Status,
    file::{FileStatus, MeshFile},
};

use crate::{cli::Run, enrol::namespace::addresses, node, tasks::Tasks};
pub use standing::Standing;

/// Where the admin port tells how the mesh state stands.
pub const PATH: &str = "/debug/mesh";

/// A source of mesh state, ready to be followed.
#[derive(Debug)]
pub enum Mesh {
    /// A file, read and applied.
    File(MeshFile),
    /// istiod, which is asked from [`Mesh::follow`] on.
    Istiod(Box<xds::Config>),
    /// None: everything is managed, nothing is named.
    None,
}

/// How the source that is followed fares.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file.
    File(Arc<FileStatus>),
    /// istiod.
    Istiod(Arc<Status>),
    /// There is none.
    None,
}

impl Source {
    /// Returns how the connection to the control plane fares, where the state is from one.
    pub fn control_plane(&self) -> Option<Arc<Status>> {
        if let Self::Istiod(status) = self { Some(status.clone()) } else { None }
    }
}

/// Opens the source that the flags name. A file is read here, so that its state is there, or refused, before the kernel is
/// touched.
///
/// # Errors
/// The file cannot be read or says something wrong (file, line and field are named), or the address is none.
pub fn open(flags: &Run, cache: &Arc<Cache>) -> anyhow::Result<Mesh> {
    if let Some(path) = &flags.mesh_config {
        return Ok(Mesh::File(MeshFile::load(path, cache.clone())?));
    }
    if let Some(address) = &flags.xds_address {
        return Ok(Mesh::Istiod(Box::new(istiod(flags, address)?)));
    }
    cache.replace([], []);
    Ok(Mesh::None)
}

impl Mesh {
    /// Follows the source from now on; returns how that fares.
    ///
    /// # Errors
    /// The registry has one of its metrics already.
    pub fn follow(self, tasks: &Tasks, cache: Arc<Cache>, registry: &Registry) -> anyhow::Result<Source> {
        let file = if let Self::File(file) = &self { Some(file.status()) } else { None };
        metrics::register(cache.clone(), file, registry)?;
        match self {
            Self::File(file) => {
                let (stop, status) = (tasks.stop().clone(), file.status());
                tasks.task("mesh file", async move {
                    file.run(stop).await;
                    Ok(())
                });
                Ok(Source::File(status))
            }
            Self::Istiod(config) => {
                let status = Arc::new(Status::register(registry)?);
                let (stop, told) = (tasks.stop().clone(), status.clone());
                tasks.task("control plane client", async move {
                    xds::run(*config, cache, told, stop).await;
                    Ok(())
                });
                Ok(Source::Istiod(status))
            }
            Self::None => Ok(Source::None),
        }
    }
}

fn istiod(flags: &Run, address: &str) -> anyhow::Result<xds::Config> {
    let ip = match flags.pod_ip {
        Some(ip) => ip,
        None => first_address().context("cannot find an address of this host: give --pod-ip")?,
    };
    Ok(xds::Config {
        address: address.parse().context("--xds-address")?,
        root_ca: flags.xds_root_ca.clone(),
        token: Some(flags.xds_token.clone()),
        identity: xds::Identity {
            node: node::name(flags)?,
            cluster: flags.cluster_id.clone(),
            network: flags.network.clone(),
            ip,
            pod: flags.pod_name.clone().map_or_else(node::host_name, Ok)?,
            namespace: flags.pod_namespace.clone(),
        },
        timing: xds::Timing::default(),
    })
}

/// The first address that is neither loopback nor link-local, IPv4 before IPv6.
fn first_address() -> anyhow::Result<IpAddr> {
    addresses()?.into_iter().next().context("it has none but loopback")
}
