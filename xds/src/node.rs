//! Who we are, as the control plane wants to be told.

use std::{collections::BTreeMap, net::IpAddr};

use prost_types::{Struct, Value, value::Kind};

use crate::proto::discovery;

/// Who we are.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Node name (`NODE_NAME`).
    pub node: String,
    /// The cluster's name in the mesh (`CLUSTER_ID`).
    pub cluster: String,
    /// The node's network; empty is the default one (`NETWORK`).
    pub network: String,
    /// Address of this pod (`INSTANCE_IPS`).
    pub ip: IpAddr,
    /// Name of this pod (`NAME`).
    pub pod: String,
    /// Its namespace (`NAMESPACE`).
    pub namespace: String,
}

/// The release of Istio whose API this is; istiod wants to know.
const ISTIO_VERSION: &str = "1.31.0";

impl Identity {
    /// Makes the node of a first request. Its id has the four parts that istiod takes apart: the kind of proxy (the node proxy
    /// of ambient mode), its address, its name and its domain.
    pub(crate) fn message(&self) -> discovery::Node {
        let Self { node, cluster, network, ip, pod, namespace } = self;
        let (ip, version) = (ip.to_string(), ISTIO_VERSION.to_owned());
        let metadata = [
            ("NAME", pod),
            ("NAMESPACE", namespace),
            ("INSTANCE_IPS", &ip),
            ("NODE_NAME", node),
            ("CLUSTER_ID", cluster),
            ("NETWORK", network),
            ("ISTIO_VERSION", &version),
        ];
        let text = |text: &String| Value { kind: Some(Kind::StringValue(text.clone())) };
        let fields: BTreeMap<_, _> =
            metadata.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| ((*k).to_owned(), text(v))).collect();
        discovery::Node {
            id: format!("ztunnel~{ip}~{pod}.{namespace}~{namespace}.svc.cluster.local"),
            cluster: "meshd".to_owned(),
            metadata: Some(Struct { fields }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_has_the_parts_istiod_takes_apart() {
        let identity = Identity {
            node: "node-1".to_owned(),
            cluster: "Kubernetes".to_owned(),
            network: String::new(),
            ip: "fd00::7".parse().unwrap(),
            pod: "meshd-x".to_owned(),
            namespace: "mesh".to_owned(),
        };
        let node = identity.message();
        assert_eq!(node.id, "ztunnel~fd00::7~meshd-x.mesh~mesh.svc.cluster.local");
        let fields = node.metadata.unwrap().fields;
        let names: Vec<_> = fields.keys().map(String::as_str).collect();
        assert_eq!(names, ["CLUSTER_ID", "INSTANCE_IPS", "ISTIO_VERSION", "NAME", "NAMESPACE", "NODE_NAME"]);
        assert_eq!(fields["NODE_NAME"].kind, Some(Kind::StringValue("node-1".to_owned())));
    }
}
