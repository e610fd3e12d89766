//! Series and lines of long connections: when they come, what they say, when they go.

use telemetry::{Config, Switch};

use crate::{
    connection::{Connection, SECOND},
    pipeline::{Pipeline, samples, sum},
};

const SENT: &str = "kmesh_tcp_connection_sent_bytes_total";

fn connection() -> Connection {
    Connection::outbound(1, SECOND, "10.244.0.17:40000", "10.244.0.13:8080").dialled("10.96.0.10:80")
}

#[test]
fn a_series_comes_with_the_first_report_past_the_threshold_and_has_the_totals() {
    let mut pipeline = Pipeline::all_on(Config::default());
    let connection = connection();
    pipeline.feed([&connection.established(), &connection.moved(10, 0).progress(6 * SECOND - 1)]);
    assert!(samples(&pipeline.scrape_at(6 * SECOND), SENT, &[]).is_empty());
    pipeline.feed([&connection.moved(30, 0).progress(6 * SECOND)]);
    let labels = [
        ("reporter", "source"),
        ("start_time", "2024-09-14 08:19:21.000000000 +0000 UTC"),
        ("source_address", "10.244.0.17:40000"),
        ("destination_address", "10.244.0.13:8080"),
        ("destination_pod_name", "cart-a"),
        ("destination_service_name", "cart"),
    ];
    assert_eq!(sum(&pipeline.scrape_at(6 * SECOND), SENT, &labels), 30);
    pipeline.feed([&connection.moved(31, 0).progress(11 * SECOND)]);
    assert_eq!(sum(&pipeline.scrape_at(11 * SECOND), SENT, &labels), 31);
}

#[test]
fn an_idle_connection_stays() {
    let mut pipeline = Pipeline::all_on(Config::default());
    let connection = connection().moved(10, 0);
    pipeline.feed([&connection.established()]);
    for second in (10..3600).step_by(5) {
        pipeline.feed([&connection.progress(second * SECOND)]);
        pipeline.recorder.maintain(second * SECOND);
    }
    assert_eq!(sum(&pipeline.scrape(), SENT, &[]), 10);
}

#[test]
fn a_closed_one_keeps_its_final_values_for_a_minute_however_often_it_is_scraped() {
    let mut pipeline = Pipeline::all_on(Config::default());
    let connection = connection();
    pipeline.feed([&connection.established(), &connection.moved(10, 0).progress(10 * SECOND)]);
    pipeline.feed([&connection.moved(12, 0).closed(12 * SECOND)]);
    for second in 12..72 {
        for _ in 0..3 {
            assert_eq!(sum(&pipeline.scrape_at(second * SECOND), SENT, &[]), 12, "{second}");
        }
    }
    (720..760).for_each(|tenth| pipeline.recorder.maintain(tenth * SECOND / 10));
    assert!(samples(&pipeline.scrape(), SENT, &[]).is_empty());
    assert_eq!(sum(&pipeline.scrape(), "kmesh_tcp_sent_bytes_total", &[]), 12);
}

#[test]
fn a_connection_that_closes_before_its_first_long_report_has_no_series() {
    let mut pipeline = Pipeline::all_on(Config::default());
    let connection = connection();
    pipeline.feed([&connection.established(), &connection.moved(10, 0).closed(9 * SECOND)]);
    assert!(samples(&pipeline.scrape_at(9 * SECOND), SENT, &[]).is_empty());
}

#[test]
fn series_of_their_own_go_when_switched_off_and_come_back_with_the_totals() {
    let mut pipeline = Pipeline::all_on(Config::default());
    let connection = connection();
    pipeline.feed([&connection.established(), &connection.moved(10, 0).progress(10 * SECOND)]);
    assert_eq!(sum(&pipeline.scrape_at(10 * SECOND), SENT, &[]), 10);
    pipeline.switches.set(Switch::ConnectionMetrics, false);
    (100..800).for_each(|tenth| pipeline.recorder.maintain(tenth * SECOND / 10));
    assert!(samples(&pipeline.scrape(), SENT, &[]).is_empty());
    pipeline.switches.set(Switch::ConnectionMetrics, true);
    pipeline.feed([&connection.moved(15, 0).progress(85 * SECOND)]);
    assert_eq!(sum(&pipeline.scrape_at(85 * SECOND), SENT, &[]), 15);
}

#[test]
fn each_report_of_a_long_connection_is_a_line() {
    let mut pipeline = Pipeline::all_on(Config::default());
    let connection = connection();
    pipeline.feed([&connection.established(), &connection.progress(3 * SECOND)]);
    pipeline.feed([
        &connection.progress(8 * SECOND),
        &connection.progress(13 * SECOND),
        &connection.closed(14 * SECOND),
    ]);
    let log = pipeline.log();
    let states: Vec<_> =
        log.lines().map(|l| (l.contains("state=BPF_TCP_ESTABLISHED"), l.contains("duration=13000ms"))).collect();
    assert_eq!(states, [(true, false), (true, false), (false, true)]);
}
