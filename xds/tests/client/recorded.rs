//! What istiod said, recorded: replayed in order, with the state compared after each response.
//!
//! What is held is written as the JSON that istiod's own libraries wrote of each message, and compared with that: so a field that
//! is read under a wrong number or type shows.

use std::{collections::BTreeMap, fs, net::IpAddr, path::PathBuf};

use cache::{
    Health, NetworkMode, Service, Workload,
    model::{Gateway, GatewayDestination, Protocol},
};
use prost::Message;
use serde_json::{Value, json};

use crate::{
    plane::{ADDRESS, AUTHORIZATION, Plane, discovery::DeltaDiscoveryResponse},
    world::World,
};

/// The state that is to be expected, by name.
#[derive(Default)]
struct Expected {
    addresses: BTreeMap<String, Value>,
    policies: BTreeMap<String, Value>,
}

#[tokio::test]
async fn after_each_recorded_response_the_state_is_what_istiod_meant() {
    let plane = Plane::start().await;
    let world = World::of(&plane);
    let (mut stream, _) = plane.greet().await;
    let mut expected = Expected::default();
    let mut seen = BTreeMap::new();
    for scenario in scenarios() {
        for (message, text) in messages(&scenario) {
            let type_url = message.type_url.clone();
            let nonce = message.nonce.clone();
            let count = message.resources.len();
            stream.push(message).await;
            let reply = stream.request().await;
            assert_eq!(reply.response_nonce, nonce);
            *seen.entry(type_url.clone()).or_insert(0) += 1;
            match &*type_url {
                ADDRESS => expected.apply_addresses(&text),
                AUTHORIZATION => expected.apply_policies(&text),
                _ => {
                    assert!(reply.error_detail.is_some_and(|detail| detail.message.contains("was not asked for")));
                    continue;
                }
            }
            assert_eq!(reply.error_detail, None, "{scenario}: {count} resources");
            expected.compare(&world, &scenario);
        }
    }
    let count = |type_url| seen.get(type_url).copied();
    assert_eq!((seen.values().sum::<i32>(), count(ADDRESS), count(AUTHORIZATION)), (90, Some(78), Some(7)));
}

fn scenarios() -> Vec<String> {
    let files = fs::read_dir(data("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut scenarios: Vec<_> = files.filter_map(|name| Some(name.strip_suffix(".bin")?.to_owned())).collect();
    scenarios.sort_unstable();
    scenarios
}

fn data(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/data", name].iter().collect()
}

/// Reads the messages of a scenario, each as sent and as JSON.
fn messages(scenario: &str) -> Vec<(DeltaDiscoveryResponse, Value)> {
    let bytes = fs::read(data(&format!("{scenario}.bin"))).unwrap();
    let mut rest = &bytes[..];
    let messages = std::iter::from_fn(|| {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (message, after) = after.split_at(u32::from_be_bytes(*length) as usize);
        rest = after;
        Some(DeltaDiscoveryResponse::decode(message).unwrap())
    });
    let text = fs::read_to_string(data(&format!("{scenario}.jsonl"))).unwrap();
    let texts: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let messages: Vec<_> = messages.collect();
    assert_eq!(messages.len(), texts.len(), "{scenario}");
    messages.into_iter().zip(texts).collect()
}

impl Expected {
    fn apply_addresses(&mut self, message: &Value) {
        for resource in list(message, "resources") {
            let content = &resource["resource"];
            let mut address = content.get("workload").or(content.get("service")).expect("it is one of both").clone();
            // Nothing here reads what a port is said to speak.
            if let Some(ports) = address.get_mut("ports") {
                ports
                    .as_array_mut()
                    .unwrap()
                    .iter_mut()
                    .for_each(|port| drop(port.as_object_mut().unwrap().remove("appProtocol")));
            }
            self.addresses.insert(string(resource, "name"), address);
        }
        for name in list(message, "removedResources") {
            self.addresses.remove(name.as_str().unwrap());
        }
    }

    fn apply_policies(&mut self, message: &Value) {
        for resource in list(message, "resources") {
            let policy = &resource["resource"];
            let rules = list(policy, "groups").iter().map(|group| {
                let clauses =
                    list(group, "rules").iter().map(|rules| list(rules, "matches").iter().map(show_match).collect());
                clauses.collect::<Vec<Value>>()
            });
            let shown = json!({
                "name": policy["name"], "namespace": policy["namespace"],
                "scope": match &*string(policy, "scope") {
                    "" => "Global", "NAMESPACE" => "Namespace", "WORKLOAD_SELECTOR" => "WorkloadSelector",
                    other => panic!("{other}"),
                },
                "action": if string(policy, "action").is_empty() { "Allow" } else { "Deny" },
                "rules": rules.collect::<Vec<_>>(),
            });
            self.policies.insert(string(resource, "name"), shown);
        }
        for name in list(message, "removedResources") {
            self.policies.remove(name.as_str().unwrap());
        }
    }

    fn compare(&self, world: &World, scenario: &str) {
        let now = world.cache.load();
        let workloads = now.workloads().map(|w| (w.uid.to_string(), workload(w)));
        let services = now.services().map(|s| (s.key().to_string(), service(s)));
        let held: BTreeMap<_, _> = workloads.chain(services).collect();
        for (name, expected) in &self.addresses {
            assert_eq!(held.get(name), Some(expected), "{scenario}: {name}");
        }
        assert_eq!(held.len(), self.addresses.len(), "{scenario}");
        let policies: BTreeMap<_, _> =
            now.policies().iter().map(|(name, p)| (name.to_string(), (**p).clone())).collect();
        assert_eq!(policies, self.policies, "{scenario}");
    }
}

fn list<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of.get(name).map_or(&[], |list| list.as_array().expect("a list"))
}

fn string(of: &Value, name: &str) -> String {
    of.get(name).map_or_else(String::new, |text| text.as_str().expect("a string").to_owned())
}

/// Writes a workload as protobuf's JSON, which leaves out what has its default.
fn workload(w: &Workload) -> Value {
    let extra = w.extra.as_deref().cloned().unwrap_or_default();
    let services = w.services.iter().map(|(key, list)| (key.to_string(), json!({"ports": ports(list)})));
    let at = &extra.locality;
    brief(json!({
        "uid": *w.uid, "name": *w.name, "namespace": *w.namespace, "hostname": *w.hostname, "network": *w.network,
        "addresses": w.addresses.iter().map(base64).collect::<Vec<_>>(),
        "tunnelProtocol": if w.protocol == Protocol::Hbone { "HBONE" } else { "" },
        "trustDomain": w.trust_domain.strip_prefix("cluster.local").unwrap_or(&w.trust_domain),
        "serviceAccount": if w.service_account == "default" { "" } else { &w.service_account },
        "waypoint": extra.waypoint.as_ref().map(gateway),
        "networkGateway": extra.network_gateway.as_ref().map(gateway),
        "node": *w.node, "canonicalName": *w.canonical_name, "canonicalRevision": *w.canonical_revision,
        "workloadType": if w.workload_type == "deployment" { String::new() } else { w.workload_type.to_uppercase() },
        "workloadName": *w.workload_name,
        "nativeTunnel": extra.native_tunnel.then_some(true),
        "services": services.collect::<serde_json::Map<_, _>>(),
        "authorizationPolicies": extra.authorization_policies.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        "status": if w.status == Health::Unhealthy { "UNHEALTHY" } else { "" },
        "clusterId": *w.cluster_id,
        "locality": brief(json!({"region": *at.region, "zone": *at.zone, "subzone": *at.subzone})),
        "networkMode": if w.network_mode == NetworkMode::HostNetwork { "HOST_NETWORK" } else { "" },
        "capacity": extra.capacity,
    }))
}

/// Writes a service as protobuf's JSON.
fn service(s: &Service) -> Value {
    let balancing = s.load_balancing.as_ref().map(|how| {
        brief(json!({
            "routingPreference": how.routing_preference.iter().map(|scope| scope.as_str()).collect::<Vec<_>>(),
            "mode": if how.mode == "STANDARD" { "" } else { &how.mode },
            "healthPolicy": if how.allow_unhealthy { "ALLOW_ALL" } else { "" },
        }))
    });
    let families = match &*s.ip_families {
        "IPv4" => "IPV4_ONLY",
        "IPv6" => "IPV6_ONLY",
        "Dual" => "DUAL",
        other => other,
    };
    brief(json!({
        "name": *s.name, "namespace": *s.namespace, "hostname": *s.hostname,
        "addresses": s.vips.iter().map(|(network, ip)| address(network, ip)).collect::<Vec<_>>(),
        "ports": ports(&s.ports),
        "subjectAltNames": s.subject_alt_names.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        "waypoint": s.waypoint.as_ref().map(gateway),
        "loadBalancing": balancing,
        "ipFamilies": families,
        "canonical": s.canonical.then_some(true),
    }))
}

/// Writes one alternative of a policy's conditions as the dump does, from protobuf's JSON.
fn show_match(one: &Value) -> Value {
    let mut shown = serde_json::Map::new();
    for (name, list) in one.as_object().unwrap() {
        let item = |item: &Value| match item {
            Value::Number(_) => item.clone(),
            prefix if prefix.get("address").is_some() => prefix_text(prefix).into(),
            text if text.get("presence").is_some() => "Presence".into(),
            text if text.get("exact").is_some() => json!({"Exact": text["exact"]}),
            text => json!({"Prefix": text["prefix"]}),
        };
        shown.insert(name.clone(), list.as_array().unwrap().iter().map(item).collect());
    }
    shown.into()
}

fn prefix_text(prefix: &Value) -> String {
    // The recordings have two of them.
    match &*string(prefix, "address") {
        "CgEDAA==" => format!("10.1.3.0/{}", prefix["length"]),
        "CgkAAA==" => format!("10.9.0.0/{}", prefix["length"]),
        other => panic!("{other}"),
    }
}

fn ports(all: &[(u16, u16)]) -> Vec<Value> {
    let number = |port: u16| Some(port).filter(|port| *port != 0);
    all.iter().map(|port| brief(json!({"servicePort": number(port.0), "targetPort": number(port.1)}))).collect()
}

fn gateway(to: &Gateway) -> Value {
    let (name, destination) = match &to.destination {
        GatewayDestination::Address(network, ip) => ("address", address(network, ip)),
        GatewayDestination::Hostname(name) => {
            let (namespace, hostname) = name.split_once('/').unwrap();
            ("hostname", json!({"namespace": namespace, "hostname": hostname}))
        }
    };
    json!({name: destination, "hboneMtlsPort": to.hbone_mtls_port})
}

fn address(network: &str, ip: &IpAddr) -> Value {
    brief(json!({"network": network, "address": base64(ip)}))
}

/// Leaves out what is empty.
fn brief(mut object: Value) -> Value {
    let empty = [json!(""), json!([]), json!({}), json!(null)];
    object.as_object_mut().unwrap().retain(|_, value| !empty.contains(value));
    object
}

fn base64(ip: &IpAddr) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - three.len()));
        let digits = (0..=three.len()).map(|i| char::from(DIGITS[bits >> (18 - 6 * i) & 63]));
        text.extend(digits.chain(std::iter::repeat_n('=', 3 - three.len())));
    }
    text
}
