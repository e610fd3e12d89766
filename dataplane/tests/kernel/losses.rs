//! A ring that is full.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use abi::{Kind, Record, maps::counter, record::flags};
use zerocopy::FromBytes as _;

use crate::{
    sandbox::{DEADLINE, inside},
    world::{World, options},
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
    (options.ring_bytes, options.max_connections) = (4096, aside);
    World::with(&options)
}

#[test]
fn a_full_ring_loses_no_close() {
    inside("losses::a_full_ring_loses_no_close", |cgroup| {
        let mut world = world(cgroup, 1024);
        let total = connections(200);
        world.drain();
        // The last close of all may still be on its way.
        let begin = Instant::now();
        while world.counted()[1] < 400 {
            assert!(begin.elapsed() < DEADLINE);
            std::thread::yield_now();
        }
        let seen = &mut world.seen;
        let put_aside = world
            .source
            .drain_aside(&mut |bytes| seen.push(Record::read_from_bytes(bytes).expect("records have one size")))
            .expect("readable");
        world.drain();
        let closed: Vec<_> = world.seen.iter().filter(|r| r.kind == Kind::Closed as u32).collect();
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

#[test]
fn what_fits_nowhere_is_counted_to_the_byte() {
    inside("losses::what_fits_nowhere_is_counted_to_the_byte", |cgroup| {
        let mut world = world(cgroup, 10);
        let total = connections(100);
        let begin = Instant::now();
        while world.counted()[1] < 200 {
            assert!(begin.elapsed() < DEADLINE);
            std::thread::yield_now();
        }
        world.drain();
        let seen = &mut world.seen;
        world
            .source
            .drain_aside(&mut |bytes| seen.push(Record::read_from_bytes(bytes).expect("records have one size")))
            .expect("readable");
        let closed: Vec<_> = world.seen.iter().filter(|r| r.kind == Kind::Closed as u32).collect();
        let sum = |of: fn(&Record) -> u64| closed.iter().map(|r| of(r)).sum::<u64>();
        assert_eq!(closed.len() as u64 + world.counter(counter::LOST_CONNECTIONS), 200);
        assert_eq!(sum(|r| r.sent) + world.counter(counter::LOST_SENT), total);
        assert_eq!(sum(|r| r.received) + world.counter(counter::LOST_RECEIVED), total);
        assert!(world.counter(counter::LOST_CONNECTIONS) > 150);
    });
}

#[test]
fn a_ring_that_fills_up_wakes_its_reader() {
    inside("losses::a_ring_that_fills_up_wakes_its_reader", |cgroup| {
        const HALF: u64 = 32 << 10;
        let mut options = options(cgroup);
        options.ring_bytes = 2 * HALF as u32;
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
                while world.source.usage().expect("readable").ring_bytes.0 < HALF && begin.elapsed() < DEADLINE {
                    world.source.wait(DEADLINE).expect("waits");
                }
                let woken = begin.elapsed() < DEADLINE;
                stop.store(!woken, Ordering::Relaxed);
                assert!(woken, "no one woke it");
                world.seen.clear();
                assert!(world.drain().len() as u64 >= HALF / 176);
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
}
