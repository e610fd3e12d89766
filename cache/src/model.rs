//! Workloads and services as the mesh describes them (`istio.workload.Workload` and `Service`).

use std::{net::IpAddr, sync::Arc};

use serde::Serialize;

use crate::dump;

/// A shared, immutable string, eight bytes wide.
pub type Str = arcstr::ArcStr;

/// Port pairs: service port, target port. Few, so a list.
pub type Ports = Box<[(u16, u16)]>;

/// Whether a workload can take traffic (`WorkloadStatus`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Health {
    /// Ready.
    #[default]
    Healthy,
    /// Not ready.
    Unhealthy,
}

/// Whose network namespace a workload runs in (`NetworkMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum NetworkMode {
    /// Its own.
    #[default]
    Standard,
    /// The node's.
    HostNetwork,
}

/// How a workload takes mesh traffic (`TunnelProtocol`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Protocol {
    /// Plain TCP.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// HBONE.
    #[serde(rename = "HBONE")]
    Hbone,
}

/// Where a gateway (a waypoint, a network gateway) is reached (`GatewayAddress`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gateway {
    /// By address or by name.
    pub destination: GatewayDestination,
    /// Port for HBONE, 15008 as a rule; 0 where none is given.
    pub hbone_mtls_port: u16,
}

/// The two ways to name a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GatewayDestination {
    /// Network and address.
    Address(Str, IpAddr),
    /// `namespace/hostname`.
    Hostname(Str),
}

/// Region, zone and subzone (`Locality`); empty where unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Locality {
    /// Region.
    pub region: Str,
    /// Zone.
    pub zone: Str,
    /// Subzone.
    pub subzone: Str,
}

/// What takes connections or opens them: a pod, a VM (`istio.workload.Workload`).
///
/// Defaults that the control plane leaves out are filled in: trust domain `cluster.local`, service account `default`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Unique in the mesh: `cluster//v1/Pod/namespace/name` and the like.
    pub uid: Str,
    /// The pod's name.
    pub name: Str,
    /// Its namespace.
    pub namespace: Str,
    /// Service account.
    pub service_account: Str,
    /// Trust domain.
    pub trust_domain: Str,
    /// Network that the addresses belong to; empty is the default network.
    pub network: Str,
    /// Node it runs on.
    pub node: Str,
    /// Cluster; empty if not said.
    pub cluster_id: Str,
    /// Name of what made it (deployment and so on).
    pub workload_name: Str,
    /// `deployment`, `cronjob`, `pod`, `job`.
    pub workload_type: Str,
    /// Canonical service name.
    pub canonical_name: Str,
    /// Canonical service revision.
    pub canonical_revision: Str,
    /// DNS name, for workloads without address.
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub hostname: Str,
    /// Addresses.
    pub addresses: Box<[IpAddr]>,
    /// Network mode.
    pub network_mode: NetworkMode,
    /// Health.
    pub status: Health,
    /// Tunnel protocol.
    pub protocol: Protocol,
    /// Services it is an endpoint of: `namespace/hostname` and port pairs. In a snapshot sorted by name, and one list for all
    /// workloads that have the same.
    #[serde(serialize_with = "dump::services")]
    pub services: Arc<[(Str, Ports)]>,
    /// What seldom is there or is the same for many (waypoint, locality); in a snapshot one for all that have the same.
    #[serde(flatten)]
    pub extra: Option<Arc<WorkloadExtra>>,
}

/// The seldom-set part of a [`Workload`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadExtra {
    /// Its waypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waypoint: Option<Gateway>,
    /// Gateway into its network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_gateway: Option<Gateway>,
    /// It speaks HBONE itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub native_tunnel: bool,
    /// Application tunnel: protocol (`NONE`, `PROXY`) and port.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "dump::tunnel")]
    pub application_tunnel: Option<(Str, Option<u16>)>,
    /// Names of authorization policies (`namespace/name`).
    #[serde(skip_serializing_if = "<[Str]>::is_empty")]
    pub authorization_policies: Box<[Str]>,
    /// Locality.
    pub locality: Locality,
    /// Weight for load balancing; `None` is 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
}

impl Workload {
    /// Returns the gateway that it names as its waypoint.
    pub fn waypoint(&self) -> Option<&Gateway> {
        self.extra.as_ref()?.waypoint.as_ref()
    }

    /// Returns the SPIFFE identity, `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    pub fn principal(&self) -> String {
        let (domain, ns, account) = (&self.trust_domain, &self.namespace, &self.service_account);
        let domain = if domain.is_empty() { "cluster.local" } else { domain };
        let account = if account.is_empty() { "default" } else { account };
        format!("spiffe://{domain}/ns/{ns}/sa/{account}")
    }
}

/// How a service spreads connections (`LoadBalancing`), kept as told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancing {
    /// Scopes in order of preference (`NETWORK`, `REGION`, `ZONE`, `SUBZONE`, `NODE`, `CLUSTER`).
    #[serde(rename = "routingPreferences")]
    pub routing_preference: Box<[Str]>,
    /// `STANDARD`, `STRICT`, `FAILOVER` or `PASSTHROUGH`.
    pub mode: Str,
    /// Unhealthy endpoints take connections too (`ALLOW_ALL`).
    pub allow_unhealthy: bool,
}

/// A service (`istio.workload.Service`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Short name.
    pub name: Str,
    /// Namespace.
    pub namespace: Str,
    /// Hostname.
    pub hostname: Str,
    /// Virtual addresses: network and address. None for a headless service.
    #[serde(serialize_with = "dump::vips")]
    pub vips: Box<[(Str, IpAddr)]>,
    /// Service port, target port (0 where the target is named).
    #[serde(serialize_with = "dump::ports")]
    pub ports: Ports,
    /// Subject alternative names.
    pub subject_alt_names: Box<[Str]>,
    /// Its waypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waypoint: Option<Gateway>,
    /// Load balancing.
    #[serde(rename = "loadBalancer", skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancing>,
    /// `IPv4`, `IPv6`, `Dual` or empty.
    #[serde(skip_serializing_if = "Str::is_empty")]
    pub ip_families: Str,
    /// The canonical service of its hostname.
    pub canonical: bool,
}

impl Service {
    /// Returns the name services are known by, `namespace/hostname`.
    pub fn key(&self) -> Str {
        arcstr::format!("{}/{}", self.namespace, self.hostname)
    }
}
