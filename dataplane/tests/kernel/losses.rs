//! A ring that is full.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use abi::{
    Kind, Record,
    maps::{SUM_ENTRIES, counter},
    record::flags,
    sum::{Sum, SumKey},
};
use dataplane::kernel::Options;
use zerocopy::FromBytes as _;

use crate::{
    sandbox::{DEADLINE, inside, new_namespace},
    world::{World, is_end, options, own_cookie},
};

/// Makes connections, each of which sends one byte more than the one before, and closes them.
fn connections(count: usize) -> u64 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("free");
    let to = listener.local_addr().expect("bound");
    let mut total = 0;
    for amount in 1..=count {
        let mut client = TcpStream::connect(to).expect("listening");
        let (mut server, _) = listener.accept().expect("answered");
        client.write_all(&vec![1; amount]).expect("open");
        server.read_exact(&mut vec![0; amount]).expect("sent");
        drop(client);
        assert_eq!(server.read(&mut [0]).expect("orderly"), 0);
        total += amount as u64;
    }
    total
}

fn world(cgroup: &std::path::Path, aside: u32) -> World {
    let mut options = options(cgroup);
    (options.ring_slots, options.max_connections) = (Some(16), aside);
    World::with(&options)
}

#[test]
fn a_full_ring_loses_no_close() {
    inside("losses::a_full_ring_loses_no_close", |cgroup| {
        let mut world = world(cgroup, 8192);
        let total = connections(200);
        world.drain();
        // The last close of all may still be on its way.
        let (begin, mut put_aside) = (Instant::now(), 0);
        while world.seen.iter().filter(|r| is_end(r)).count() < 400 {
            assert!(begin.elapsed() < DEADLINE, "{:?} counted", world.counted());
            let seen = &mut world.seen;
            put_aside += world
                .source
                .drain_aside(&mut |bytes| seen.push(Record::read_from_bytes(bytes).expect("records have one size")))
                .expect("readable");
            world.drain();
        }
        let closed: Vec<_> = world.seen.iter().filter(|r| is_end(r)).collect();
        assert_eq!(closed.len(), 400);
        assert_eq!(closed.iter().map(|r| r.sent).sum::<u64>(), total);
        assert_eq!(closed.iter().map(|r| r.received).sum::<u64>(), total);
        assert_eq!(closed.iter().filter(|r| r.flags & flags::ASIDE != 0).count(), put_aside);
        assert!(put_aside > 300);
        assert_eq!(world.counter(counter::ASIDE), put_aside as u64);
        let opened = world.seen.iter().filter(|r| r.kind == Kind::Established as u32).count() as u64;
        assert_eq!(opened + world.counter(counter::LOST_ESTABLISHED), 400);
        assert_eq!(world.counted(), [400, 400, 0]);
        assert_eq!(world.source.drain_aside(&mut |_| panic!("it was removed")).expect("readable"), 0);
        assert_eq!(world.counter(counter::LOST_CONNECTIONS), 0);
    });
}

/// Ends of connections by how they came, and what they add up to: whole records, then sums.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ends {
    connections: u64,
    sent: u64,
    received: u64,
}

impl Ends {
    fn add(&mut self, connections: u64, sent: u64, received: u64) {
        self.connections += connections;
        self.sent += sent;
        self.received += received;
    }

    fn add_record(&mut self, bytes: &[u8]) {
        let record = Record::read_from_bytes(bytes).expect("records have one size");
        if record.kind == Kind::Closed as u32 {
            self.add(1, record.sent, record.received);
        }
    }

    /// Reads until there are so many: the kernel counts an end before it hands it over.
    fn read_all(&mut self, world: &mut World, count: u64) {
        let begin = Instant::now();
        while self.connections < count {
            let lost = world.counter(counter::LOST_CONNECTIONS);
            assert!(
                begin.elapsed() < DEADLINE && lost == 0,
                "{self:?} of {count}, {lost} lost, {:?} counted",
                world.counted()
            );
            self.read(world);
        }
    }

    /// Reads all there is: ring, what was put aside, sums.
    fn read(&mut self, world: &mut World) {
        world.source.drain_ring(&mut |bytes| self.add_record(bytes));
        world.source.drain_aside(&mut |bytes| self.add_record(bytes)).expect("readable");
        let mut take = |key: &SumKey, sum: &Sum| {
            assert!(!key.is_failed());
            self.add(sum.connections, sum.sent, sum.received);
        };
        world.source.drain_sums(&mut take).expect("readable");
    }
}

fn wait_for_closes(world: &World, count: u64) {
    let begin = Instant::now();
    while world.counted()[1] < count {
        assert!(begin.elapsed() < DEADLINE, "{:?} counted", world.counted());
        std::thread::yield_now();
    }
}

#[test]
fn what_fits_nowhere_by_itself_is_added_up() {
    inside("losses::what_fits_nowhere_by_itself_is_added_up", |cgroup| {
        let mut world = world(cgroup, 10);
        let total = connections(100);
        let mut ends = Ends::default();
        ends.read_all(&mut world, 200);
        assert_eq!(ends, Ends { connections: 200, sent: total, received: total });
        assert!(world.counter(counter::SUMMED) > 150);
        assert_eq!(
            [counter::LOST_CONNECTIONS, counter::LOST_SENT, counter::LOST_RECEIVED].map(|c| world.counter(c)),
            [0; 3]
        );
        assert_eq!([counter::CLOSED_SENT, counter::CLOSED_RECEIVED].map(|c| world.counter(c)), [total; 2]);
        // They are read once.
        ends.read(&mut world);
        assert_eq!(ends.connections, 200);
    });
}

#[test]
fn failures_that_fit_nowhere_are_added_up_by_their_reason() {
    inside("losses::failures_that_fit_nowhere_are_added_up_by_their_reason", |cgroup| {
        let mut world = world(cgroup, 10);
        let closed = TcpListener::bind("127.0.0.1:0").expect("free").local_addr().expect("bound");
        for _ in 0..100 {
            TcpStream::connect(closed).expect_err("nobody listens");
        }
        let mut whole = 0;
        world.source.drain_ring(&mut |_| whole += 1);
        whole += world.source.drain_aside(&mut |_| ()).expect("readable") as u64;
        let mut sums = Vec::new();
        world.source.drain_sums(&mut |key, sum| sums.push((*key, *sum))).expect("readable");
        let [(key, sum)] = *sums else { panic!("one sum, not {sums:#?}") };
        assert_eq!((key.is_failed(), key.error, key.remote.port()), (true, 111, closed.port()));
        assert_eq!((key.record(&sum, 5).kind, key.local.port()), (Kind::Failed as u32, 0));
        assert_eq!((sum.connections + whole, world.counter(counter::FAILED)), (100, 100));
    });
}

#[test]
fn sums_are_exact_while_they_are_read() {
    inside("losses::sums_are_exact_while_they_are_read", |cgroup| {
        // Room for the few whose begin the ring still took.
        let mut world = world(cgroup, 64);
        let mut ends = Ends::default();
        let (count, total) = {
            let stop = AtomicBool::new(false);
            let work = || {
                let mut total = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    total = (total.0 + 200, total.1 + connections(100));
                }
                total
            };
            std::thread::scope(|scope| {
                let threads = [scope.spawn(work), scope.spawn(work)];
                let (begin, mut epochs) = (Instant::now(), 0);
                while epochs < 6 && begin.elapsed() < DEADLINE {
                    let before = ends.connections;
                    // The ring is left full.
                    let mut take = |_: &SumKey, sum: &Sum| ends.add(sum.connections, sum.sent, sum.received);
                    world.source.drain_sums(&mut take).expect("readable");
                    epochs += u32::from(ends.connections > before);
                }
                stop.store(true, Ordering::Relaxed);
                let sums = threads.map(|thread| thread.join().expect("no panic"));
                assert_eq!(epochs, 6, "epochs end while connections do");
                (sums[0].0 + sums[1].0, sums[0].1 + sums[1].1)
            })
        };
        ends.read_all(&mut world, count);
        assert_eq!(ends, Ends { connections: count, sent: total, received: total });
        assert_eq!(world.counter(counter::LOST_CONNECTIONS), 0);
    });
}

#[test]
fn an_end_that_is_lost_is_lost_less_what_was_told_of_its_connection() {
    inside("losses::an_end_that_is_lost_is_lost_less_what_was_told_of_its_connection", |cgroup| {
        let mut world = world(cgroup, 10);
        world.source.drain_ring(&mut |_| ());
        let listener = TcpListener::bind("127.0.0.1:0").expect("free");
        let send = |mut from: &TcpStream, mut to: &TcpStream, bytes: usize| {
            from.write_all(&vec![1; bytes]).expect("open");
            to.read_exact(&mut vec![0; bytes]).expect("sent");
        };
        let known: Vec<_> = (0..30)
            .map(|_| {
                let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
                let (server, _) = listener.accept().expect("answered");
                send(&client, &server, 100);
                // An answer that carries the acknowledgement.
                send(&server, &client, 1);
                (client, server)
            })
            .collect();
        let told: u64 = world.pass().iter().map(|record| record.sent).sum();
        assert!(told >= 30 * 100, "{told}");
        // The ring is full of others before they end.
        let others = connections(50);
        wait_for_closes(&world, 100);
        for (client, server) in known {
            send(&client, &server, 23);
            drop(client);
            assert_eq!((&server).read(&mut [0]).expect("orderly"), 0);
        }
        wait_for_closes(&world, 160);
        let mut ends = Ends::default();
        let begin = Instant::now();
        while ends.connections + world.counter(counter::LOST_CONNECTIONS) < 160 {
            assert!(begin.elapsed() < DEADLINE);
            ends.read(&mut world);
        }
        let lost = world.counter(counter::LOST_CONNECTIONS);
        assert_eq!(ends.connections + lost, 160);
        assert!(lost >= 50 && world.counter(counter::LOST_FAILED) == 0, "{lost}");
        // All that was sent has been told before, was told at an end, or is known as lost. Told before and at the end is told once: of
        // those that ended known, whose number is 60 - lost, half sent 100 of it and half 1.
        let truth = others + 30 * (100 + 23 + 1);
        let missing = truth - ends.sent - world.counter(counter::LOST_SENT);
        let (most, least) =
            (lost.min(30) * 100 + lost.saturating_sub(30), lost.saturating_sub(30) * 100 + lost.min(30));
        assert!((least..=most).contains(&missing), "{missing} bytes of {lost} connections, {told} were told");
        assert_eq!(world.counter(counter::CLOSED_SENT), ends.sent);
    });
}

#[test]
fn a_ring_that_fills_up_wakes_its_reader() {
    inside("losses::a_ring_that_fills_up_wakes_its_reader", |cgroup| {
        const HALF: u64 = 128;
        let mut options = options(cgroup);
        options.ring_slots = Some(2 * HALF as u32);
        let mut world = World::with(&options);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    connections(10);
                }
            });
            for _ in 0..3 {
                let begin = Instant::now();
                while world.source.usage().expect("readable").ring.0 < HALF && begin.elapsed() < DEADLINE {
                    world.source.wait(DEADLINE).expect("waits");
                }
                let woken = begin.elapsed() < DEADLINE;
                stop.store(!woken, Ordering::Relaxed);
                assert!(woken, "no one woke it");
                world.seen.clear();
                assert!(world.drain().len() as u64 >= HALF);
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
}

/// Runs something in a managed namespace of its own.
fn in_another_pod<T: Send>(world: &World, work: impl FnOnce() -> T + Send) -> (u64, T) {
    let mut manager = world.kernel.manager();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            new_namespace();
            let cookie = own_cookie();
            manager.enrol(cookie).expect("there is room");
            (cookie, work())
        });
        thread.join().expect("no panic")
    })
}

#[test]
fn a_flood_from_one_pod_leaves_room_for_the_records_of_others() {
    inside("losses::a_flood_from_one_pod_leaves_room_for_the_records_of_others", |cgroup| {
        let options = Options { ring_slots: Some(256), ..options(cgroup) };
        let mut world = World::with(&options);
        // Many times what the rings hold, from one pod, and nobody reads. Then a few from another.
        let (flooding, _) = in_another_pod(&world, || connections(1000));
        wait_for_closes(&world, 2000);
        let (quiet, _) = in_another_pod(&world, || connections(5));
        wait_for_closes(&world, 2010);
        world.wait_for_all("the quiet pod", 20, |r| r.netns == quiet);
        let mut in_ring = HashMap::<u64, u32>::new();
        world.seen.iter().for_each(|record| *in_ring.entry(record.netns).or_default() += 1);
        // Half a ring, and an eighth more, is as much as one can have of each.
        let most = world.source.usage().expect("readable").ring.1 as u32 * 5 / 8;
        assert!((1..=most).contains(&in_ring[&flooding]), "{in_ring:?}");
        assert_eq!(in_ring[&quiet], 20, "established and closed, at both ends");
        // Of the flood, nothing is missing.
        let mut ends = Ends::default();
        ends.read_all(&mut world, 1);
        assert_eq!(world.counter(counter::LOST_CONNECTIONS), 0);
        // Once it was read there is room again.
        let (anew, _) = in_another_pod(&world, || connections(10));
        world.wait_for_all("a pod that has just begun", 40, |r| r.netns == anew);
    });
}

#[test]
fn a_port_scan_takes_no_more_than_its_share_of_the_sums() {
    inside("losses::a_port_scan_takes_no_more_than_its_share_of_the_sums", |cgroup| {
        let options = Options { ring_slots: Some(16), max_connections: 64, ..options(cgroup) };
        let mut world = World::with(&options);
        let scan = |ports: std::ops::Range<u16>| {
            for port in ports {
                TcpStream::connect(("127.0.0.1", port)).expect_err("nobody listens");
            }
        };
        let (scanning, ()) = in_another_pod(&world, || scan(1000..9000));
        let (quiet, ()) = in_another_pod(&world, || scan(1000..1300));
        let mut attempts = HashMap::<u64, u64>::new();
        let mut count = |netns, number| *attempts.entry(netns).or_default() += number;
        let mut whole = |bytes: &[u8]| count(Record::read_from_bytes(bytes).expect("records have one size").netns, 1);
        world.source.drain_ring(&mut whole);
        world.source.drain_aside(&mut whole).expect("readable");
        let mut keys = HashMap::<u64, (u64, u64)>::new();
        world
            .source
            .drain_sums(&mut |key, sum| {
                count(key.netns, sum.connections);
                let (fine, coarse) = keys.entry(key.netns).or_default();
                *if key.remote.is_none() { coarse } else { fine } += 1;
            })
            .expect("readable");
        assert_eq!((attempts[&scanning], attempts[&quiet]), (8000, 300), "none is missing");
        let (fine, coarse) = keys[&scanning];
        assert!(fine <= u64::from(SUM_ENTRIES / 4) && coarse == 1, "{keys:?}");
        let (fine, coarse) = keys[&quiet];
        assert!(fine > 200 && coarse == 0, "{keys:?}");
        assert_eq!(world.counter(counter::LOST_CONNECTIONS), 0);
    });
}
