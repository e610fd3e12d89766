use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use abi::{Direction, Endpoint, Record, record::flags};
use cache::{Cache, Node, Service, Str, Workload};

use super::{
    AccessLog, CAPACITY,
    json::Json,
    line::{Event, Line},
    text::Text,
};
use crate::{
    attribute::attribute,
    config::{Config, LogFormat},
};

const LIMIT: Duration = Duration::from_secs(20);

fn end(address: &str) -> Endpoint {
    address.parse::<std::net::SocketAddr>().unwrap().into()
}

fn pod(name: &str, namespace: &str, address: &str) -> Workload {
    Workload {
        uid: arcstr::format!("cluster1//v1/Pod/{namespace}/{name}"),
        name: Str::from(name),
        namespace: Str::from(namespace),
        workload_name: Str::from("owner"),
        addresses: [address.parse().unwrap()].into(),
        services: [(Str::from("echo/productpage.echo.svc.cluster.local"), [(9080, 9080)].into())].into(),
        ..Workload::default()
    }
}

fn mesh(names: [&str; 3]) -> Cache {
    let [source, destination, service] = names;
    let cache = Cache::new(Node::default());
    let services = [Service {
        name: Str::from("productpage"),
        namespace: Str::from("echo"),
        hostname: Str::from(service),
        ports: [(9080, 9080)].into(),
        ..Service::default()
    }];
    let mut server = pod(destination, "echo", "10.244.0.13");
    server.services = [(services[0].key(), [(9080, 9080)].into())].into();
    cache.replace([pod(source, "istio-system", "10.244.0.17"), server], services);
    cache
}

fn record() -> Record {
    Record {
        direction: Direction::Inbound as u8,
        local: end("[::ffff:10.244.0.13]:9080"),
        remote: end("10.244.0.17:51842"),
        sent: 5,
        received: 292,
        srtt_us: 43,
        min_rtt_us: 36,
        rttvar_us: 21,
        cwnd: 10,
        mss: 1448,
        segments_in: 4,
        segments_out: 6,
        cookie: 77,
        netns: 12,
        ..Record::default()
    }
}

fn line(names: [&str; 3], event: Event, record: Record) -> Line {
    let direction = record.direction.try_into().unwrap();
    Line {
        event,
        names: attribute(&record, direction, &mesh(names).load(), ""),
        record,
        time_ns: 1_726_301_966_552_709_932,
        start_ns: 1_726_301_966_549_976_030,
        age_ns: 2_733_902,
        adopted: false,
    }
}

const PLAIN: [&str; 3] =
    ["prometheus-5fb7f6f8d8-h9cts", "productpage-v1-8499c849b9-bz9t9", "productpage.echo.svc.cluster.local"];

fn text(line: &Line) -> String {
    let mut out = Vec::new();
    Text::new().write(&mut out, line);
    String::from_utf8(out).unwrap()
}

fn json(line: &Line) -> serde_json::Value {
    let mut out = Vec::new();
    Json::new(Str::from("Kubernetes")).write(&mut out, line);
    assert!(out.is_ascii());
    assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn a_closed_connection_reads_as_documented() {
    let expected = "accesslog: 2024-09-14 08:19:26.552709932 +0000 UTC src.addr=10.244.0.17:51842, \
        src.workload=prometheus-5fb7f6f8d8-h9cts, src.namespace=istio-system, dst.addr=10.244.0.13:9080, \
        dst.service=productpage.echo.svc.cluster.local, dst.workload=productpage-v1-8499c849b9-bz9t9, \
        dst.namespace=echo, start_time=2024-09-14 08:19:26.549976030 +0000 UTC, direction=INBOUND, \
        state=BPF_TCP_CLOSE, sent_bytes=5, received_bytes=292, packet_loss=0, retransmissions=0, srtt=43us, \
        min_rtt=36us, duration=2.733902ms\n";
    assert_eq!(text(&line(PLAIN, Event::Closed, record())), expected);
    let open = text(&line(PLAIN, Event::Open, record()));
    assert_eq!(open, expected.replace("BPF_TCP_CLOSE", "BPF_TCP_ESTABLISHED"));
}

#[test]
fn a_failed_connect_ends_with_the_name_of_its_error() {
    let failed = |error| {
        let record = Record {
            direction: Direction::Outbound as u8,
            local: end("[fd00::5]:40000"),
            remote: end("[fd00::9]:8080"),
            error,
            ..Record::default()
        };
        text(&line(PLAIN, Event::Failed, record))
    };
    assert!(failed(111).ends_with(", duration=2.733902ms, error=ECONNREFUSED\n"));
    assert!(failed(0).ends_with(", error=-\n"));
    assert!(failed(9999).ends_with(", error=9999\n"));
    let expected = "src.addr=[fd00::5]:40000, src.workload=-, src.namespace=-, dst.addr=[fd00::9]:8080, dst.service=-, \
        dst.workload=-, dst.namespace=-, start_time=";
    assert!(failed(110).contains(expected));
}

#[test]
fn durations_are_plain_decimal_without_needless_digits() {
    let shown = |age_ns| {
        let text = text(&Line { age_ns, ..line(PLAIN, Event::Closed, record()) });
        text.trim_end().rsplit_once("duration=").unwrap().1.to_owned()
    };
    let cases = [
        (0, "0ms"),
        (1, "0.000001ms"),
        (1_000_000, "1ms"),
        (1_500_000, "1.5ms"),
        (10_000_020, "10.00002ms"),
        (u64::MAX, "18446744073709.551615ms"),
    ];
    for (ns, expected) in cases {
        assert_eq!(shown(ns), expected);
    }
}

const HOSTILE: [&str; 3] = ["a, dst.workload=evil\nb", "-", "h\u{202e}tsoh\" \\u{2c}\u{7f}\u{85}\u{2028}é😀"];

#[test]
fn no_name_breaks_a_text_line_or_forges_a_field() {
    let text = text(&line(HOSTILE, Event::Closed, record()));
    assert_eq!(text.matches('\n').count(), 1);
    assert!(text.is_ascii() && text.trim_end().bytes().all(|b| !b.is_ascii_control()));
    let fields: Vec<_> = text.split_once("UTC ").unwrap().1.trim_end().split(", ").collect();
    let keys: Vec<_> = fields.iter().map(|f| f.split_once('=').unwrap().0).collect();
    let expected = [
        "src.addr",
        "src.workload",
        "src.namespace",
        "dst.addr",
        "dst.service",
        "dst.workload",
        "dst.namespace",
        "start_time",
        "direction",
        "state",
        "sent_bytes",
        "received_bytes",
        "packet_loss",
        "retransmissions",
        "srtt",
        "min_rtt",
        "duration",
    ];
    assert_eq!(keys, expected);
    assert!(fields.iter().all(|f| f.matches('=').count() == 1));
    assert_eq!(fields[1], r"src.workload=a\u{2c}\u{20}dst.workload\u{3d}evil\u{a}b");
    assert_eq!(fields[5], r"dst.workload=\u{2d}");
    let service = r"dst.service=h\u{202e}tsoh\u{22}\u{20}\u{5c}u{2c}\u{7f}\u{85}\u{2028}\u{e9}\u{1f600}";
    assert_eq!(fields[4], service);
}

#[test]
fn a_name_of_any_length_makes_a_line_of_bounded_length() {
    let long = "é,".repeat(100_000);
    let names = [long.as_str(), long.as_str(), long.as_str()];
    assert!(text(&line(names, Event::Closed, record())).len() < 32 << 10);
    let json = json(&line(names, Event::Closed, record()));
    assert!(json["dst.service"].as_str().unwrap().len() < 2048);
}

#[test]
fn json_reads_back_with_types_and_more_fields() {
    let original = end("10.96.0.10:80");
    let record = Record { flags: flags::RESET, error: 104, original, ..record() };
    let value = json(&line(PLAIN, Event::Closed, record));
    let expected = serde_json::json!({
        "time": "2024-09-14T08:19:26.552709932Z",
        "src.addr": "10.244.0.17:51842",
        "src.workload": "prometheus-5fb7f6f8d8-h9cts",
        "src.namespace": "istio-system",
        "dst.addr": "10.244.0.13:9080",
        "dst.service": "productpage.echo.svc.cluster.local",
        "dst.workload": "productpage-v1-8499c849b9-bz9t9",
        "dst.namespace": "echo",
        "start_time": "2024-09-14T08:19:26.549976030Z",
        "direction": "INBOUND",
        "state": "BPF_TCP_CLOSE",
        "sent_bytes": 5,
        "received_bytes": 292,
        "packet_loss": 0,
        "retransmissions": 0,
        "srtt": 43,
        "min_rtt": 36,
        "duration": 2.733902,
        "error": "ECONNRESET",
        "src.principal": "spiffe://cluster.local/ns/istio-system/sa/default",
        "src.cluster": "Kubernetes",
        "src.uid": "cluster1//v1/Pod/istio-system/prometheus-5fb7f6f8d8-h9cts",
        "src.owner": "owner",
        "dst.principal": "spiffe://cluster.local/ns/echo/sa/default",
        "dst.cluster": "Kubernetes",
        "dst.uid": "cluster1//v1/Pod/echo/productpage-v1-8499c849b9-bz9t9",
        "dst.owner": "owner",
        "dst.original": "10.96.0.10:80",
        "waypoint": null,
        "reset": true,
        "adopted": false,
        "cookie": 77,
        "netns": 12,
        "rttvar": 21,
        "cwnd": 10,
        "mss": 1448,
        "segments_in": 4,
        "segments_out": 6,
    });
    assert_eq!(value, expected);
}

#[test]
fn hostile_names_read_back_from_json_as_they_are() {
    let value = json(&line(HOSTILE, Event::Closed, record()));
    let read: Vec<_> = ["src.workload", "dst.workload", "dst.service"].map(|k| value[k].as_str().unwrap()).into();
    assert_eq!(read, HOSTILE);
}

/// A sink that a test opens and shuts, and that can be made to fail or to take a few bytes only.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<Inner>, Condvar)>);

#[derive(Default)]
struct Inner {
    shut: bool,
    entered: bool,
    fail: Option<io::ErrorKind>,
    /// Bytes taken before the next failure.
    takes: Option<usize>,
    calls: usize,
    bytes: Vec<u8>,
}

impl Gate {
    fn change<R>(&self, change: impl FnOnce(&mut Inner) -> R) -> R {
        let done = change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
        done
    }

    fn wait_until(&self, done: impl Fn(&Inner) -> bool) {
        let waited = self.0.1.wait_timeout_while(self.0.0.lock().unwrap(), LIMIT, |i| !done(i)).unwrap();
        assert!(!waited.1.timed_out());
    }

    fn lines(&self) -> Vec<String> {
        self.change(|i| String::from_utf8(i.bytes.clone()).unwrap().lines().map(str::to_owned).collect())
    }
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.0.0.lock().unwrap();
        inner.entered = true;
        inner.calls += 1;
        self.0.1.notify_all();
        let mut inner = self.0.1.wait_while(inner, |i| i.shut).unwrap();
        if let Some(takes) = inner.takes.take() {
            inner.bytes.extend_from_slice(&bytes[..takes]);
            return Ok(takes);
        }
        if let Some(kind) = inner.fail {
            return Err(kind.into());
        }
        inner.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log(gate: &Gate, format: LogFormat) -> AccessLog {
    AccessLog::new(&Config { log_format: format, ..Config::default() }, gate.clone()).unwrap()
}

#[test]
fn lines_are_written_in_order_and_counted() {
    let gate = Gate::default();
    let mut log = log(&gate, LogFormat::Text);
    for n in 0..1000 {
        log.push(line(PLAIN, Event::Closed, Record { sent: n, ..record() }));
    }
    assert!(log.flush(LIMIT));
    assert_eq!((log.written(), log.dropped()), (1000, 0));
    let lines = gate.lines();
    assert!(lines.len() == 1000 && lines.iter().enumerate().all(|(n, l)| l.contains(&format!("sent_bytes={n},"))));
}

#[test]
fn a_slow_sink_does_not_block_and_costs_lines_that_are_counted() {
    let gate = Gate::default();
    gate.change(|i| i.shut = true);
    let mut log = log(&gate, LogFormat::Text);
    let one = line(PLAIN, Event::Closed, record());
    log.push(one.clone());
    log.hand_over();
    gate.wait_until(|i| i.entered);
    let pushed = CAPACITY as u64 + 5000;
    for _ in 0..pushed {
        log.push(one.clone());
    }
    assert!(!log.flush(Duration::from_millis(1)));
    assert!(log.dropped() >= 5000 - 256 && log.written() == 0);
    gate.change(|i| i.shut = false);
    assert!(log.flush(LIMIT));
    assert_eq!(log.written() + log.dropped(), pushed + 1);
    assert_eq!(gate.lines().len() as u64, log.written());
}

#[test]
fn a_sink_that_fails_is_tried_with_each_batch_and_not_more() {
    let gate = Gate::default();
    gate.change(|i| i.fail = Some(io::ErrorKind::BrokenPipe));
    let mut log = log(&gate, LogFormat::Json);
    for batches in 1..4 {
        log.push(line(PLAIN, Event::Closed, record()));
        assert!(log.flush(LIMIT));
        assert_eq!((log.written(), log.dropped()), (0, batches));
        assert_eq!(gate.change(|i| i.calls as u64), batches);
    }
    gate.change(|i| i.fail = None);
    log.push(line(PLAIN, Event::Closed, record()));
    assert!(log.flush(LIMIT));
    assert_eq!((log.written(), log.dropped(), gate.lines().len()), (1, 3, 1));
}

#[test]
fn a_line_that_was_torn_does_not_spoil_the_next() {
    let gate = Gate::default();
    gate.change(|i| (i.takes, i.fail) = (Some(20), Some(io::ErrorKind::StorageFull)));
    let mut log = log(&gate, LogFormat::Text);
    log.push(line(PLAIN, Event::Closed, record()));
    assert!(log.flush(LIMIT));
    gate.change(|i| i.fail = None);
    log.push(line(PLAIN, Event::Open, record()));
    assert!(log.flush(LIMIT));
    assert_eq!((log.written(), log.dropped()), (1, 1));
    let lines = gate.lines();
    assert_eq!((lines.len(), lines[0].len()), (2, 20));
    assert!(lines[1].starts_with("accesslog: 2024") && lines[1].ends_with("duration=2.733902ms"));
}

#[test]
fn a_log_that_is_dropped_writes_what_it_has() {
    let gate = Gate::default();
    let mut log = log(&gate, LogFormat::Text);
    log.push(line(PLAIN, Event::Closed, record()));
    drop(log);
    gate.wait_until(|i| !i.bytes.is_empty());
    assert_eq!(gate.lines().len(), 1);
}

#[test]
fn a_sink_that_is_not_ready_is_waited_for() {
    let gate = Gate::default();
    gate.change(|i| i.fail = Some(io::ErrorKind::WouldBlock));
    let mut log = log(&gate, LogFormat::Text);
    log.push(line(PLAIN, Event::Closed, record()));
    log.hand_over();
    gate.wait_until(|i| i.calls > 2);
    gate.change(|i| i.fail = None);
    assert!(log.flush(LIMIT));
    assert_eq!((log.written(), log.dropped(), gate.lines().len()), (1, 0, 1));
}
