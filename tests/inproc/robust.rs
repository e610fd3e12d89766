//! What goes wrong between the kernel and here: records that are none, lost ones, vanished sockets, a full table.

use std::time::Duration;

use abi::{Record, maps::counter};
use telemetry::Config;

use crate::{
    connection::{Connection, Raw, SECOND},
    pipeline::{Pipeline, sum},
};

const OPENED: &str = "kmesh_tcp_connections_opened_total";
const CLOSED: &str = "kmesh_tcp_connections_closed_total";
const SENT: &str = "kmesh_tcp_sent_bytes_total";

fn connection(cookie: u64) -> Connection {
    Connection::outbound(cookie, SECOND, "10.244.0.17:40000", "10.244.0.13:8080")
}

fn totals(scrape: &str) -> [u64; 3] {
    [OPENED, CLOSED, SENT].map(|metric| sum(scrape, metric, &[]))
}

#[test]
fn what_is_no_record_is_counted_and_skipped() {
    let mut pipeline = Pipeline::monitoring(Config::default());
    let good = connection(1).established();
    let broken = |at: usize, byte: u8| {
        let mut raw = good.clone();
        raw[at] = byte;
        raw
    };
    let (state, direction) = (std::mem::offset_of!(Record, state), std::mem::offset_of!(Record, direction));
    let bad: Vec<Raw> = vec![
        Raw::new(),
        good[..167].to_vec(),
        [good.clone(), vec![0]].concat(),
        broken(0, 0),
        broken(0, 9),
        broken(state, 13),
        broken(direction, 0),
        broken(direction, 3),
    ];
    pipeline.feed(&bad);
    let scrape = pipeline.scrape_at(SECOND);
    assert_eq!(sum(&scrape, "meshd_telemetry_malformed_total", &[]), bad.len() as u64);
    assert_eq!(totals(&scrape), [0, 0, 0]);
    pipeline.feed([&good]);
    assert_eq!(totals(&pipeline.scrape_at(SECOND)), [1, 0, 0]);
}

#[test]
fn a_socket_that_two_passes_do_not_show_has_closed_with_its_last_totals() {
    let mut pipeline = Pipeline::all_on(Config::default());
    let (gone, stays) = (connection(1), connection(2));
    pipeline.feed([&gone.established(), &stays.established(), &gone.moved(40, 0).progress(2 * SECOND)]);
    for second in [7, 12] {
        assert_eq!(totals(&pipeline.scrape_at(second * SECOND)), [2, 0, 40]);
        pipeline.recorder.begin_pass(second * SECOND);
        pipeline.feed([&stays.progress(second * SECOND)]);
        if pipeline.recorder.end_pass(true) {
            pipeline.recorder.remove_missed();
        }
    }
    let scrape = pipeline.scrape_at(13 * SECOND);
    assert_eq!(totals(&scrape), [2, 1, 40]);
    assert_eq!(sum(&scrape, "meshd_telemetry_vanished_total", &[]), 1);
    assert_eq!(sum(&scrape, "meshd_telemetry_connections", &[]), 1);
    pipeline.feed([&gone.moved(50, 0).closed(14 * SECOND)]);
    assert_eq!(totals(&pipeline.scrape_at(14 * SECOND)), [2, 1, 40]);
    let closed = pipeline.log().lines().filter(|l| l.contains("state=BPF_TCP_CLOSE")).count();
    assert_eq!(closed, 1);
}

#[test]
fn a_quiet_connection_lives_on_and_becomes_long() {
    let config = Config { long_threshold: Duration::from_secs(30), ..Config::default() };
    let mut pipeline = Pipeline::all_on(config);
    let quiet = connection(1);
    pipeline.feed([&quiet.established(), &quiet.moved(40, 0).progress(2 * SECOND)]);
    for second in (7..=47).step_by(5) {
        pipeline.recorder.begin_pass(second * SECOND);
        assert!(pipeline.recorder.quiet(1));
        assert!(!pipeline.recorder.quiet(2), "a record of that one is needed");
        assert!(!pipeline.recorder.end_pass(true));
        let scrape = pipeline.scrape_at(second * SECOND);
        assert_eq!(totals(&scrape), [1, 0, 40]);
        let own = if second > 30 { 40 } else { 0 };
        assert_eq!(sum(&scrape, "kmesh_tcp_connection_sent_bytes_total", &[]), own);
    }
    let scrape = pipeline.scrape_at(48 * SECOND);
    assert_eq!(sum(&scrape, "meshd_telemetry_records_total", &[("kind", "quiet")]), 9);
    assert_eq!(sum(&scrape, "meshd_telemetry_vanished_total", &[]), 0);
    // A line with each report from when on it is long.
    assert_eq!(pipeline.log().lines().filter(|l| l.contains("state=BPF_TCP_ESTABLISHED")).count(), 4);
}

#[test]
fn what_finds_the_table_full_is_whole_when_it_closes() {
    let mut pipeline = Pipeline::monitoring(Config { max_connections: 1, ..Config::default() });
    let (first, second) = (connection(1), connection(2));
    pipeline.feed([&first.established(), &second.established(), &second.moved(5, 0).progress(2 * SECOND)]);
    let scrape = pipeline.scrape_at(2 * SECOND);
    assert_eq!(totals(&scrape), [1, 0, 0]);
    assert_eq!(sum(&scrape, "meshd_telemetry_connections_overflow_total", &[]), 1);
    pipeline.feed([&second.moved(9, 0).closed(3 * SECOND)]);
    assert_eq!(totals(&pipeline.scrape_at(3 * SECOND)), [2, 1, 9]);
}

#[test]
fn totals_that_fall_leave_counters_where_they_are() {
    let mut pipeline = Pipeline::monitoring(Config::default());
    let connection = connection(1);
    pipeline.feed([&connection.established(), &connection.moved(u64::MAX / 2, 0).progress(2 * SECOND)]);
    pipeline.feed([&connection.moved(3, 0).progress(3 * SECOND), &connection.moved(4, 0).closed(4 * SECOND)]);
    let scrape = pipeline.scrape_at(4 * SECOND);
    assert_eq!(totals(&scrape), [1, 1, u64::MAX / 2]);
    assert_eq!(sum(&scrape, "meshd_telemetry_discarded_total", &[("reason", "stale")]), 2);
}

#[test]
fn a_reused_address_pair_is_another_connection() {
    let mut pipeline = Pipeline::monitoring(Config::default());
    for cookie in 1..=3 {
        let connection = Connection::outbound(cookie, cookie * SECOND, "10.244.0.17:40000", "10.244.0.13:8080");
        let end = connection.moved(1000 * (4 - cookie), 0).closed(cookie * SECOND + 1);
        pipeline.feed([&connection.established(), &end]);
    }
    assert_eq!(totals(&pipeline.scrape_at(4 * SECOND)), [3, 3, 6000]);
}

#[test]
fn kernel_counters_are_taken_as_totals() {
    let mut pipeline = Pipeline::monitoring(Config::default());
    let mut totals = [0; counter::COUNT as usize];
    for lost in [3, 3, 8, 5] {
        totals[counter::LOST_CONNECTIONS as usize] = lost;
        totals[counter::LOST_SENT as usize] = 100 * lost;
        pipeline.recorder.kernel_counters(&totals);
    }
    let scrape = pipeline.scrape_at(SECOND);
    let lost = [("kind", "closed_or_failed")];
    assert_eq!(sum(&scrape, "meshd_telemetry_lost_records_total", &lost), 8);
    assert_eq!(sum(&scrape, "meshd_telemetry_lost_bytes_total", &[("direction", "sent")]), 800);
}

#[test]
fn names_are_those_of_the_first_record() {
    let mut pipeline = Pipeline::monitoring(Config::default());
    let connection = connection(1);
    pipeline.feed([&connection.established()]);
    pipeline.cache.replace([], []);
    pipeline.feed([&connection.moved(5, 0).closed(2 * SECOND)]);
    let scrape = pipeline.scrape_at(2 * SECOND);
    let named = [("source_workload", "client"), ("destination_service_name", "cart")];
    assert_eq!([OPENED, CLOSED, SENT].map(|m| sum(&scrape, m, &named)), [1, 1, 5]);
}

#[test]
fn live_connections_are_shown_with_names_and_numbers() {
    let mut pipeline = Pipeline::monitoring(Config::default());
    pipeline
        .feed([&connection(1).dialled("10.96.0.10:80").established(), &connection(1).moved(5, 6).progress(3 * SECOND)]);
    pipeline.recorder.maintain(4 * SECOND);
    let shown: Vec<_> =
        pipeline.recorder.connections().map(|c| serde_json::to_value(c).expect("it serializes")).collect();
    assert_eq!(shown.len(), 1);
    let one = &shown[0];
    assert_eq!((&one["cookie"], &one["sent_bytes"], &one["received_bytes"]), (&1.into(), &5.into(), &6.into()));
    assert_eq!((&one["age_ms"], &one["reported_ms_ago"]), (&3000.into(), &1000.into()));
    assert_eq!(
        (one["source"]["name"].as_str(), one["destination"]["name"].as_str()),
        (Some("client-0"), Some("cart-a"))
    );
    assert_eq!((one["local"].as_str(), one["direction"].as_str()), (Some("10.244.0.17:40000"), Some("OUTBOUND")));
    assert_eq!(one["start_time"].as_str(), Some("2024-09-14T08:19:21.000000000Z"));
}
