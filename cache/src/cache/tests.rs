use std::net::IpAddr;

use super::*;
use crate::model::{Health, NetworkMode, Ports};

fn cache() -> Cache {
    Cache::new(Node { name: "here".into(), network: "net".into() })
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a test's address")
}

fn pod(name: &str, addresses: &[&str], services: &[&str]) -> Workload {
    let port = |key: &&str| (Str::from(*key), Ports::from([(80, 8080)]));
    Workload {
        uid: arcstr::format!("c//Pod/ns/{name}"),
        name: name.into(),
        namespace: "ns".into(),
        node: "there".into(),
        addresses: addresses.iter().map(|a| ip(a)).collect(),
        services: services.iter().map(port).collect(),
        ..Workload::default()
    }
}

fn service(hostname: &str, vips: &[&str]) -> Service {
    Service {
        name: hostname.into(),
        namespace: "ns".into(),
        hostname: hostname.into(),
        vips: vips.iter().map(|a| (Str::new(), ip(a))).collect(),
        ..Service::default()
    }
}

fn workloads(workloads: impl IntoIterator<Item = Workload>) -> Delta {
    Delta { workloads: workloads.into_iter().collect(), ..Delta::default() }
}

fn services(services: impl IntoIterator<Item = Service>) -> Delta {
    Delta { services: services.into_iter().collect(), ..Delta::default() }
}

fn removed(names: &[&str]) -> Delta {
    Delta { removed: names.iter().map(|n| Str::from(*n)).collect(), ..Delta::default() }
}

fn at(cache: &Cache, address: &str) -> Option<String> {
    cache.load().workload_at("", ip(address)).map(|w| w.name.to_string())
}

fn vip(cache: &Cache, address: &str) -> Option<String> {
    cache.load().service_at("", ip(address)).map(|s| s.name.to_string())
}

fn endpoints(cache: &Cache, key: &str) -> Vec<String> {
    let mut names: Vec<_> = cache.load().endpoints(key).map(|w| w.name.to_string()).collect();
    names.sort();
    names
}

#[test]
fn a_name_that_turns_from_workload_to_service_and_back_drops_the_old_one() {
    let cache = cache();
    let mut changes = cache.subscribe();
    let name = service("x", &[]).key();
    let pod = Workload { uid: name.clone(), ..pod("x", &["10.0.0.1"], &["ns/other"]) };
    let holds = || {
        let now = cache.load();
        (now.workload_at("", ip("10.0.0.1")).is_some(), now.service_at("", ip("10.0.0.1")).is_some())
    };
    cache.apply(workloads([pod.clone()]));
    changes.pending();
    cache.apply(Delta { services: vec![service("x", &["10.0.0.1"])], ..Delta::default() });
    assert_eq!(
        (holds(), cache.load().workload_count(), cache.load().endpoint_count("ns/other")),
        ((false, true), 0, 0)
    );
    let change = changes.pending().expect("both changed");
    assert!(
        change.workloads.contains(&name) && change.services.contains(&name) && change.services.contains("ns/other")
    );
    cache.apply(workloads([pod.clone()]));
    assert_eq!((holds(), cache.load().service_count()), ((true, false), 0));
    assert!(changes.pending().is_some_and(|change| change.services.contains(&name)));
    cache.replace([pod], [service("x", &[])]);
    assert_eq!((holds(), cache.load().workload_count(), cache.load().service_count()), ((false, false), 0, 1));
}

#[test]
fn a_change_says_when_the_oldest_of_it_was_received() {
    let cache = cache();
    let mut changes = cache.subscribe();
    let first = Instant::now();
    let at = |millis| Some(first + Duration::from_millis(millis));
    cache.replace_received([pod("a", &["10.0.0.1"], &[])], [], at(0));
    cache.apply(Delta { received: at(1), ..workloads([pod("b", &["10.0.0.2"], &[])]) });
    assert_eq!(changes.pending().expect("a first state is a change").received, at(0));
    for (name, millis) in [("c", 3), ("d", 2)] {
        cache.apply(Delta { received: at(millis), ..workloads([pod(name, &[], &[])]) });
    }
    // Nobody is told of what changes nothing, nor of when it came.
    cache.apply(Delta { received: at(1), ..workloads([pod("d", &[], &[])]) });
    cache.apply(workloads([pod("e", &[], &[])]));
    assert_eq!(changes.pending().expect("pods came").received, at(2));
    cache.apply(workloads([pod("f", &[], &[])]));
    assert_eq!(changes.pending().expect("a pod came").received, None);
}

#[test]
fn every_address_of_a_workload_finds_it_ipv4_mapped_or_not() {
    let cache = cache();
    cache.apply(workloads([pod("a", &["10.0.0.1", "fd00::1", "::ffff:10.0.0.2"], &[])]));
    for address in ["10.0.0.1", "::ffff:10.0.0.1", "fd00::1", "10.0.0.2"] {
        assert_eq!(at(&cache, address).as_deref(), Some("a"), "{address}");
    }
    assert_eq!(at(&cache, "10.0.0.3"), None);
}

#[test]
fn a_look_up_uses_the_network_and_then_the_empty_one() {
    let cache = cache();
    let in_network = Workload { network: "net".into(), ..pod("inside", &["10.0.0.1"], &[]) };
    let elsewhere = Workload { network: "other".into(), ..pod("elsewhere", &["10.0.0.3"], &[]) };
    cache.apply(workloads([in_network, pod("plain", &["10.0.0.1", "10.0.0.2"], &[]), elsewhere]));
    let snapshot = cache.load();
    let name = |address| snapshot.workload_at("net", ip(address)).map(|w| w.name.as_str());
    assert_eq!(name("10.0.0.1"), Some("inside"));
    assert_eq!(name("10.0.0.2"), Some("plain"));
    assert_eq!(name("10.0.0.3"), None);
    assert_eq!(snapshot.workload_at("", ip("10.0.0.1")).map(|w| w.name.as_str()), Some("plain"));
}

#[test]
fn of_two_holders_health_counts_first_then_this_node_then_the_newest() {
    let cache = cache();
    let unhealthy = |w| Workload { status: Health::Unhealthy, ..w };
    let here = |w| Workload { node: "here".into(), ..w };
    cache.apply(workloads([pod("old", &["10.0.0.1"], &[])]));
    cache.apply(workloads([pod("new", &["10.0.0.1"], &[])]));
    assert_eq!(at(&cache, "10.0.0.1").as_deref(), Some("new"));
    cache.apply(workloads([here(pod("near", &["10.0.0.1"], &[]))]));
    cache.apply(workloads([pod("newest", &["10.0.0.1"], &[])]));
    assert_eq!(at(&cache, "10.0.0.1").as_deref(), Some("near"));
    cache.apply(workloads([unhealthy(here(pod("near", &["10.0.0.1"], &[])))]));
    assert_eq!(at(&cache, "10.0.0.1").as_deref(), Some("newest"));
    cache.apply(workloads([unhealthy(pod("newest", &["10.0.0.1"], &[]))]));
    assert_eq!(at(&cache, "10.0.0.1").as_deref(), Some("new"));
    cache.apply(removed(&["c//Pod/ns/new"]));
    assert_eq!(at(&cache, "10.0.0.1").as_deref(), Some("old"));
}

#[test]
fn new_labels_do_not_win_an_address_back() {
    let cache = cache();
    cache.apply(workloads([pod("old", &["10.0.0.1"], &[])]));
    cache.apply(workloads([pod("new", &["10.0.0.1"], &[])]));
    let relabelled = Workload { canonical_revision: "v2".into(), ..pod("old", &["10.0.0.1"], &[]) };
    assert!(cache.apply(workloads([relabelled])));
    assert_eq!(at(&cache, "10.0.0.1").as_deref(), Some("new"));
}

#[test]
fn a_removal_takes_only_what_the_resource_still_owns() {
    let cache = cache();
    cache.apply(workloads([pod("a", &["10.0.0.1"], &["ns/s"])]));
    cache.apply(Delta { workloads: vec![pod("b", &["10.0.0.1"], &["ns/s"])], ..removed(&["c//Pod/ns/a"]) });
    assert_eq!(at(&cache, "10.0.0.1").as_deref(), Some("b"));
    assert_eq!(endpoints(&cache, "ns/s"), ["b"]);
}

#[test]
fn updates_apply_before_removals() {
    let cache = cache();
    cache.apply(Delta { workloads: vec![pod("a", &["10.0.0.1"], &[])], ..removed(&["c//Pod/ns/a"]) });
    assert_eq!(at(&cache, "10.0.0.1"), None);
    assert_eq!(cache.load().workload_count(), 0);
}

#[test]
fn an_address_moves_with_its_workload() {
    let cache = cache();
    cache.apply(workloads([pod("a", &["10.0.0.1"], &[]), pod("b", &["10.0.0.2"], &[])]));
    cache.apply(workloads([pod("a", &["10.0.0.2", "10.0.0.3"], &[])]));
    assert_eq!(at(&cache, "10.0.0.1"), None);
    assert_eq!(at(&cache, "10.0.0.2").as_deref(), Some("a"));
    assert_eq!(at(&cache, "10.0.0.3").as_deref(), Some("a"));
    cache.apply(workloads([pod("a", &["10.0.0.3"], &[])]));
    assert_eq!(at(&cache, "10.0.0.2").as_deref(), Some("b"));
}

#[test]
fn host_network_pods_share_the_address_of_their_node() {
    let cache = cache();
    let host = |name| Workload { network_mode: NetworkMode::HostNetwork, ..pod(name, &["192.168.0.1"], &[]) };
    cache.apply(workloads([host("a"), host("b"), host("c")]));
    assert_eq!(at(&cache, "192.168.0.1").as_deref(), Some("c"));
    cache.apply(removed(&["c//Pod/ns/c", "c//Pod/ns/a"]));
    assert_eq!(at(&cache, "192.168.0.1").as_deref(), Some("b"));
    cache.apply(removed(&["c//Pod/ns/b"]));
    assert_eq!(at(&cache, "192.168.0.1"), None);
}

#[test]
fn unknown_removals_are_ignored_and_an_unchanged_resource_costs_nothing() {
    let cache = cache();
    assert!(cache.replace([pod("a", &["10.0.0.1"], &["ns/s"])], []));
    assert!(cache.apply(services([service("s", &["10.1.0.1"])])));
    let mut subscription = cache.subscribe();
    assert_eq!(subscription.pending(), Some(Change::full()));
    let (before, swaps) = (cache.snapshot.load_full(), cache.state().swaps);
    let same = Delta {
        services: vec![service("s", &["10.1.0.1"])],
        removed: vec!["never/announced".into(), "c//Pod/ns/gone".into()],
        ..workloads([pod("a", &["10.0.0.9"], &[]), pod("a", &["10.0.0.1"], &["ns/s"])])
    };
    assert!(!cache.apply(same));
    assert!(!cache.replace([pod("a", &["10.0.0.1"], &["ns/s"])], [service("s", &["10.1.0.1"])]));
    assert!(Arc::ptr_eq(&before, &cache.snapshot.load_full()));
    assert_eq!((cache.state().swaps, subscription.pending()), (swaps, None));
}

#[test]
fn the_first_whole_state_is_told_though_it_is_empty() {
    let cache = cache();
    let mut subscription = cache.subscribe();
    subscription.pending();
    assert!(!cache.replace([], []));
    assert_eq!((subscription.pending(), cache.state().complete), (Some(Change::full()), true));
    assert!(!cache.replace([], []));
    assert_eq!(subscription.pending(), None);
}

#[test]
fn of_duplicates_in_one_batch_the_last_wins() {
    let cache = cache();
    cache.apply(workloads([pod("a", &["10.0.0.1"], &["ns/s"]), pod("a", &["10.0.0.2"], &["ns/t"])]));
    assert_eq!((at(&cache, "10.0.0.1"), at(&cache, "10.0.0.2").as_deref()), (None, Some("a")));
    assert_eq!((endpoints(&cache, "ns/s"), endpoints(&cache, "ns/t")), (vec![], vec!["a".to_owned()]));
    cache.replace([pod("b", &["10.0.0.3"], &[]), pod("b", &["10.0.0.4"], &[])], []);
    assert_eq!((at(&cache, "10.0.0.3"), at(&cache, "10.0.0.4").as_deref()), (None, Some("b")));
    assert_eq!(cache.load().workload_count(), 1);
}

#[test]
fn two_services_may_hold_one_address_for_a_while() {
    let cache = cache();
    cache.apply(services([service("s", &["10.1.0.1"]), service("t", &["10.1.0.2"])]));
    cache.apply(services([service("t", &["10.1.0.1"])]));
    assert_eq!((vip(&cache, "10.1.0.1").as_deref(), vip(&cache, "10.1.0.2")), (Some("t"), None));
    cache.apply(removed(&["ns/t"]));
    assert_eq!(vip(&cache, "10.1.0.1").as_deref(), Some("s"));
    cache.apply(services([service("s", &["10.1.0.3"])]));
    assert_eq!((vip(&cache, "10.1.0.1"), vip(&cache, "10.1.0.3").as_deref()), (None, Some("s")));
}

#[test]
fn endpoints_are_known_before_and_after_their_service() {
    let cache = cache();
    cache.apply(workloads([pod("a", &[], &["ns/s", "ns/t"]), pod("b", &[], &["ns/s"])]));
    assert_eq!(endpoints(&cache, "ns/s"), ["a", "b"]);
    assert!(cache.load().service("ns/s").is_none());
    cache.apply(services([service("s", &[])]));
    cache.apply(workloads([pod("a", &[], &["ns/t"])]));
    assert_eq!((endpoints(&cache, "ns/s"), cache.load().endpoint_count("ns/t")), (vec!["b".to_owned()], 1));
    cache.apply(removed(&["ns/s"]));
    assert_eq!(endpoints(&cache, "ns/s"), ["b"]);
    cache.apply(removed(&["c//Pod/ns/a", "c//Pod/ns/b"]));
    assert_eq!((endpoints(&cache, "ns/s"), cache.load().service_count()), (vec![], 0));
}

#[test]
fn the_canonical_service_of_a_hostname_comes_first() {
    let cache = cache();
    let in_namespace = |ns: &str, canonical| Service { namespace: ns.into(), canonical, ..service("h", &[]) };
    cache.apply(services([in_namespace("b", false), in_namespace("c", true), in_namespace("a", false)]));
    let snapshot = cache.load();
    let namespaces: Vec<_> = snapshot.services_by_hostname("h").iter().map(|s| s.namespace.as_str()).collect();
    assert_eq!(namespaces, ["c", "a", "b"]);
    assert!(snapshot.services_by_hostname("other").is_empty());
}

#[test]
fn a_workload_is_current_until_its_content_changes() {
    let cache = cache();
    cache.apply(workloads([pod("a", &["10.0.0.1"], &[])]));
    let first = cache.load().workload("c//Pod/ns/a").cloned().expect("it was just added");
    cache.replace([pod("a", &["10.0.0.1"], &[]), pod("b", &[], &[])], []);
    assert!(cache.load().is_current(&first));
    cache.apply(workloads([pod("a", &["10.0.0.2"], &[])]));
    assert!(!cache.load().is_current(&first));
    cache.apply(removed(&["c//Pod/ns/a"]));
    cache.apply(workloads([pod("a", &["10.0.0.1"], &[])]));
    assert!(!cache.load().is_current(&first), "the same content again is another incarnation");
}

#[tokio::test]
async fn a_subscriber_gets_what_accumulated_since_it_last_asked() {
    let cache = cache();
    let mut subscription = cache.subscribe();
    assert!(subscription.changed().await.full);
    cache.apply(workloads([pod("a", &["10.0.0.1"], &["ns/s"])]));
    cache.apply(services([service("t", &["10.1.0.1"])]));
    cache.apply(workloads([pod("a", &["10.0.0.1"], &["ns/u"])]));
    let change = subscription.changed().await;
    assert!(!change.full);
    assert_eq!(change.workloads, ["c//Pod/ns/a".into()].into_iter().collect());
    assert_eq!(change.services, ["ns/s", "ns/t", "ns/u"].map(Str::from).into_iter().collect());
    let waiting = subscription.changed();
    let applied = async { cache.apply(removed(&["ns/t"])) };
    let (change, _) = tokio::join!(waiting, applied);
    assert_eq!(change.services, ["ns/t".into()].into_iter().collect());
}

#[test]
fn a_replacement_tells_only_what_differs_and_too_much_becomes_everything() {
    let cache = cache();
    let pods = |n: usize| (0..n).map(|i| pod(&format!("p{i}"), &[&format!("10.0.{}.{}", i / 256, i % 256)], &[]));
    cache.replace(pods(10), []);
    let mut subscription = cache.subscribe();
    subscription.pending();
    cache.replace(pods(11).skip(1), []);
    let change = subscription.pending().expect("two pods differ");
    assert_eq!(change.workloads, ["c//Pod/ns/p0", "c//Pod/ns/p10"].map(Str::from).into_iter().collect());
    cache.apply(workloads(pods(5000)));
    assert_eq!(subscription.pending(), Some(Change::full()));
    for each in pods(5000) {
        cache.apply(removed(&[&each.uid]));
    }
    assert_eq!(subscription.pending(), Some(Change::full()));
    assert_eq!(cache.load().workload_count(), 0);
}

#[test]
fn the_state_says_who_told_it_whether_it_is_whole_and_how_old_it_is() {
    let cache = cache();
    assert!(cache.state().updated.is_none() && !cache.state().complete);
    cache.set_source("file");
    cache.apply(workloads([pod("a", &[], &[])]));
    assert!(cache.state().updated.is_some() && !cache.state().complete);
    cache.replace([], []);
    let state = cache.state();
    assert_eq!((state.source, state.complete, state.swaps), ("file", true, 2));
    assert!(state.age().is_some_and(|age| age.as_secs() < 60));
}

#[test]
fn policies_are_kept_replaced_and_removed() {
    let cache = cache();
    let policy = |action: &str| serde_json::json!({"action": action});
    assert!(cache.replace_policies([("ns/a".into(), policy("Allow")), ("ns/b".into(), policy("Deny"))]));
    assert!(!cache.replace_policies([("ns/a".into(), policy("Allow")), ("ns/b".into(), policy("Deny"))]));
    cache.replace([pod("a", &[], &[])], []);
    assert_eq!(cache.load().policies().len(), 2);
    cache.replace_policies([("ns/a".into(), policy("Deny"))]);
    assert_eq!(*cache.load().policies()["ns/a"], policy("Deny"));
    assert_eq!(cache.load().policies().len(), 1);
}

#[test]
fn names_that_nobody_holds_any_more_are_dropped() {
    let cache = cache();
    let pods = |from: usize, to: usize| {
        (from..to).map(|i| Workload { workload_name: arcstr::format!("w{i}"), ..pod(&format!("p{i}"), &[], &[]) })
    };
    cache.replace(pods(0, 3000), []);
    assert!(cache.interner().len() > 3000);
    cache.replace(pods(0, 10), []);
    assert!(cache.interner().len() < 50);
    for i in 0..5000 {
        cache.apply(Delta { removed: vec![arcstr::format!("c//Pod/ns/p{i}")], ..workloads(pods(i + 1, i + 2)) });
    }
    assert!(cache.interner().len() < 3000, "{}", cache.interner().len());
}

#[test]
fn equal_lists_and_names_are_one() {
    let cache = cache();
    cache.apply(workloads([pod("a", &[], &["ns/t", "ns/s"]), pod("b", &[], &["ns/s", "ns/t"])]));
    let snapshot = cache.load();
    let [a, b] = ["a", "b"].map(|n| snapshot.workload(&format!("c//Pod/ns/{n}")).expect("it was added"));
    assert!(Arc::ptr_eq(&a.services, &b.services) && Str::ptr_eq(&a.namespace, &b.namespace));
    assert_eq!(a.services.iter().map(|s| s.0.as_str()).collect::<Vec<_>>(), ["ns/s", "ns/t"]);
}

#[test]
fn a_dump_has_the_field_names_of_the_mesh_file() {
    let cache = cache();
    cache.apply(Delta {
        services: vec![service("s", &["10.1.0.1"])],
        policies: vec![("ns/p".into(), serde_json::json!({"name": "p"}))],
        ..workloads([pod("b", &[], &[]), pod("a", &["10.0.0.1"], &["ns/s"])])
    });
    let dump = serde_json::to_value(cache.load().dump()).expect("it serializes");
    assert_eq!(dump["workloads"][0]["uid"], "c//Pod/ns/a");
    assert_eq!(dump["workloads"][0]["addresses"], serde_json::json!(["10.0.0.1"]));
    assert_eq!(dump["workloads"][0]["services"], serde_json::json!({"ns/s": {"80": 8080}}));
    assert_eq!(dump["workloads"][0]["serviceAccount"], "");
    assert_eq!(dump["workloads"][1]["status"], "Healthy");
    assert_eq!(dump["services"][0]["vips"], serde_json::json!(["/10.1.0.1"]));
    assert_eq!(dump["policies"], serde_json::json!([{"name": "p"}]));
}
