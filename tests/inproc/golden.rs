//! A recorded day of a small mesh, compared as a whole with files of this folder. `BLESS=1` writes the files anew.

use std::{fs, path::PathBuf};

use telemetry::{Config, LogFormat};

use crate::{
    connection::{Connection, MS, Raw, SECOND},
    pipeline::Pipeline,
};

/// What the kernel would have sent: every way a connection can begin and end, and everything that is left out.
fn recorded() -> Vec<Raw> {
    let mut records = Vec::new();
    let client = "10.244.0.17:40000";
    // A service is dialled: both ends of one connection.
    let dialled = Connection::outbound(1, SECOND, client, "10.244.0.13:8080").dialled("10.96.0.10:80");
    let accepted = Connection::inbound(2, SECOND + MS, "10.244.0.13:8080", client);
    records.extend([dialled.established(), accepted.established()]);
    records.push(accepted.moved(2000, 100).closed(SECOND + 5 * MS + 71_003));
    records.push(dialled.moved(100, 2000).troubled(2, 1).closed(SECOND + 6 * MS));
    // The other endpoint, and an end by reset, with the names of the family's series kept apart.
    let reset = Connection::outbound(3, 2 * SECOND, client, "10.244.0.14:8080").dialled("10.96.0.10:80");
    records.extend([reset.established(), reset.moved(10, 20).reset(2 * SECOND + 400 * MS)]);
    // A pod is dialled by address: IPv6, and an IPv4-mapped one.
    let direct = Connection::outbound(4, 3 * SECOND, "[fd00::13]:41000", "[fd00::20]:5432");
    records.extend([direct.established(), direct.moved(7, 8).closed(3 * SECOND + MS)]);
    let mapped = Connection::inbound(5, 3 * SECOND, "[::ffff:10.244.0.20]:9999", "[::ffff:10.244.0.13]:41001");
    records.extend([mapped.established(), mapped.moved(9, 11).closed(3 * SECOND + 2 * MS)]);
    // Addresses outside the mesh, on either side; several are one series.
    for (cookie, outside) in [(6, "192.0.2.1:443"), (7, "198.51.100.7:443")] {
        let out = Connection::outbound(cookie, 4 * SECOND, client, outside);
        records.extend([out.established(), out.moved(1, 2).closed(4 * SECOND + 3 * MS)]);
    }
    let from_outside = Connection::inbound(8, 4 * SECOND, "10.244.0.13:8080", "192.0.2.9:50000");
    records.extend([from_outside.established(), from_outside.moved(3, 4).closed(4 * SECOND + 4 * MS)]);
    // Connects that fail, each for a reason of its own.
    for (cookie, error) in [(20, 111), (21, 110), (22, 113), (23, 101), (24, 0), (25, 13)] {
        let attempt = Connection::outbound(cookie, 5 * SECOND, client, "10.244.0.14:81");
        records.push(attempt.failed(5 * SECOND + cookie * MS, error));
    }
    let unsteered = Connection::outbound(26, 5 * SECOND, client, "10.96.0.10:80");
    records.push(unsteered.refused_by_steering(5 * SECOND + 26 * MS));
    // What is not reported: a pod's own loopback and the node's probe.
    let own = Connection::outbound(30, 6 * SECOND, "127.0.0.1:50000", "127.0.0.1:8080");
    let probe = Connection::inbound(31, 6 * SECOND, "10.244.0.13:8080", "10.244.0.1:50001");
    records.extend([
        own.established(),
        probe.established(),
        own.closed(6 * SECOND + MS),
        probe.closed(6 * SECOND + MS),
    ]);
    // Names that would break a line or forge a sample.
    let evil = Connection::inbound(32, 6 * SECOND, "10.244.0.13:8080", "10.244.0.66:1234");
    records.extend([evil.established(), evil.moved(5, 6).closed(6 * SECOND + 9 * MS)]);
    // A long connection, still open, and one that a lost record leaves to its close.
    let long = Connection::outbound(40, 2 * SECOND, "10.244.0.17:42000", "10.244.0.13:8080").dialled("10.96.0.10:80");
    records.extend([
        long.established(),
        long.moved(500, 600).progress(4 * SECOND),
        long.moved(900, 1000).progress(8 * SECOND),
    ]);
    records.push(long.moved(950, 1050).troubled(1, 0).progress(13 * SECOND));
    let unannounced = Connection::inbound(41, 9 * SECOND, "10.244.0.13:8080", "10.244.0.17:42001");
    records.push(unannounced.moved(12, 13).closed(10 * SECOND));
    // No records at all.
    records.extend([Raw::new(), vec![0xff; 168], vec![1; 167]]);
    records
}

fn fed(format: LogFormat) -> Pipeline {
    let mut pipeline = Pipeline::all_on(Config { log_format: format, ..Config::default() });
    pipeline.feed(&recorded());
    pipeline.recorder.maintain(13 * SECOND);
    pipeline
}

#[track_caller]
fn compare(name: &str, actual: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("inproc/golden").join(name);
    if std::env::var_os("BLESS").is_some_and(|v| v == "1") {
        fs::write(&path, actual).expect("the file can be written");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let differs = expected.lines().zip(actual.lines()).position(|(e, a)| e != a);
    let line = differs.unwrap_or_else(|| expected.lines().count().min(actual.lines().count()));
    assert!(
        expected == actual,
        "{name} differs from line {} on (BLESS=1 writes it anew)\nexpected: {}\nactual:   {}",
        line + 1,
        expected.lines().nth(line).unwrap_or("the end"),
        actual.lines().nth(line).unwrap_or("the end"),
    );
}

/// Takes out what no two runs have in common: how long things took.
fn without_durations(scrape: &str) -> String {
    let measured =
        |l: &str| l.starts_with("meshd_telemetry_lag_seconds") || l.starts_with("meshd_telemetry_scrape_duration");
    let kept = scrape.lines().map(|l| match l.rsplit_once(' ') {
        Some((series, _)) if measured(l) => format!("{series} _\n"),
        _ => format!("{l}\n"),
    });
    kept.collect()
}

#[test]
fn a_whole_scrape_is_as_documented() {
    let mut pipeline = fed(LogFormat::Text);
    pipeline.log();
    compare("scrape.txt", &without_durations(&pipeline.scrape()));
}

#[test]
fn text_lines_are_as_documented() {
    compare("lines.txt", &fed(LogFormat::Text).log());
}

#[test]
fn json_lines_are_as_documented_and_parse() {
    let log = fed(LogFormat::Json).log();
    for line in log.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(value["sent_bytes"].is_u64() && value["duration"].is_number() && value["time"].is_string(), "{line}");
    }
    compare("lines.json", &log);
}

#[test]
fn a_scrape_changes_nothing() {
    let pipeline = fed(LogFormat::Text);
    assert_eq!(without_durations(&pipeline.scrape()), without_durations(&pipeline.scrape()));
}

#[test]
fn records_given_twice_and_backwards_change_no_total() {
    let mut once = fed(LogFormat::Text);
    let mut twice = fed(LogFormat::Text);
    let valid: Vec<_> = recorded().into_iter().filter(|r| r.len() == 168 && r[0] != 0xff).collect();
    twice.feed(&valid);
    twice.feed(valid.iter().rev());
    let families =
        |scrape: String| scrape.lines().filter(|l| l.starts_with("kmesh_")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(families(once.scrape_at(13 * SECOND)), families(twice.scrape_at(13 * SECOND)));
}
