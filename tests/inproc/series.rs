//! The series budget and the life of a series, from records on.

use telemetry::Config;

use crate::{
    connection::{Connection, SECOND},
    pipeline::{Pipeline, pod, samples, sum},
};

const OPENED: &str = "kmesh_tcp_workload_connections_opened_total";
const SENT: &str = "kmesh_tcp_workload_sent_bytes_total";

/// A pipeline whose mesh has `pods` servers at 10.1.0.n.
fn with_pods(pods: u64, max_series: usize) -> Pipeline {
    let pipeline = Pipeline::all_on(Config { max_series, ..Config::default() });
    let server = |n| pod(&format!("server{n}-0"), "shop", &[format!("10.1.0.{n}").as_str()], None);
    pipeline.cache.replace((1..=pods).map(server), []);
    pipeline
}

fn to(server: u64, cookie: u64, start_ns: u64) -> Connection {
    Connection::outbound(cookie, start_ns, "10.244.0.17:40000", &format!("10.1.0.{server}:80"))
}

#[test]
fn label_sets_beyond_the_budget_count_as_other_from_their_first_record_on() {
    let mut pipeline = with_pods(20, 5);
    for server in 1..=20 {
        let connection = to(server, server, SECOND);
        pipeline.feed([&connection.established(), &connection.moved(10 * server, 0).progress(2 * SECOND)]);
    }
    let scrape = pipeline.scrape_at(2 * SECOND);
    let other = [("destination_workload", "other"), ("reporter", "source"), ("request_protocol", "tcp")];
    let overflown = sum(&scrape, OPENED, &other);
    assert!(overflown >= 15, "{overflown}");
    assert_eq!(sum(&scrape, OPENED, &[]), 20);
    assert_eq!(sum(&scrape, SENT, &[]), 2100);
    assert_eq!(samples(&scrape, OPENED, &[]).len() as u64, 20 - overflown + 1);
    // What has a series keeps it, what is in the overflow stays there.
    (1..=20).for_each(|server| pipeline.feed([&to(server, server, SECOND).moved(10 * server, 0).closed(3 * SECOND)]));
    let after = pipeline.scrape_at(3 * SECOND);
    assert_eq!(sum(&after, OPENED, &other), overflown);
    assert_eq!(sum(&after, "kmesh_tcp_workload_connections_closed_total", &other), overflown);
    assert_eq!(sum(&after, SENT, &[]), 2100);
}

#[test]
fn an_idle_series_retires_and_what_it_held_is_kept_in_sum() {
    let mut pipeline = with_pods(2, 100);
    let (short, open) = (to(1, 1, SECOND), to(2, 2, SECOND));
    pipeline.feed([&short.established(), &open.established(), &open.moved(5, 0).progress(2 * SECOND)]);
    pipeline.feed([&short.moved(70, 0).closed(2 * SECOND)]);
    assert_eq!(sum(&pipeline.scrape_at(3 * SECOND), SENT, &[]), 75);
    (3..700).for_each(|second| pipeline.recorder.maintain(second * SECOND));
    let scrape = pipeline.scrape_at(700 * SECOND);
    assert_eq!(sum(&scrape, SENT, &[]), 5);
    assert_eq!(sum(&scrape, OPENED, &[("destination_workload", "server2")]), 1);
    let retired: u64 = samples(&scrape, "meshd_telemetry_retired_total", &[])
        .iter()
        .filter(|line| line.contains("kmesh_tcp_workload_sent_bytes"))
        .map(|line| crate::pipeline::value(line))
        .sum();
    assert_eq!(retired, 70);
}

#[test]
fn labels_that_differ_only_in_where_one_ends_are_two_series() {
    let mut pipeline = with_pods(0, 100);
    let named = |name: &str, namespace: &str, address: &str| {
        let mut pod = pod(name, namespace, &[address], None);
        (pod.workload_name, pod.canonical_name) = (name.into(), name.into());
        pod
    };
    pipeline.cache.replace([named("xapp", "default", "10.1.0.1"), named("app", "defaultx", "10.1.0.2")], []);
    for server in 1..=2 {
        pipeline.feed([&to(server, server, SECOND).established()]);
    }
    let scrape = pipeline.scrape_at(SECOND);
    assert_eq!(samples(&scrape, OPENED, &[]).len(), 2);
    assert_eq!(sum(&scrape, OPENED, &[("destination_workload", "app")]), 1);
}

#[test]
fn strangers_are_one_series_whatever_their_address() {
    let mut pipeline = with_pods(0, 100);
    pipeline.cache.replace([pod("client-0", "web", &["10.244.0.17"], None)], []);
    for n in 1..=200 {
        let there = Connection::outbound(n, SECOND, "10.244.0.17:40000", &format!("203.0.113.{n}:443"));
        let here = Connection::inbound(1000 + n, SECOND, "10.244.0.17:8080", &format!("203.0.113.{n}:50000"));
        pipeline.feed([&there.established(), &here.established()]);
    }
    let scrape = pipeline.scrape_at(SECOND);
    for metric in [OPENED, "kmesh_tcp_connections_opened_total"] {
        assert_eq!(samples(&scrape, metric, &[]).len(), 2, "{metric}");
        assert_eq!(sum(&scrape, metric, &[("reporter", "source"), ("source_workload", "client")]), 200);
        assert_eq!(sum(&scrape, metric, &[("reporter", "destination"), ("source_workload", "-")]), 200);
    }
    assert!(!scrape.contains("203.0.113."));
}
