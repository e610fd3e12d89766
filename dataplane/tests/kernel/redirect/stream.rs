//! Much data both ways at once, in pieces of any size.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    os::fd::AsFd as _,
    thread,
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{AFTER, Joining, accelerated, by_tcp, ends, exchange, pair};
use crate::sandbox::{DEADLINE, inside};

/// Bytes each way.
const TOTAL: usize = 1 << 30;
/// A prime, so that no power of two is a shift that goes unnoticed.
const PERIOD: usize = 1_048_573;

#[test]
fn a_gibibyte_each_way_in_pieces_of_any_size_arrives_in_order() {
    inside("redirect::stream::a_gibibyte_each_way_in_pieces_of_any_size_arrives_in_order", |cgroup| {
        let (mut world, accelerator) = accelerated(cgroup);
        let _joining = Joining::begin(accelerator.clone());
        let (mut client, mut server) = pair("127.0.0.1:0");
        let address = client.local_addr().expect("bound");
        (0..AFTER).for_each(|_| exchange(&mut client, &mut server, 1));
        thread::scope(|scope| {
            for (seed, stream) in [(1, &*client), (2, &*server)] {
                scope.spawn(move || Talk::new(stream, seed).run());
            }
        });
        let all = TOTAL as u64 + u64::from(AFTER);
        assert!(by_tcp(&client) < all && by_tcp(&server) < all, "some of it went beside TCP");
        drop((client, server));
        for end in ends(&mut world, address) {
            assert_eq!((end.sent, end.received), (all, all));
        }
    });
}

/// What one end sends, over and over; twice, so that any piece of it is a slice.
fn pattern(seed: u32) -> Vec<u8> {
    let mut bytes: Vec<_> = Random(seed).take(PERIOD).map(|random| (random >> 24) as u8).collect();
    bytes.extend_from_within(..);
    bytes
}

/// One end: a thread that sends and reads whatever is possible.
struct Talk<'a> {
    stream: &'a TcpStream,
    sends: Vec<u8>,
    expects: Vec<u8>,
    random: Random,
    sent: usize,
    read: usize,
}

impl<'a> Talk<'a> {
    fn new(stream: &'a TcpStream, seed: u32) -> Self {
        let (sends, expects) = (pattern(seed), pattern(3 - seed));
        Self { stream, sends, expects, random: Random(seed), sent: 0, read: 0 }
    }

    fn run(mut self) {
        let mut buffer = vec![0; 300_000];
        while self.sent < TOTAL || self.read < TOTAL {
            let mut waits = PollFlags::empty();
            waits.set(PollFlags::POLLIN, self.read < TOTAL);
            waits.set(PollFlags::POLLOUT, self.sent < TOTAL);
            let mut end = [PollFd::new(self.stream.as_fd(), waits)];
            let ready =
                poll(&mut end, PollTimeout::try_from(DEADLINE).expect("it fits")).expect("it can be waited for");
            assert_eq!(ready, 1, "nothing moves after {} sent and {} read", self.sent, self.read);
            let events = end[0].revents().expect("known events");
            if events.contains(PollFlags::POLLIN) {
                self.take(&mut buffer);
            }
            if events.contains(PollFlags::POLLOUT) && self.sent < TOTAL {
                self.send();
            }
        }
    }

    fn send(&mut self) {
        let any = self.random.next().expect("it does not end") as usize >> 4;
        let most = [64, 4096, 65_536, 1 << 20][any & 3];
        let size = (1 + (any >> 2) % most).min(TOTAL - self.sent).min(PERIOD);
        let from = self.sent % PERIOD;
        self.sent += moved(self.stream.write(&self.sends[from..from + size]));
        // Rests, in which everything is read.
        if any.is_multiple_of(61) {
            rest();
        }
    }

    fn take(&mut self, buffer: &mut [u8]) {
        let got = moved(self.stream.read(buffer));
        let from = self.read % PERIOD;
        assert!(buffer[..got] == self.expects[from..from + got], "what came at {} is something else", self.read);
        self.read += got;
    }
}

#[expect(clippy::disallowed_methods, reason = "that nothing is sent for a while is part of what is sent")]
fn rest() {
    thread::sleep(Duration::from_micros(300));
}

fn moved(result: io::Result<usize>) -> usize {
    match result {
        Ok(0) => panic!("it ended too early"),
        Ok(some) => some,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) => panic!("{error}"),
    }
}

/// A linear congruential generator: the same for the same seed.
struct Random(u32);

impl Iterator for Random {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some(self.0)
    }
}
