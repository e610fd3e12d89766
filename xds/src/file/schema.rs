//! The form of the mesh file: the fields that ztunnel takes in its local configuration, under the names they have there.

use std::{collections::BTreeMap, fmt, net::IpAddr, num::NonZeroU16};

use cache::{
    Health, NetworkMode, Str,
    model::{Gateway, GatewayDestination, Protocol},
};
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use serde_saphyr::Spanned;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Document {
    #[serde(default)]
    pub(super) workloads: Vec<Spanned<LocalWorkload>>,
    #[serde(default)]
    pub(super) services: Vec<Spanned<LocalService>>,
    #[serde(default)]
    pub(super) policies: Vec<Spanned<LocalPolicy>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalWorkload {
    pub(super) workload_ips: Vec<IpAddr>,
    pub(super) waypoint: Option<LocalGateway>,
    pub(super) network_gateway: Option<LocalGateway>,
    #[serde(default)]
    pub(super) protocol: Protocol,
    #[serde(default)]
    pub(super) network_mode: NetworkMode,
    #[serde(default)]
    pub(super) uid: Str,
    pub(super) name: Str,
    pub(super) namespace: Str,
    #[serde(default)]
    pub(super) trust_domain: Str,
    #[serde(default)]
    pub(super) service_account: Str,
    #[serde(default)]
    pub(super) network: Str,
    #[serde(default)]
    pub(super) workload_name: Str,
    #[serde(default)]
    pub(super) workload_type: Str,
    #[serde(default)]
    pub(super) canonical_name: Str,
    #[serde(default)]
    pub(super) canonical_revision: Str,
    #[serde(default)]
    pub(super) hostname: Str,
    #[serde(default)]
    pub(super) node: Str,
    #[serde(default)]
    pub(super) native_tunnel: bool,
    pub(super) application_tunnel: Option<LocalTunnel>,
    #[serde(default)]
    pub(super) authorization_policies: Vec<Str>,
    #[serde(default)]
    pub(super) status: Health,
    #[serde(default)]
    pub(super) cluster_id: Str,
    #[serde(default)]
    pub(super) locality: LocalLocality,
    #[serde(default)]
    pub(super) services: BTreeMap<ServiceKey, PortMap>,
    pub(super) capacity: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalService {
    pub(super) name: Str,
    pub(super) namespace: Str,
    pub(super) hostname: Str,
    pub(super) vips: Vec<NetworkAddress>,
    /// A target port of 0 is one that each endpoint names itself.
    pub(super) ports: BTreeMap<Port, TargetPort>,
    /// By uid.
    #[serde(default)]
    pub(super) endpoints: BTreeMap<Str, LocalEndpoint>,
    #[serde(default)]
    pub(super) subject_alt_names: Vec<Str>,
    pub(super) waypoint: Option<LocalGateway>,
    pub(super) load_balancer: Option<LocalLoadBalancer>,
    pub(super) ip_families: Option<LocalFamilies>,
    #[serde(default)]
    pub(super) canonical: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalEndpoint {
    pub(super) workload_uid: Str,
    pub(super) port: PortMap,
    #[serde(default, rename = "status")]
    pub(super) _status: Health,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalGateway {
    destination: Destination,
    hbone_mtls_port: Port,
}

impl From<LocalGateway> for Gateway {
    fn from(gateway: LocalGateway) -> Self {
        Self { destination: gateway.destination.0, hbone_mtls_port: gateway.hbone_mtls_port.into() }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalTunnel {
    pub(super) protocol: LocalTunnelProtocol,
    pub(super) port: Option<Port>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum LocalTunnelProtocol {
    None,
    Proxy,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalLocality {
    pub(super) region: Str,
    pub(super) zone: Str,
    pub(super) subzone: Str,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalLoadBalancer {
    pub(super) routing_preferences: Vec<Scope>,
    pub(super) mode: Mode,
    pub(super) health_policy: HealthPolicy,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) enum Scope {
    Region,
    Zone,
    Subzone,
    Node,
    Cluster,
    Network,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) enum Mode {
    Standard,
    Strict,
    Failover,
    Passthrough,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum HealthPolicy {
    OnlyHealthy,
    AllowAll,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) enum LocalFamilies {
    Dual,
    IPv4,
    IPv6,
}

/// An authorization policy. Nothing here decides by it, so what it says is kept as it is.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalPolicy {
    pub(super) name: Str,
    pub(super) namespace: Str,
    scope: PolicyScope,
    action: PolicyAction,
    /// Any rule, all of its clauses, any match in a clause.
    rules: Vec<Vec<Vec<serde_json::Map<String, serde_json::Value>>>>,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
enum PolicyScope {
    Global,
    Namespace,
    WorkloadSelector,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
enum PolicyAction {
    Allow,
    Deny,
}

pub(super) type PortMap = BTreeMap<Port, Port>;

/// 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port(NonZeroU16);

impl From<Port> for u16 {
    fn from(port: Port) -> Self {
        port.0.get()
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        let port = u16::try_from(number).ok().and_then(NonZeroU16::new);
        port.map(Self).ok_or_else(|| D::Error::custom(format_args!("port {number} is not in 1 to 65535")))
    }
}

/// 0 to 65535.
#[derive(Clone, Copy, Debug)]
pub(super) struct TargetPort(pub(super) u16);

impl<'de> Deserialize<'de> for TargetPort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        let port = u16::try_from(number).map(Self);
        port.map_err(|_| D::Error::custom(format_args!("port {number} is not in 0 to 65535 (0: each endpoint's own)")))
    }
}

/// `network/address`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct NetworkAddress {
    pub(super) network: Str,
    pub(super) address: IpAddr,
}

impl TryFrom<String> for NetworkAddress {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let parsed =
            text.split_once('/').and_then(|(network, address)| Some((network, address.parse::<IpAddr>().ok()?)));
        let (network, address) = parsed.ok_or_else(|| {
            format!("{text:?} is not network/address (in the default network, which has no name: \"/10.96.0.1\")")
        })?;
        Ok(Self { network: network.into(), address: address.to_canonical() })
    }
}

/// `namespace/hostname`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct ServiceKey(pub(super) Str);

impl TryFrom<String> for ServiceKey {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, hostname)) if !namespace.is_empty() && !hostname.is_empty() => Ok(Self(text.into())),
            _ => Err(format!("{text:?} is not namespace/hostname")),
        }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_debug())
    }
}

/// `network/address` or `namespace/hostname`.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Destination(GatewayDestination);

impl TryFrom<String> for Destination {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if let Ok(NetworkAddress { network, address }) = NetworkAddress::try_from(text.clone()) {
            return Ok(Self(GatewayDestination::Address(network, address)));
        }
        let key = ServiceKey::try_from(text.clone());
        key.map(|k| Self(GatewayDestination::Hostname(k.0)))
            .map_err(|_| format!("{text:?} is neither network/address nor namespace/hostname"))
    }
}
