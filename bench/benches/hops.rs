//! One hop of the record path each. With `-- --test` each runs once.

use std::{net::IpAddr, sync::Arc};

use abi::{Direction, Kind, Record};
use bench::{mesh, records::Connection};
use divan::{Bencher, black_box};
use telemetry::{
    Families, Flag, Reporter, Traffic, attribute::attribute, connections::Connections, increment::advance, store::Store,
};
use zerocopy::{FromBytes as _, IntoBytes as _};

const WORKLOADS: usize = 1000;

fn main() {
    divan::main();
}

fn connection(number: u64, direction: Direction) -> Connection {
    let (source, destination) = ((number % 100) as usize, (number * 7919 % WORKLOADS as u64) as usize);
    Connection { source, destination, number, direction, start_ns: 1_000_000 }
}

#[divan::bench(sample_size = 1000)]
fn decode(bencher: Bencher<'_, '_>) {
    let record = connection(1, Direction::Outbound).record(Kind::Closed, 1000);
    bencher.bench_local(|| {
        let record = Record::read_from_bytes(black_box(record.as_bytes())).expect("the bytes of a record");
        (Kind::try_from(record.kind), Direction::try_from(record.direction), record)
    });
}

#[divan::bench(sample_size = 1000)]
fn increment(bencher: Bencher<'_, '_>) {
    let record = connection(1, Direction::Outbound).record(Kind::Closed, 1000);
    bencher.with_inputs(Record::default).bench_local_refs(|known| advance(known, black_box(&record)));
}

/// A connection opened and closed among as many live ones.
#[divan::bench(args = [0, 10_000, 100_000], sample_size = 1000)]
fn cookie_table(bencher: Bencher<'_, '_>, live: u64) {
    let (mut table, mut store) = (Connections::new(1 << 20), Store::in_heap());
    for number in 0..live {
        let record = connection(number, Direction::Outbound).record(Kind::Established, 0);
        table.observe(&mut store, Kind::Established, &record, |_, begun_ns| ((), begun_ns));
    }
    let mut number = live;
    let mut observed = connection(0, Direction::Outbound).record(Kind::Established, 0);
    bencher.bench_local(|| {
        number += 1;
        observed.cookie = number * 2 + 1;
        for kind in [Kind::Established, Kind::Closed] {
            black_box(table.observe(&mut store, kind, &observed, |_, begun_ns| ((), begun_ns)));
        }
    });
}

#[divan::bench(args = [1000, 100_000], sample_size = 1000)]
fn attribution(bencher: Bencher<'_, '_>, workloads: u64) {
    let cache = mesh::cache(workloads as usize);
    let mut number = 0;
    bencher
        .with_inputs(|| {
            number += 1;
            let destination = (number * 7919 % workloads) as usize;
            let direction = if number.is_multiple_of(2) { Direction::Outbound } else { Direction::Inbound };
            let connection = Connection { destination, ..connection(number, direction) };
            (connection.record(Kind::Established, 0), direction)
        })
        .bench_local_values(|(record, direction)| attribute(&record, direction, &cache.load(), ""));
}

/// From names to a series of each family and its counters, as for a connection's first record.
#[divan::bench(sample_size = 1000)]
fn families_first(bencher: Bencher<'_, '_>) {
    let cache = mesh::cache(WORKLOADS);
    let snapshot = cache.load();
    let mut families = Families::new(100_000, "Kubernetes".into());
    let mut number = 0;
    bencher
        .with_inputs(|| {
            number += 1;
            let record = connection(number, Direction::Outbound).record(Kind::Closed, 1000);
            attribute(&record, Direction::Outbound, &snapshot, "")
        })
        .bench_local_refs(|names| {
            let address = IpAddr::from(mesh::address(1));
            let (source, destination) = (names.source.as_deref(), names.destination.as_deref());
            let ends = families.ends(source, destination, address, names.service.as_deref());
            let traffic = Traffic { sent: 64, received: 64, retransmits: 0, lost: 0 };
            let service = families.service(&ends, Reporter::Source, Flag::None, 1);
            service.opened(1);
            service.moved(&traffic, 1);
            let workload = families.workload(&ends, Reporter::Source, Flag::None, 1);
            workload.opened(1);
            workload.moved(&traffic, 1);
        });
}

/// Counters of a held series, as for every further record.
#[divan::bench(sample_size = 1000)]
fn families_held(bencher: Bencher<'_, '_>) {
    let cache = mesh::cache(WORKLOADS);
    let snapshot = cache.load();
    let mut families = Families::new(100_000, "Kubernetes".into());
    let find = |n| snapshot.workload_at("", mesh::address(n).into()).map(Arc::clone);
    let (source, destination) = (find(1), find(2));
    let ends = families.ends(source.as_deref(), destination.as_deref(), mesh::address(2).into(), None);
    let service = families.service(&ends, Reporter::Source, Flag::None, 1);
    let workload = families.workload(&ends, Reporter::Source, Flag::None, 1);
    bencher.bench_local(|| {
        let traffic = black_box(Traffic { sent: 64, received: 64, retransmits: 1, lost: 1 });
        service.moved(&traffic, 2);
        workload.moved(&traffic, 2);
    });
}
