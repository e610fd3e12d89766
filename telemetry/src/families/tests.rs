use std::{
    net::{IpAddr, Ipv6Addr},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use cache::{Service, Workload};
use proptest::prelude::*;

use super::{
    ConnectionHandle, ServiceHandle, Traffic, WorkloadHandle,
    fixture::{ADDRESS, Fixture, SECOND, Samples, encode, pod},
};
use crate::{
    ConnectionLabels, Format,
    labels::{Flag, Reporter},
};

const OPENED: &str = "kmesh_tcp_connections_opened_total";
const OTHER: &[&str] = &["source_workload=\"other\"", "destination_service=\"other\"", "destination_cluster=\"other\""];

fn moved(sent: u64, received: u64) -> Traffic {
    Traffic { sent, received, retransmits: 0, lost: 0 }
}

#[test]
fn distinct_labels_are_distinct_series() {
    let mut fixture = Fixture::new(10);
    for (namespace, name) in [("default", "xapp"), ("defaultx", "app")] {
        let workload =
            Workload { uid: arcstr::format!("{namespace}/{name}"), namespace: namespace.into(), ..pod("", name) };
        let workload = fixture.workload(workload);
        let ends = fixture.families.ends(Some(&workload), None, ADDRESS, None);
        fixture.families.service(&ends, Reporter::Source, Flag::None, 0).opened(0);
    }
    assert_eq!(fixture.samples().find(OPENED, &[]), [1.0, 1.0]);
}

#[test]
fn what_looks_alike_is_one_series() {
    let mut fixture = Fixture::new(10);
    let (a, b) = (pod("shop", "cart"), Workload { uid: "another".into(), ..pod("shop", "cart") });
    for workload in [a, b] {
        let workload = fixture.workload(workload);
        let ends = fixture.families.ends(Some(&workload), None, ADDRESS, None);
        fixture.families.service(&ends, Reporter::Source, Flag::None, 0).opened(0);
    }
    assert_eq!(fixture.samples().find(OPENED, &[]), [2.0]);
}

#[test]
fn only_what_is_unknown_is_a_dash() {
    let mut fixture = Fixture::new(10);
    let nameless = fixture.workload(Workload { uid: "u".into(), namespace: "shop".into(), ..Workload::default() });
    let address = IpAddr::V6("fd00::5".parse::<Ipv6Addr>().expect("an address"));
    let ends = fixture.families.ends(Some(&nameless), Some(&nameless), address, None);
    fixture.families.workload(&ends, Reporter::Destination, Flag::None, 0).opened(0);
    let text = fixture.scrape(Format::Text);
    let line = text.lines().find(|line| line.starts_with("kmesh_tcp_workload_connections_opened_total{"));
    assert_eq!(
        line.expect("there is a series"),
        "kmesh_tcp_workload_connections_opened_total{reporter=\"destination\",source_workload=\"-\",\
         source_canonical_service=\"-\",source_canonical_revision=\"-\",source_workload_namespace=\"shop\",\
         source_principal=\"spiffe://cluster.local/ns/shop/sa/default\",source_app=\"-\",source_version=\"-\",\
         source_cluster=\"Kubernetes\",destination_pod_address=\"fd00::5\",destination_pod_namespace=\"shop\",\
         destination_pod_name=\"-\",destination_workload=\"-\",destination_canonical_service=\"-\",\
         destination_canonical_revision=\"-\",destination_workload_namespace=\"shop\",\
         destination_principal=\"spiffe://cluster.local/ns/shop/sa/default\",destination_app=\"-\",\
         destination_version=\"-\",destination_cluster=\"Kubernetes\",request_protocol=\"tcp\",response_flags=\"-\",\
         connection_security_policy=\"unknown\"} 1"
    );
}

#[test]
fn names_cannot_forge_labels() {
    let mut fixture = Fixture::new(10);
    let service = fixture.service(Service {
        name: "a\",reporter=\"x".into(),
        namespace: "n\nkmesh 1".into(),
        hostname: "h\\\r\u{7}".into(),
        ..Service::default()
    });
    let ends = fixture.families.ends(None, None, ADDRESS, Some(&service));
    fixture.families.service(&ends, Reporter::Source, Flag::None, 0).opened(0);
    let labels = r#"destination_service="h\\\\u{d}\\u{7}",destination_service_namespace="n\nkmesh 1",destination_service_name="a\",reporter=\"x","#;
    assert_eq!(fixture.samples().find(OPENED, &[labels]), [1.0]);
}

#[test]
fn a_flag_decides_which_metrics_have_the_series() {
    let mut fixture = Fixture::new(10);
    let ends = fixture.ends("client", "server");
    let families = &mut fixture.families;
    families.workload(&ends, Reporter::Source, Flag::None, 0).opened(0);
    families.workload(&ends, Reporter::Source, Flag::Reset, 0).closed(0);
    families.workload(&ends, Reporter::Source, Flag::ConnectRefused, 0).failed(0);
    let samples = fixture.samples();
    let values = |metric: &str, flag: &str| samples.find(metric, &[&format!("response_flags=\"{flag}\"")]);
    for (metric, dash, reset, refused) in [
        ("kmesh_tcp_workload_connections_opened_total", vec![1.0], vec![], vec![]),
        ("kmesh_tcp_workload_connections_closed_total", vec![0.0], vec![1.0], vec![]),
        ("kmesh_tcp_workload_received_bytes_total", vec![0.0], vec![], vec![]),
        ("kmesh_tcp_workload_sent_bytes_total", vec![0.0], vec![], vec![]),
        ("kmesh_tcp_workload_connections_failed_total", vec![], vec![], vec![1.0]),
        ("kmesh_tcp_workload_conntections_failed_total", vec![], vec![], vec![1.0]),
        ("kmesh_tcp_retrans_total", vec![0.0], vec![], vec![]),
        ("kmesh_tcp_packet_loss_total", vec![0.0], vec![], vec![]),
    ] {
        assert_eq!(values(metric, "-"), dash, "{metric}");
        assert_eq!(values(metric, "RESET"), reset, "{metric}");
        assert_eq!(values(metric, "CONNECT_REFUSED"), refused, "{metric}");
    }
}

#[test]
fn what_is_new_in_a_full_family_counts_as_other_and_stays_there() {
    let mut fixture = Fixture::new(2);
    let [a, b, c] = ["a", "b", "c"].map(|name| fixture.ends(name, "server"));
    let open = |fixture: &mut Fixture, ends, at| {
        let handle = fixture.families.service(ends, Reporter::Source, Flag::None, at);
        handle.opened(at);
        handle
    };
    let kept: Vec<_> = [&a, &b].map(|ends| open(&mut fixture, ends, 0)).into();
    let overflowing = open(&mut fixture, &c, 0);
    overflowing.moved(&moved(7, 0), 0);
    drop(open(&mut fixture, &a, 0));
    let samples = fixture.samples();
    assert_eq!(samples.find(OPENED, &[]), [2.0, 1.0, 1.0]);
    assert_eq!(samples.find(OPENED, OTHER), [1.0]);
    assert_eq!(samples.find("kmesh_tcp_sent_bytes_total", OTHER), [7.0]);
    assert_eq!(samples.find("meshd_telemetry_overflow_total", &["service"]), [1.0]);
    let kept_labels = ["reporter=\"source\"", "request_protocol=\"tcp\"", "connection_security_policy=\"unknown\""];
    assert_eq!(samples.find(OPENED, &[OTHER, &kept_labels].concat()), [1.0]);

    // Room returns: what is new again has its own series, and what was counted as other stays there.
    drop(kept);
    let later = 601 * SECOND;
    fixture.families.maintain(later);
    drop(open(&mut fixture, &c, later));
    overflowing.moved(&moved(5, 0), later);
    let samples = fixture.samples();
    assert_eq!(samples.find("kmesh_tcp_sent_bytes_total", OTHER), [12.0]);
    assert_eq!(samples.find(OPENED, &["source_workload=\"c\""]), [1.0]);
    assert_eq!(samples.find(OPENED, OTHER), [1.0]);
    assert_eq!(samples.total(OPENED), 5.0);
}

#[test]
fn a_series_leaves_once_nobody_holds_it_and_nothing_changed_for_ten_minutes() {
    let mut fixture = Fixture::new(10);
    let ends = fixture.ends("client", "server");
    let handle = fixture.families.service(&ends, Reporter::Source, Flag::None, 0);
    handle.opened(0);
    handle.moved(&moved(3, 4), 0);
    // Held, it stays however long nothing changes.
    fixture.families.maintain(5000 * SECOND);
    assert_eq!(fixture.samples().find(OPENED, &[]), [1.0]);
    // Let go, it stays for ten minutes,
    handle.closed(5000 * SECOND);
    handle.leave(5000 * SECOND);
    fixture.families.maintain(5599 * SECOND);
    assert_eq!(fixture.samples().find(OPENED, &[]), [1.0]);
    // longer if somebody counts meanwhile,
    fixture.families.service(&ends, Reporter::Source, Flag::None, 5599 * SECOND).closed(5599 * SECOND);
    fixture.families.maintain(6100 * SECOND);
    assert_eq!(fixture.samples().find(OPENED, &[]), [1.0]);
    // and then goes, and what it held is told.
    fixture.families.maintain(6200 * SECOND);
    let samples = fixture.samples();
    assert!(samples.find(OPENED, &[]).is_empty());
    assert_eq!(samples.find("meshd_telemetry_series", &["service"]), [0.0]);
    for (metric, value) in [
        (OPENED, 1.0),
        ("kmesh_tcp_connections_closed_total", 2.0),
        ("kmesh_tcp_sent_bytes_total", 3.0),
        ("kmesh_tcp_received_bytes_total", 4.0),
    ] {
        assert_eq!(samples.find("meshd_telemetry_retired_total", &[metric]), [value], "{metric}");
    }
}

#[test]
fn fragments_go_with_the_last_series_that_has_them() {
    let mut fixture = Fixture::new(10_000);
    let empty = fixture.families.labels.fragments();
    for n in 0..2000 {
        let ends = fixture.ends(&format!("client-{n}"), "server");
        fixture.families.service(&ends, Reporter::Source, Flag::None, SECOND).opened(SECOND);
    }
    assert_eq!(fixture.families.labels.fragments(), empty + 2002);
    for minute in 1..=14 {
        fixture.families.maintain(minute * 61 * SECOND);
    }
    assert_eq!(fixture.families.labels.fragments(), empty);
}

fn long(fixture: &mut Fixture, ends: &super::Ends, at: u64) -> ConnectionHandle {
    let labels = ConnectionLabels {
        start_time: "2024-09-14 08:19:26.549976030 +0000 UTC",
        source_address: "[::ffff:10.244.0.17]:51842".parse().expect("an address"),
        destination_address: "[fd00::5]:8080".parse().expect("an address"),
    };
    fixture.families.connection(ends, Reporter::Destination, labels, at)
}

#[test]
fn a_closed_connection_stays_for_a_minute_with_its_final_values() {
    let mut fixture = Fixture::new(10);
    let ends = fixture.ends("client", "server");
    let handle = long(&mut fixture, &ends, 0);
    handle.moved(&Traffic { sent: 5, received: 292, retransmits: 2, lost: 3 }, 0);
    // Idle, it stays.
    fixture.families.maintain(3600 * SECOND);
    let own = [
        "{reporter=\"destination\",start_time=\"2024-09-14 08:19:26.549976030 +0000 UTC\",source_workload=\"client\"",
        ",source_cluster=\"cluster1\",source_address=\"10.244.0.17:51842\",destination_address=\"[fd00::5]:8080\",\
         destination_pod_address=\"10.244.0.13\"",
        ",destination_pod_name=\"server-x2x\",destination_service=\"-\"",
        ",destination_service_name=\"-\",destination_workload=\"server\"",
    ];
    let values = |fixture: &mut Fixture| {
        let samples = fixture.samples();
        ["sent_bytes", "received_bytes", "packet_lost", "retrans"]
            .map(|name| samples.find(&format!("kmesh_tcp_connection_{name}_total"), &own))
    };
    let last = [vec![6.0], vec![292.0], vec![3.0], vec![2.0]];
    handle.moved(&moved(1, 0), 3600 * SECOND);
    handle.leave(3600 * SECOND);
    for second in 3600..=3659 {
        fixture.families.maintain(second * SECOND);
        assert_eq!(values(&mut fixture), last, "{second}");
    }
    fixture.families.maintain(3662 * SECOND);
    assert_eq!(values(&mut fixture), [const { Vec::<f64>::new() }; 4]);
    assert_eq!(fixture.samples().total("kmesh_tcp_connection_received_bytes_total"), 292.0);
}

#[test]
fn what_expires_is_found_within_a_thirtieth_of_its_time() {
    let mut fixture = Fixture::new(100_000);
    for n in 0..3000 {
        let ends = fixture.ends(&format!("client-{n}"), "server");
        fixture.families.service(&ends, Reporter::Source, Flag::None, 0).opened(0);
    }
    // Ten times a second, as in life.
    for tenth in 5900..=6202 {
        fixture.families.maintain(tenth * SECOND / 10);
        let left = fixture.samples().find(OPENED, &[]).len();
        assert!(tenth >= 6000 || left == 3000, "{tenth}: {left}");
        assert!(tenth < 6202 || left == 0, "{left}");
    }
}

#[test]
fn scrapes_see_whole_families_while_series_come_and_go() {
    let mut fixture = Fixture::new(500);
    let ends: Vec<_> = (0..1000).map(|n| fixture.ends(&format!("client-{n}"), "server")).collect();
    let stop = AtomicBool::new(false);
    let Fixture { families, exposition, .. } = &mut fixture;
    let mut added = 0;
    thread::scope(|scope| {
        let scrapers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let (mut scrapes, mut last) = (0, 0.0);
                    while !stop.load(Relaxed) {
                        let total = Samples::of(&encode(exposition, Format::Text)).total(OPENED);
                        assert!(total >= last, "{total} after {last}");
                        (scrapes, last) = (scrapes + 1, total);
                    }
                    scrapes
                })
            })
            .collect();
        for round in 0..400 {
            let now = round * 200 * SECOND;
            for n in 0..300 {
                let at = (round as usize * 131 + n * 7) % ends.len();
                families.service(&ends[at], Reporter::Source, Flag::None, now).opened(now);
                added += 1;
            }
            families.maintain(now);
        }
        stop.store(true, Relaxed);
        let scrapes: u32 = scrapers.into_iter().map(|s| s.join().expect("no scrape was torn")).sum();
        assert!(scrapes > 0);
    });
    assert_eq!(fixture.samples().total(OPENED), f64::from(added));
    assert!(fixture.samples().find("meshd_telemetry_retired_total", &[OPENED])[0] > 0.0);
    assert!(fixture.samples().find("meshd_telemetry_overflow_total", &["service"])[0] > 0.0);
}

/// What can happen to the families.
#[derive(Clone, Debug)]
enum Event {
    Open(usize),
    Move(usize, u64, u64),
    Close(usize),
    Reset(usize),
    Fail(usize),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..12usize).prop_map(Event::Open),
        3 => (0..20usize, 0..1000u64, 0..1000u64).prop_map(|(n, sent, received)| Event::Move(n, sent, received)),
        2 => (0..20usize).prop_map(Event::Close),
        1 => (0..20usize).prop_map(Event::Reset),
        1 => (0..12usize).prop_map(Event::Fail),
        2 => (0..700u64).prop_map(Event::Wait),
    ]
}

/// A connection of the property test: its pair and what it holds.
type Open = (usize, ServiceHandle, WorkloadHandle, ConnectionHandle);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn exposed_and_retired_add_up_to_what_was_counted(events in prop::collection::vec(event(), 1..120)) {
        let mut fixture = Fixture::new(5);
        let ends: Vec<_> = (0..12).map(|n| fixture.ends(&format!("client-{n}"), "server")).collect();
        let (mut now, mut connections) = (0, Vec::<Open>::new());
        let (mut opened, mut closed, mut failed, mut sent, mut received) = (0, 0, 0, 0, 0);
        for event in events {
            let families = &mut fixture.families;
            match event {
                Event::Open(n) => {
                    let service = families.service(&ends[n], Reporter::Source, Flag::None, now);
                    let workload = families.workload(&ends[n], Reporter::Source, Flag::None, now);
                    service.opened(now);
                    workload.opened(now);
                    opened += 1;
                    let connection = long(&mut fixture, &ends[n], now);
                    connections.push((n, service, workload, connection));
                }
                Event::Move(n, out, taken) if n < connections.len() => {
                    let (_, service, workload, connection) = &connections[n];
                    service.moved(&moved(out, taken), now);
                    workload.moved(&moved(out, taken), now);
                    connection.moved(&moved(out, taken), now);
                    (sent, received) = (sent + out, received + taken);
                }
                Event::Close(n) if n < connections.len() => {
                    let (_, service, workload, connection) = connections.remove(n);
                    service.closed(now);
                    workload.closed(now);
                    connection.leave(now);
                    closed += 1;
                }
                Event::Reset(n) if n < connections.len() => {
                    let (n, ..) = connections.remove(n);
                    families.service(&ends[n], Reporter::Source, Flag::Reset, now).closed(now);
                    families.workload(&ends[n], Reporter::Source, Flag::Reset, now).closed(now);
                    closed += 1;
                }
                Event::Fail(n) => {
                    families.service(&ends[n], Reporter::Source, Flag::Connect, now).failed(now);
                    families.workload(&ends[n], Reporter::Source, Flag::Connect, now).failed(now);
                    failed += 1;
                }
                Event::Wait(seconds) => {
                    now += seconds * SECOND;
                    families.maintain(now);
                }
                Event::Move(..) | Event::Close(_) | Event::Reset(_) => {}
            }
        }
        let samples = fixture.samples();
        for kind in ["", "workload_"] {
            for (metric, truth) in [
                ("connections_opened", opened),
                ("connections_closed", closed),
                ("connections_failed", failed),
                ("sent_bytes", sent),
                ("received_bytes", received),
            ] {
                let metric = format!("kmesh_tcp_{kind}{metric}_total");
                prop_assert_eq!(samples.total(&metric), truth as f64, "{}", metric);
            }
        }
        prop_assert_eq!(samples.total("kmesh_tcp_connection_sent_bytes_total"), sent as f64);
        prop_assert_eq!(samples.total("kmesh_tcp_connection_received_bytes_total"), received as f64);
        prop_assert!(samples.find(OPENED, &[]).len() <= 5 + 1);
    }
}
