//! Networks that delay, lose and reorder. Needs the kernel's `netem`, which many small kernels lack: `make test-kernels` has one that
//! has it.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use abi::Record;

use crate::{
    sandbox::{DEADLINE, inside},
    world::{World, is_end, is_outbound},
};

const THERE: usize = 400_000;
const BACK: usize = 300_001;

/// Has every packet of this thread's namespace treated so.
fn network(treatment: &str) {
    let arguments = format!("qdisc add dev lo root netem limit 10000 {treatment}");
    let output = Command::new("tc").args(arguments.split(' ')).output().expect("iproute2 is installed");
    assert!(output.status.success(), "tc {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Sends both ways over one connection, closes it, and returns the records of its ends: the opener's first.
fn transfer(world: &mut World) -> [Record; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").expect("free");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
    let (mut server, _) = listener.accept().expect("answered");
    let from = client.local_addr().expect("bound");
    std::thread::scope(|scope| {
        let (client, server) = (&client, &server);
        for (mut from, mut to, amount) in [(client, server, THERE), (server, client, BACK)] {
            scope.spawn(move || from.write_all(&vec![1; amount]).expect("the peer reads"));
            scope.spawn(move || to.read_exact(&mut vec![0; amount]).expect("the peer sends"));
        }
    });
    drop(client);
    assert_eq!(server.read(&mut [0]).expect("orderly"), 0);
    drop(server);
    // The last acknowledgement may have to be sent again, which takes its time.
    let begin = Instant::now();
    loop {
        world.drain();
        let end = |opener: bool| {
            let own = |r: &&Record| {
                SocketAddr::from(if opener { r.local } else { r.remote }) == from && is_outbound(r) == opener
            };
            world.seen.iter().filter(|r| is_end(r)).find(own).copied()
        };
        if let (Some(opener), Some(accepter)) = (end(true), end(false)) {
            return [opener, accepter];
        }
        assert!(begin.elapsed() < DEADLINE * 3, "an end is missing: {:#?}", world.seen);
        world.source.wait(Duration::from_millis(20)).expect("waits");
    }
}

fn assert_bytes([opener, accepter]: &[Record; 2]) {
    assert_eq!((opener.sent, opener.received), (THERE as u64, BACK as u64), "{opener:#?}");
    assert_eq!((accepter.sent, accepter.received), (BACK as u64, THERE as u64), "{accepter:#?}");
}

#[test]
#[ignore = "needs netem: make test-kernels"]
fn delay_is_what_the_round_trip_takes() {
    inside("network::delay_is_what_the_round_trip_takes", |cgroup| {
        network("delay 20ms");
        let ends = transfer(&mut World::new(cgroup));
        assert_bytes(&ends);
        for end in &ends {
            // Twenty each way; and an emulated machine is slow.
            assert!((40_000..400_000).contains(&end.min_rtt_us), "{end:#?}");
            assert!(end.srtt_us >= end.min_rtt_us, "{end:#?}");
        }
    });
}

#[test]
#[ignore = "needs netem: make test-kernels"]
fn losses_are_seen_and_change_no_byte() {
    inside("network::losses_are_seen_and_change_no_byte", |cgroup| {
        network("delay 2ms loss 5%");
        let mut world = World::new(cgroup);
        let ends: Vec<_> = (0..5).map(|_| transfer(&mut world)).collect();
        ends.iter().for_each(assert_bytes);
        let sum = |of: fn(&Record) -> u64| ends.iter().flatten().map(of).sum::<u64>();
        assert!(sum(|r| r.retransmits) > 0 && sum(|r| r.lost) > 0, "{ends:#?}");
        assert!(ends.iter().flatten().all(|r| r.lost <= r.segments_out), "{ends:#?}");
    });
}

#[test]
#[ignore = "needs netem: make test-kernels"]
fn reordering_and_copies_change_no_byte() {
    inside("network::reordering_and_copies_change_no_byte", |cgroup| {
        network("delay 5ms reorder 25% 50% duplicate 5%");
        let mut world = World::new(cgroup);
        (0..5).for_each(|_| assert_bytes(&transfer(&mut world)));
    });
}
