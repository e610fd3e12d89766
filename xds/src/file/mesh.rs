//! From a document to workloads, services and policies: defaults filled in, contradictions refused.

use std::{collections::HashMap, fmt, net::IpAddr, path::Path, sync::Arc};

use cache::{
    NetworkMode, Ports, Service, Str, Workload,
    model::{LoadBalancing, Locality, WorkloadExtra},
};
use serde_saphyr::Spanned;

use super::{
    FileError, cut,
    schema::{
        Document, HealthPolicy, LocalFamilies, LocalLoadBalancer, LocalPolicy, LocalService, LocalTunnelProtocol,
        LocalWorkload, Mode, PortMap, Scope,
    },
    shown, yaml,
};

/// What a mesh file says.
#[derive(Debug, Default)]
pub struct Mesh {
    /// Workloads, in the order of the file.
    pub workloads: Vec<Workload>,
    /// Services, in the order of the file.
    pub services: Vec<Service>,
    /// Authorization policies by `namespace/name`, as the file tells them.
    pub policies: Vec<(Str, serde_json::Value)>,
    /// What looks like a mistake but does no harm: one line each.
    pub warnings: Vec<String>,
}

impl Mesh {
    /// Reads the text of a mesh file; `path` is what messages call it.
    pub fn parse(text: &str, path: &Path) -> Result<Self, FileError> {
        let Document { workloads, services, policies } = yaml::document(text, path)?;
        let mut builder = Builder { path: shown(path), ..Builder::default() };
        workloads.into_iter().try_for_each(|w| builder.workload(w))?;
        services.into_iter().try_for_each(|s| builder.service(s))?;
        policies.into_iter().try_for_each(|p| builder.policy(p))?;
        builder.undefined_services();
        Ok(builder.mesh)
    }
}

#[derive(Default)]
struct Builder {
    path: String,
    mesh: Mesh,
    /// Lines of the workloads, in their order.
    lines: Vec<u64>,
    uids: HashMap<Str, usize>,
    addresses: HashMap<(Str, IpAddr), usize>,
    /// Services and policies by key, with their lines.
    services: HashMap<Str, u64>,
    vips: HashMap<(Str, IpAddr), Str>,
    policies: HashMap<Str, u64>,
}

/// A resource as messages name it, and the line at which it starts.
struct At {
    line: u64,
    resource: String,
}

impl At {
    fn new(line: u64, kind: &str, namespace: &str, name: &str) -> Self {
        Self { line, resource: cut(format!("{kind} {}/{}", namespace.escape_debug(), name.escape_debug())) }
    }
}

impl Builder {
    fn workload(&mut self, spanned: Spanned<LocalWorkload>) -> Result<(), FileError> {
        let (line, local) = (spanned.referenced.line(), spanned.value);
        let at = At::new(line, "workload", &local.namespace, &local.name);
        self.named(&at, "name", &local.name)?;
        self.named(&at, "namespace", &local.namespace)?;
        let workload = workload(local);
        let number = self.mesh.workloads.len();
        if let Some(other) = self.uids.insert(workload.uid.clone(), number) {
            let reason = format!("{:?} is also the uid of {}", workload.uid, self.workload_named(other));
            return Err(self.invalid(&at, "uid", reason));
        }
        for address in &workload.addresses {
            let holder = *self.addresses.entry((workload.network.clone(), *address)).or_insert(number);
            let both_on_host = || {
                let other = &self.mesh.workloads[holder];
                [other, &workload].iter().all(|w| w.network_mode == NetworkMode::HostNetwork)
            };
            if holder != number && !both_on_host() {
                let network = workload.network.escape_debug();
                let other = self.workload_named(holder);
                let reason = format!("{address} of network \"{network}\" is also an address of {other}");
                return Err(self.invalid(&at, "workloadIps", reason));
            }
        }
        if workload.addresses.is_empty() && workload.hostname.is_empty() && !workload.services.is_empty() {
            self.warn(
                &at,
                format_args!("workloadIps: it is an endpoint without an address, which takes no connections"),
            );
        }
        self.lines.push(line);
        self.mesh.workloads.push(workload);
        Ok(())
    }

    fn service(&mut self, spanned: Spanned<LocalService>) -> Result<(), FileError> {
        let (line, mut local) = (spanned.referenced.line(), spanned.value);
        let at = At::new(line, "service", &local.namespace, &local.hostname);
        self.named(&at, "name", &local.name)?;
        self.named(&at, "namespace", &local.namespace)?;
        self.named(&at, "hostname", &local.hostname)?;
        let endpoints = std::mem::take(&mut local.endpoints);
        let service = service(local);
        let key = service.key();
        if let Some(other) = self.services.insert(key.clone(), line) {
            return Err(self.invalid(&at, "hostname", format!("the service is also defined on line {other}")));
        }
        for vip in &service.vips {
            let other = self.vips.entry(vip.clone()).or_insert_with(|| key.clone()).clone();
            if other != key {
                let other = other.escape_debug();
                self.warn(&at, format_args!("vips: {} is also an address of the service {other}", vip.1));
            }
        }
        for vip in &service.vips {
            if let Some(number) = self.addresses.get(vip) {
                let workload = self.workload_named(*number);
                self.warn(&at, format_args!("vips: {} is not steered, as {workload} has it", vip.1));
            }
        }
        for endpoint in endpoints.into_values() {
            match self.uids.get(&endpoint.workload_uid) {
                Some(number) => add_service(&mut self.mesh.workloads[*number], &key, &endpoint.port),
                None => self.warn(&at, format_args!("endpoints: no workload has uid {:?}", endpoint.workload_uid)),
            }
        }
        self.mesh.services.push(service);
        Ok(())
    }

    fn policy(&mut self, spanned: Spanned<LocalPolicy>) -> Result<(), FileError> {
        let (line, policy) = (spanned.referenced.line(), spanned.value);
        let at = At::new(line, "policy", &policy.namespace, &policy.name);
        self.named(&at, "name", &policy.name)?;
        self.named(&at, "namespace", &policy.namespace)?;
        let key = key_of(&policy.namespace, &policy.name);
        if let Some(other) = self.policies.insert(key.clone(), line) {
            return Err(self.invalid(&at, "name", format!("the policy is also defined on line {other}")));
        }
        let kept = serde_json::to_value(&policy).map_err(|e| self.invalid(&at, "rules", e.to_string()))?;
        self.mesh.policies.push((key, kept));
        Ok(())
    }

    /// Warns of services that workloads name and no one defines, once for each.
    fn undefined_services(&mut self) {
        let mut missing: Vec<(Str, usize)> = Vec::new();
        for (number, workload) in self.mesh.workloads.iter().enumerate() {
            for (key, _) in workload.services.iter() {
                if !self.services.contains_key(key) {
                    self.services.insert(key.clone(), 0);
                    missing.push((key.clone(), number));
                }
            }
        }
        for (key, number) in missing {
            let workload = &self.mesh.workloads[number];
            let at = At::new(self.lines[number], "workload", &workload.namespace, &workload.name);
            self.warn(&at, format_args!("services: {} is not defined", key.escape_debug()));
        }
    }

    fn named(&self, at: &At, field: &'static str, name: &str) -> Result<(), FileError> {
        if name.is_empty() { Err(self.invalid(at, field, "is empty".into())) } else { Ok(()) }
    }

    fn workload_named(&self, number: usize) -> String {
        let workload = &self.mesh.workloads[number];
        let At { line, resource } = At::new(self.lines[number], "workload", &workload.namespace, &workload.name);
        format!("{resource} (line {line})")
    }

    fn invalid(&self, at: &At, field: &'static str, reason: String) -> FileError {
        FileError::Invalid {
            path: self.path.clone(),
            line: at.line,
            resource: at.resource.clone(),
            field,
            reason: cut(reason),
        }
    }

    fn warn(&mut self, at: &At, what: fmt::Arguments<'_>) {
        self.mesh.warnings.push(format!("{}:{}: {}: {what}", self.path, at.line, at.resource));
    }
}

fn workload(local: LocalWorkload) -> Workload {
    let cluster_uid = || Str::from(format!("{}//v1/Pod/{}/{}", local.cluster_id, local.namespace, local.name));
    let tunnel = local.application_tunnel.map(|t| (tunnel_protocol(t.protocol), t.port.map(u16::from)));
    let locality = local.locality;
    let extra = WorkloadExtra {
        waypoint: local.waypoint.map(Into::into),
        network_gateway: local.network_gateway.map(Into::into),
        native_tunnel: local.native_tunnel,
        application_tunnel: tunnel,
        authorization_policies: local.authorization_policies.into(),
        locality: Locality { region: locality.region, zone: locality.zone, subzone: locality.subzone },
        capacity: local.capacity,
    };
    Workload {
        uid: if local.uid.is_empty() { cluster_uid() } else { local.uid },
        service_account: or(local.service_account, "default"),
        trust_domain: or(local.trust_domain, "cluster.local"),
        name: local.name,
        namespace: local.namespace,
        network: local.network,
        node: local.node,
        cluster_id: local.cluster_id,
        workload_name: local.workload_name,
        workload_type: local.workload_type,
        canonical_name: local.canonical_name,
        canonical_revision: local.canonical_revision,
        hostname: local.hostname,
        addresses: local.workload_ips.into_iter().map(|a| a.to_canonical()).collect(),
        network_mode: local.network_mode,
        status: local.status,
        protocol: local.protocol,
        services: local.services.into_iter().map(|(key, map)| (key.0, ports(&map))).collect(),
        extra: (extra != WorkloadExtra::default()).then(|| Arc::new(extra)),
    }
}

fn service(local: LocalService) -> Service {
    Service {
        name: local.name,
        namespace: local.namespace,
        hostname: local.hostname,
        vips: local.vips.into_iter().map(|v| (v.network, v.address)).collect(),
        ports: local.ports.into_iter().map(|(port, target)| (port.into(), target.0)).collect(),
        subject_alt_names: local.subject_alt_names.into(),
        waypoint: local.waypoint.map(Into::into),
        load_balancing: local.load_balancer.map(load_balancing),
        ip_families: match local.ip_families {
            Some(LocalFamilies::Dual) => "Dual".into(),
            Some(LocalFamilies::IPv4) => "IPv4".into(),
            Some(LocalFamilies::IPv6) => "IPv6".into(),
            None => Str::new(),
        },
        canonical: local.canonical,
    }
}

fn load_balancing(local: LocalLoadBalancer) -> LoadBalancing {
    let scope = |scope: Scope| match scope {
        Scope::Region => "REGION",
        Scope::Zone => "ZONE",
        Scope::Subzone => "SUBZONE",
        Scope::Node => "NODE",
        Scope::Cluster => "CLUSTER",
        Scope::Network => "NETWORK",
    };
    let mode = match local.mode {
        Mode::Standard => "STANDARD",
        Mode::Strict => "STRICT",
        Mode::Failover => "FAILOVER",
        Mode::Passthrough => "PASSTHROUGH",
    };
    LoadBalancing {
        routing_preference: local.routing_preferences.into_iter().map(|s| scope(s).into()).collect(),
        mode: mode.into(),
        allow_unhealthy: local.health_policy == HealthPolicy::AllowAll,
    }
}

/// Makes a workload an endpoint of a service, as the service tells it, unless the workload tells it already.
fn add_service(workload: &mut Workload, key: &Str, map: &PortMap) {
    if workload.services.iter().all(|s| s.0 != *key) {
        workload.services = workload.services.iter().cloned().chain([(key.clone(), ports(map))]).collect();
    }
}

fn tunnel_protocol(protocol: LocalTunnelProtocol) -> Str {
    match protocol {
        LocalTunnelProtocol::None => "NONE".into(),
        LocalTunnelProtocol::Proxy => "PROXY".into(),
    }
}

fn ports(map: &PortMap) -> Ports {
    map.iter().map(|(port, target)| ((*port).into(), (*target).into())).collect()
}

fn key_of(namespace: &str, name: &str) -> Str {
    format!("{namespace}/{name}").into()
}

fn or(value: Str, default: &str) -> Str {
    if value.is_empty() { default.into() } else { value }
}
