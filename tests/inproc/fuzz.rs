//! Whatever the kernel's side sends: it is counted or skipped, never worse.

use std::collections::BTreeMap;

use abi::{
    Record,
    maps::counter,
    sum::{Sum, SumKey},
};
use proptest::{array::uniform, collection::vec, prelude::*, sample::select};
use telemetry::{Config, Switch, Switches};
use tests::{LogLine, Scrape, fuzz::fuzz};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::{
    connection::{Raw, SECOND},
    pipeline::Pipeline,
};

/// What `other` is told apart by: reporters and response flags.
const OTHER: usize = 2 * 8;

#[derive(Clone, Debug)]
enum Step {
    Record(Raw),
    Pass(Vec<Raw>, bool),
    Counters([u64; counter::COUNT as usize]),
    Sum(Vec<u8>, Sum),
    Switch(Switch, bool),
    /// Time goes on, by so many ms.
    Maintain(u64),
}

/// Totals up to here can be added up without an end of numbers.
const PLAUSIBLE: u64 = 1 << 40;

/// A total: small, at an edge, or anything.
fn total() -> impl Strategy<Value = u64> {
    let edge = select(vec![u64::MAX, u64::MAX - 1, 1 << 63, u64::from(u32::MAX)]);
    prop_oneof![40 => 0..2000_u64, 1 => edge, 1 => any::<u64>()]
}

/// An address of the mesh, of nobody, or anything.
fn end() -> impl Strategy<Value = abi::Endpoint> {
    let known =
        ["10.244.0.17:40000", "10.244.0.13:8080", "10.96.0.10:80", "192.0.2.9:443", "127.0.0.1:1", "[fd00::5]:80"];
    let known = known.map(|text| abi::Endpoint::from(text.parse::<std::net::SocketAddr>().expect("an address")));
    let any = vec(any::<u8>(), size_of::<abi::Endpoint>());
    prop_oneof![6 => select(known.to_vec()), 1 => any.prop_map(|raw| abi::Endpoint::read_from_bytes(&raw).expect("its size"))]
}

/// A record of few connections, some of whose fields make no sense.
fn likely() -> impl Strategy<Value = Raw> {
    let who = (
        0..5_u64,
        0..3_u64,
        prop_oneof![8 => 1..=4_u32, 1 => any::<u32>()],
        prop_oneof![8 => 1..=2_u8, 1 => any::<u8>()],
    );
    let how = (
        prop_oneof![8 => 1..=12_u8, 1 => any::<u8>()],
        prop_oneof![6 => Just(0), 1 => any::<u32>()],
        total(),
        select(vec![0, 104, 110, 111, 113, 9999]),
    );
    (who, how, uniform::<_, 6>(total()), uniform::<_, 3>(end())).prop_map(
        |((cookie, start, kind, direction), (state, flags, now_ns, error), totals, [local, remote, original])| {
            let [sent, received, retransmits, lost, segments_in, segments_out] = totals;
            let record = Record {
                kind,
                flags,
                cookie,
                netns: 7,
                start_ns: start * SECOND,
                now_ns,
                sent,
                received,
                retransmits,
                lost,
                segments_in,
                segments_out,
                error,
                local,
                remote,
                original,
                state,
                direction,
                ..Record::default()
            };
            record.as_bytes().to_vec()
        },
    )
}

fn record() -> impl Strategy<Value = Raw> {
    prop_oneof![8 => likely(), 1 => vec(any::<u8>(), size_of::<Record>()), 1 => vec(any::<u8>(), 0..400)]
}

fn step() -> impl Strategy<Value = Step> {
    let counters = uniform::<_, { counter::COUNT as usize }>(total());
    let sum = (vec(any::<u8>(), size_of::<SumKey>()), uniform::<_, 5>(total()));
    prop_oneof![
        12 => record().prop_map(Step::Record),
        2 => (vec(record(), 0..6), any::<bool>()).prop_map(|(records, whole)| Step::Pass(records, whole)),
        1 => counters.prop_map(Step::Counters),
        1 => sum.prop_map(|(key, [sent, received, retransmits, lost, connections])| {
            Step::Sum(key, Sum { sent, received, retransmits, lost, connections })
        }),
        1 => (select(Switches::ALL.to_vec()), any::<bool>()).prop_map(|(switch, on)| Step::Switch(switch, on)),
        2 => (0..10_000_u64).prop_map(Step::Maintain),
    ]
}

/// Says whether these bytes are a record.
fn is_record(raw: &Raw) -> bool {
    let Ok(record) = Record::read_from_bytes(raw) else { return false };
    (1..=4).contains(&record.kind) && (1..=2).contains(&record.direction) && (1..=12).contains(&record.state)
}

/// Tells whether what a record says can be true.
fn is_plausible(raw: &Raw) -> bool {
    let Ok(record) = Record::read_from_bytes(raw) else { return true };
    [record.sent, record.received, record.retransmits, record.lost].iter().all(|total| *total < PLAUSIBLE)
}

/// Counters of a scrape: each series, and by metric what its series show and what those held that retired.
struct Counted<'a> {
    series: BTreeMap<(&'a str, &'a BTreeMap<String, String>), f64>,
    metrics: BTreeMap<&'a str, f64>,
}

impl<'a> Counted<'a> {
    fn of(scrape: &'a Scrape) -> Self {
        let (mut series, mut metrics) = (BTreeMap::new(), BTreeMap::new());
        for sample in scrape.samples().iter().filter(|sample| sample.name.ends_with("_total")) {
            series.insert((sample.name.as_str(), &sample.labels), sample.value);
            let retired = sample.labels.get("family").filter(|_| sample.name == "meshd_telemetry_retired_total");
            *metrics.entry(retired.map_or(sample.name.as_str(), String::as_str)).or_insert(0.0) += sample.value;
        }
        Self { series, metrics }
    }
}

/// No counter falls, and what was counted is still there, if what was told can be true.
fn goes_on(before: &Scrape, now: &Scrape, plausible: bool) -> Result<(), TestCaseError> {
    let (before, now) = (Counted::of(before), Counted::of(now));
    for (series, old) in before.series {
        let found = now.series.get(&series);
        prop_assert!(found.is_none_or(|found| *found >= old), "{series:?} fell from {old} to {found:?}");
    }
    for (name, old) in before.metrics.into_iter().filter(|_| plausible) {
        let found = now.metrics.get(name);
        prop_assert!(found.is_some_and(|found| *found >= old), "{name} fell from {old} to {found:?}");
    }
    Ok(())
}

#[test]
fn fuzz_records() {
    fuzz("records", &vec(step(), 1..60), |steps| {
        let mut pipeline = Pipeline::all_on(Config { max_connections: 4, max_series: 8, ..Config::default() });
        let (mut now_ns, mut malformed, mut plausible) = (SECOND, 0_u64, true);
        let mut before = Scrape::default();
        for step in steps {
            let on = pipeline.switches.get(Switch::Monitoring);
            let mut feed = |pipeline: &mut Pipeline, raw: &Raw| {
                malformed += u64::from(on && !is_record(raw));
                plausible &= is_plausible(raw);
                pipeline.recorder.record(raw);
            };
            match step {
                Step::Record(raw) => feed(&mut pipeline, &raw),
                Step::Pass(records, whole) => {
                    pipeline.recorder.begin_pass(now_ns);
                    records.iter().for_each(|raw| feed(&mut pipeline, raw));
                    for cookie in 0..4 {
                        _ = pipeline.recorder.quiet(cookie);
                    }
                    if pipeline.recorder.end_pass(whole) {
                        pipeline.recorder.remove_missed();
                    }
                }
                Step::Counters(totals) => pipeline.recorder.kernel_counters(&totals),
                Step::Sum(key, sum) => {
                    let key = SumKey::read_from_bytes(&key).expect("its size");
                    plausible &= [sum.sent, sum.received, sum.retransmits, sum.lost, sum.connections]
                        .iter()
                        .all(|n| *n < PLAUSIBLE);
                    pipeline.recorder.sum(&key, &sum);
                }
                Step::Switch(switch, on) => drop(pipeline.switches.set(switch, on)),
                Step::Maintain(ms) => {
                    now_ns += ms * 1_000_000;
                    let text = pipeline.scrape_at(now_ns);
                    let now = Scrape::parse(&text).map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
                    goes_on(&before, &now, plausible)?;
                    prop_assert!(now.total("meshd_telemetry_connections", &[]) <= 4.0);
                    let series = now.select("kmesh_tcp_sent_bytes_total", &[]).count();
                    prop_assert!(series <= 8 + OTHER, "{series} series");
                    before = now;
                }
            }
        }
        let scrape = Scrape::parse(&pipeline.scrape_at(now_ns)).expect("as before");
        let counted = scrape.total("meshd_telemetry_malformed_total", &[]);
        prop_assert!(counted >= malformed as f64, "{counted} malformed, not {malformed}");
        for line in pipeline.log().lines() {
            prop_assert!(LogLine::parse(line).is_ok(), "{line}");
        }
        Ok(())
    });
}
