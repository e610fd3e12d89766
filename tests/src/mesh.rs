//! Mesh state for `--mesh-config`.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::sandbox::Pod;

/// The name of the node that `meshd` of a test runs on.
pub const NODE: &str = "node-a";

/// The namespace that workloads and services of a test are in.
pub const NAMESPACE: &str = "shop";

/// Mesh state being put together; rendered as JSON, which is YAML.
#[derive(Clone, Debug, Default)]
pub struct Mesh {
    workloads: Vec<Value>,
    services: Vec<Value>,
}

impl Mesh {
    /// Makes an empty mesh.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pod of this node: workload `NAME`, pod `NAME-0`, canonical service `NAME` in version `v1`.
    pub fn pod(self, pod: &Pod) -> Self {
        self.workload(&pod.name, &pod.addresses(), json!({}))
    }

    /// Adds a workload; `more` are fields to add or replace.
    pub fn workload(mut self, name: &str, addresses: &[IpAddr], more: Value) -> Self {
        let mut workload = json!({
            "uid": format!("cluster1//v1/Pod/{NAMESPACE}/{name}-0"),
            "name": format!("{name}-0"),
            "namespace": NAMESPACE,
            "serviceAccount": name,
            "workloadIps": addresses,
            "node": NODE,
            "network": "",
            "trustDomain": "cluster.local",
            "clusterId": "cluster1",
            "workloadName": name,
            "workloadType": "deployment",
            "canonicalName": name,
            "canonicalRevision": "v1",
            "status": "Healthy",
            "services": {},
        });
        merge(&mut workload, more);
        self.workloads.push(workload);
        self
    }

    /// Adds a service `NAME.shop.svc.cluster.local` with ports (service port, target port); the workloads named are its endpoints.
    pub fn service(mut self, name: &str, vips: &[IpAddr], ports: &[(u16, u16)], endpoints: &[&str]) -> Self {
        let hostname = format!("{name}.{NAMESPACE}.svc.cluster.local");
        let ports = Value::Object(ports.iter().map(|(port, target)| (port.to_string(), json!(target))).collect());
        for workload in &mut self.workloads {
            if endpoints.iter().any(|e| workload["workloadName"] == *e) {
                workload["services"][format!("{NAMESPACE}/{hostname}")] = ports.clone();
            }
        }
        self.services.push(json!({
            "name": name,
            "namespace": NAMESPACE,
            "hostname": hostname,
            "vips": vips.iter().map(|v| format!("/{v}")).collect::<Vec<_>>(),
            "ports": ports,
        }));
        self
    }

    /// Replaces fields of the workloads of that name.
    pub fn with(mut self, name: &str, more: &Value) -> Self {
        for workload in self.workloads.iter_mut().filter(|w| w["workloadName"] == name) {
            merge(workload, more.clone());
        }
        self
    }

    /// Replaces fields of the service of that name.
    pub fn with_service(mut self, name: &str, more: &Value) -> Self {
        for service in self.services.iter_mut().filter(|s| s["name"] == name) {
            merge(service, more.clone());
        }
        self
    }

    /// Replaces fields of all services.
    pub fn with_services(mut self, more: &Value) -> Self {
        for service in &mut self.services {
            merge(service, more.clone());
        }
        self
    }

    /// Renders the file.
    pub fn render(&self) -> String {
        json!({"workloads": self.workloads, "services": self.services}).to_string()
    }
}

fn merge(into: &mut Value, more: Value) {
    if let Value::Object(more) = more {
        for (key, value) in more {
            into[key] = value;
        }
    }
}
