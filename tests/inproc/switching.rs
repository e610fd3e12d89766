//! Switches turned while connections live.

use telemetry::{Config, Switch};

use crate::{
    connection::{Connection, SECOND},
    pipeline::{Pipeline, samples, sum},
};

const OPENED: &str = "kmesh_tcp_connections_opened_total";
const CLOSED: &str = "kmesh_tcp_connections_closed_total";
const SENT: &str = "kmesh_tcp_sent_bytes_total";
const WORKLOAD_OPENED: &str = "kmesh_tcp_workload_connections_opened_total";
const WORKLOAD_SENT: &str = "kmesh_tcp_workload_sent_bytes_total";

fn connection(cookie: u64, start_ns: u64) -> Connection {
    Connection::outbound(cookie, start_ns, "10.244.0.17:40000", "10.244.0.13:8080")
}

#[test]
fn nothing_is_reported_before_monitoring_is_on() {
    let mut pipeline = Pipeline::new(Config::default());
    let connection = connection(1, SECOND);
    pipeline.feed([&connection.established(), &connection.moved(5, 0).closed(2 * SECOND)]);
    let scrape = pipeline.scrape_at(2 * SECOND);
    assert_eq!(scrape.lines().filter(|l| l.starts_with("kmesh_")).count(), 0);
    assert!(pipeline.log().is_empty());
}

#[test]
fn only_what_is_switched_on_is_reported() {
    let mut pipeline = Pipeline::monitoring(Config::default());
    let connection = connection(1, SECOND);
    pipeline.feed([&connection.established(), &connection.moved(5, 0).progress(9 * SECOND)]);
    pipeline.feed([&connection.moved(6, 0).closed(10 * SECOND)]);
    let scrape = pipeline.scrape_at(10 * SECOND);
    assert_eq!(sum(&scrape, SENT, &[]), 6);
    let finer = ["kmesh_tcp_workload_", "kmesh_tcp_connection_", "kmesh_tcp_retrans", "kmesh_tcp_packet"];
    assert!(!scrape.lines().any(|l| finer.iter().any(|f| l.starts_with(f))), "{scrape}");
    assert!(pipeline.log().is_empty());
}

#[test]
fn a_family_switched_on_in_mid_life_counts_from_then_on() {
    let mut pipeline = Pipeline::monitoring(Config::default());
    let connection = connection(1, SECOND);
    pipeline.feed([&connection.established(), &connection.moved(100, 0).progress(2 * SECOND)]);
    pipeline.switches.set(Switch::WorkloadMetrics, true);
    pipeline.feed([&connection.moved(130, 0).progress(7 * SECOND)]);
    let scrape = pipeline.scrape_at(7 * SECOND);
    assert_eq!((sum(&scrape, WORKLOAD_SENT, &[]), sum(&scrape, WORKLOAD_OPENED, &[])), (30, 0));
    assert_eq!((sum(&scrape, SENT, &[]), sum(&scrape, OPENED, &[])), (130, 1));
    pipeline.switches.set(Switch::WorkloadMetrics, false);
    pipeline.feed([&connection.moved(150, 0).progress(12 * SECOND)]);
    let scrape = pipeline.scrape_at(12 * SECOND);
    assert_eq!((sum(&scrape, WORKLOAD_SENT, &[]), sum(&scrape, SENT, &[])), (30, 150));
}

#[test]
fn what_moved_while_monitoring_was_off_is_not_counted() {
    let mut pipeline = Pipeline::monitoring(Config::default());
    let known = connection(1, SECOND);
    pipeline.feed([&known.established(), &known.moved(100, 0).progress(2 * SECOND)]);
    pipeline.switches.set(Switch::Monitoring, false);
    pipeline.recorder.maintain(10 * SECOND);
    pipeline.feed([&known.moved(5000, 0).progress(9 * SECOND)]);
    pipeline.switches.set(Switch::Monitoring, true);
    pipeline.recorder.maintain(11 * SECOND);
    // One that began in the meantime is adopted: it was not seen to open.
    let unknown = Connection::inbound(2, 5 * SECOND, "10.244.0.13:8080", "10.244.0.17:40001");
    pipeline.feed([&known.moved(9000, 0).progress(12 * SECOND), &unknown.moved(700, 0).progress(12 * SECOND)]);
    pipeline.feed([&known.moved(9001, 0).closed(13 * SECOND), &unknown.moved(702, 0).closed(13 * SECOND)]);
    let scrape = pipeline.scrape_at(13 * SECOND);
    assert_eq!(sum(&scrape, SENT, &[("reporter", "source")]), 101);
    assert_eq!(sum(&scrape, SENT, &[("reporter", "destination")]), 2);
    assert_eq!((sum(&scrape, OPENED, &[]), sum(&scrape, CLOSED, &[])), (1, 2));
    assert_eq!(sum(&scrape, "meshd_connections_adopted_total", &[("reporter", "destination")]), 1);
}

#[test]
fn the_log_follows_its_switch() {
    let mut pipeline = Pipeline::monitoring(Config::default());
    for (cookie, on) in [(1, false), (2, true), (3, false)] {
        pipeline.switches.set(Switch::AccessLog, on);
        let connection = connection(cookie, cookie * SECOND);
        pipeline.feed([&connection.established(), &connection.moved(cookie, 0).closed(cookie * SECOND + 1)]);
    }
    let log = pipeline.log();
    assert_eq!(log.lines().count(), 1);
    assert!(log.contains("sent_bytes=2,"));
    assert_eq!(
        samples(&pipeline.scrape(), "meshd_telemetry_log_lines_total", &[]),
        ["meshd_telemetry_log_lines_total 1"]
    );
}

#[test]
fn node_traffic_is_reported_when_asked_for() {
    for (include, reported) in [(false, 0), (true, 1)] {
        let mut pipeline = Pipeline::monitoring(Config { include_node_traffic: include, ..Config::default() });
        let probe = Connection::inbound(1, SECOND, "10.244.0.13:8080", "10.244.0.1:40000");
        pipeline.feed([&probe.established(), &probe.progress(2 * SECOND), &probe.closed(3 * SECOND)]);
        let scrape = pipeline.scrape_at(3 * SECOND);
        assert_eq!((sum(&scrape, OPENED, &[]), sum(&scrape, CLOSED, &[])), (reported, reported));
        assert_eq!(sum(&scrape, "meshd_telemetry_ignored_total", &[("reason", "node")]), 1 - reported);
    }
}
