//! How joined sockets go back to TCP, and how they end.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use abi::{joined::MOST_UNREAD, record::flags};
use socket2::{SockRef, Socket};

use super::{AFTER, accelerated, by_tcp, ends, exchange, goes_beside, join, pair};
use crate::{
    restart::{as_of_another_version, pins},
    sandbox::{DEADLINE, inside},
    world::{World, options, own_cookie},
};

#[test]
fn after_half_a_close_the_rest_goes_by_tcp_and_nothing_is_missing() {
    inside("redirect::leave::after_half_a_close_the_rest_goes_by_tcp_and_nothing_is_missing", |cgroup| {
        let (mut world, accelerator) = accelerated(cgroup);
        let (mut client, mut server) = pair("127.0.0.1:0");
        let address = client.local_addr().expect("bound");
        let messages = join(&accelerator, &mut client, &mut server, 100);
        // Waits to be read beside TCP while the end comes by TCP.
        client.write_all(&[1; 5000]).expect("open");
        client.shutdown(Shutdown::Write).expect("open");
        let mut got = Vec::new();
        server.read_to_end(&mut got).expect("an orderly end");
        assert_eq!(got, [1; 5000]);
        server.write_all(&[2; 7000]).expect("half of it is open");
        drop(server);
        got.clear();
        client.read_to_end(&mut got).expect("an orderly end");
        assert_eq!(got, [2; 7000]);
        drop(client);
        let [out, inward] = ends(&mut world, address);
        assert_eq!((out.sent, out.received), (messages * 100 + 5000, messages * 100 + 7000));
        assert_eq!((inward.sent, inward.received), (out.received, out.sent));
        assert_eq!((out.flags | inward.flags) & flags::RESET, 0);
    });
}

#[test]
fn a_reset_is_a_reset() {
    inside("redirect::leave::a_reset_is_a_reset", |cgroup| {
        let (mut world, accelerator) = accelerated(cgroup);
        let (mut client, mut server) = pair("127.0.0.1:0");
        let address = client.local_addr().expect("bound");
        let messages = join(&accelerator, &mut client, &mut server, 100);
        SockRef::from(&*client).set_linger(Some(Duration::ZERO)).expect("a socket");
        drop(client);
        assert_eq!(server.read(&mut [0]).expect_err("reset").kind(), ErrorKind::ConnectionReset);
        drop(server);
        for end in ends(&mut world, address) {
            assert_eq!((end.sent, end.received), (messages * 100, messages * 100));
            assert_ne!(end.flags & flags::RESET, 0);
        }
    });
}

#[test]
fn what_is_no_longer_managed_goes_by_tcp_and_back_again() {
    inside("redirect::leave::what_is_no_longer_managed_goes_by_tcp_and_back_again", |cgroup| {
        let (world, accelerator) = accelerated(cgroup);
        let mut manager = world.kernel.manager();
        let (mut client, mut server) = pair("127.0.0.1:0");
        join(&accelerator, &mut client, &mut server, 100);
        manager.remove(own_cookie()).expect("it is there");
        assert!(!goes_beside(&mut client, &mut server, 100));
        manager.enrol(own_cookie()).expect("there is room");
        join(&accelerator, &mut client, &mut server, 100);
        accelerator.rest().expect("it may be switched off");
        assert!(!goes_beside(&mut client, &mut server, 100));
    });
}

#[test]
fn who_is_told_what_was_sent_without_copying_stays_with_tcp() {
    inside("redirect::leave::who_is_told_what_was_sent_without_copying_stays_with_tcp", |cgroup| {
        let (_world, accelerator) = accelerated(cgroup);
        let (mut client, mut server) = pair("127.0.0.1:0");
        no_copies(&client);
        for _ in 0..2 * AFTER {
            assert!(!goes_beside(&mut client, &mut server, 100));
            accelerator.join().expect("the kernel iterates");
        }
        assert_eq!(accelerator.joins().expect("readable").joined, 0);
        // Asked for later, it makes the socket leave.
        let (mut client, mut server) = pair("127.0.0.1:0");
        join(&accelerator, &mut client, &mut server, 100);
        no_copies(&client);
        let before = by_tcp(&client);
        exchange(&mut client, &mut server, 100);
        assert_eq!(by_tcp(&client) - before, 100);
    });
}

fn no_copies(stream: &TcpStream) {
    let on: libc::c_int = 1;
    let value = (&raw const on).cast();
    // SAFETY: the kernel reads an integer.
    let set = unsafe { libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ZEROCOPY, value, 4) };
    assert_eq!(set, 0);
}

#[test]
fn what_waits_unread_is_bounded_and_is_read_in_order() {
    inside("redirect::leave::what_waits_unread_is_bounded_and_is_read_in_order", |cgroup| {
        let (mut world, accelerator) = accelerated(cgroup);
        let (mut client, mut server) = pair("127.0.0.1:0");
        let address = client.local_addr().expect("bound");
        let messages = join(&accelerator, &mut client, &mut server, 100);
        let before = by_tcp(&client);
        let block: Vec<_> = (0..1009_u32).flat_map(u32::to_le_bytes).collect();
        let mut sent = 0;
        loop {
            match std::io::Write::write(&mut &*client, &block[sent % block.len()..]) {
                Ok(some) => sent += some,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
            assert!(sent < 64 << 20, "nobody reads, and no end of it");
        }
        assert!(sent > MOST_UNREAD as usize - block.len(), "{sent}");
        assert_eq!(accelerator.joins().expect("readable").held_back, 1);
        let mut got = vec![0; sent];
        server.read_exact(&mut got).expect("it is there");
        assert!(got.iter().enumerate().all(|(at, byte)| *byte == block[at % block.len()]));
        let beside = sent as u64 - (by_tcp(&client) - before);
        assert!(beside <= u64::from(MOST_UNREAD), "{beside} bytes waited beside TCP");
        // Drained, it leaves TCP again.
        let more = join(&accelerator, &mut client, &mut server, 100);
        drop((client, server));
        let [out, _] = ends(&mut world, address);
        assert_eq!(out.sent, (messages + more) * 100 + sent as u64);
    });
}

/// What came beside TCP would go with the programs: they stay until it was read.
#[test]
fn programs_that_go_take_nothing_with_them() {
    inside("redirect::leave::programs_that_go_take_nothing_with_them", |cgroup| {
        for reads_in_time in [true, false] {
            let (world, accelerator) = accelerated(cgroup);
            let (mut client, mut server) = pair("127.0.0.1:0");
            join(&accelerator, &mut client, &mut server, 100);
            drop(accelerator);
            client.write_all(&[5; 3000]).expect("open");
            let mut got = [0; 3000];
            let World { kernel, source, .. } = world;
            drop(source);
            let unload = std::thread::spawn(move || drop(kernel));
            if reads_in_time {
                server.read_exact(&mut got).expect("it is there");
            }
            unload.join().expect("it ends");
            if !reads_in_time {
                server.read_exact(&mut got).expect("it still is there");
            }
            assert_eq!(got, [5; 3000]);
            exchange(&mut client, &mut server, 100);
            assert!(!goes_beside(&mut client, &mut server, 100), "by TCP from now on");
        }
    });
}

#[test]
fn the_next_one_takes_joined_sockets_over() {
    inside("redirect::leave::the_next_one_takes_joined_sockets_over", |cgroup| {
        let kept = || {
            let options = dataplane::kernel::Options { accelerate: Some(AFTER), keep: true, ..options(cgroup) };
            World::with(&options)
        };
        let first = kept();
        let (mut client, mut server) = pair("127.0.0.1:0");
        let address = client.local_addr().expect("bound");
        let messages = join(&first.kernel.accelerator(), &mut client, &mut server, 100);
        drop(first);
        assert!(goes_beside(&mut client, &mut server, 100), "nobody is needed for it");
        let mut second = kept();
        assert_eq!(second.kernel.accelerator().sweep().expect("readable"), 2);
        assert!(goes_beside(&mut client, &mut server, 100));
        // One that is new joins too.
        let (mut other, mut peer) = pair("127.0.0.1:0");
        join(&second.kernel.accelerator(), &mut other, &mut peer, 100);
        drop((client, server));
        for end in ends(&mut second, address) {
            assert_eq!(end.sent, (messages + 2) * 100);
        }
        drop(second);
        let last = World::with(&options(cgroup));
        exchange(&mut other, &mut peer, 100);
        assert!(!goes_beside(&mut other, &mut peer, 100), "without the flag joined sockets go by TCP");
        drop(last);
        exchange(&mut other, &mut peer, 100);
    });
}

#[test]
fn another_version_has_them_go_by_tcp_and_counts_what_went_beside() {
    inside("redirect::leave::another_version_has_them_go_by_tcp_and_counts_what_went_beside", |cgroup| {
        let options = dataplane::kernel::Options { accelerate: Some(AFTER), ..options(cgroup) };
        for reads_in_time in [true, false] {
            let first = World::with(&dataplane::kernel::Options { keep: true, ..options.clone() });
            let (mut client, mut server) = pair("127.0.0.1:0");
            let address = client.local_addr().expect("bound");
            let messages = join(&first.kernel.accelerator(), &mut client, &mut server, 100);
            client.write_all(&[5; 3000]).expect("open");
            drop(first);
            as_of_another_version(cgroup);
            let mut got = [0; 3000];
            let mut second = std::thread::scope(|scope| {
                let second = scope.spawn(|| World::with(&options));
                if reads_in_time {
                    server.read_exact(&mut got).expect("it is there");
                }
                second.join().expect("it takes over")
            });
            let sockets = pins(cgroup).join("maps-0/SOCKETS");
            assert_eq!(sockets.exists(), !reads_in_time, "{}", sockets.display());
            if !reads_in_time {
                server.read_exact(&mut got).expect("it still is there");
            }
            assert_eq!(got, [5; 3000]);
            for _ in 0..2 * AFTER {
                let accelerator = second.kernel.accelerator();
                accelerator.join().expect("the kernel iterates");
                accelerator.sweep().expect("readable");
                assert!(!goes_beside(&mut client, &mut server, 100), "by TCP from now on");
            }
            // One that is new joins.
            let (mut other, mut peer) = pair("127.0.0.1:0");
            join(&second.kernel.accelerator(), &mut other, &mut peer, 100);
            drop((client, server));
            let sent = (messages + u64::from(2 * AFTER)) * 100;
            let [out, inward] = ends(&mut second, address);
            assert_eq!((out.sent, out.received), (sent + 3000, sent));
            assert_eq!((inward.sent, inward.received), (sent, sent + 3000));
        }
    });
}

/// Urgent data comes in its place among the rest, without a mark.
#[test]
fn urgent_data_comes_in_its_place() {
    inside("redirect::leave::urgent_data_comes_in_its_place", |cgroup| {
        let (_world, accelerator) = accelerated(cgroup);
        let (mut client, mut server) = pair("127.0.0.1:0");
        join(&accelerator, &mut client, &mut server, 100);
        client.write_all(b"ab").expect("open");
        // SAFETY: the descriptor is another one of the same socket, ours alone.
        let urgent = Socket::from(unsafe { OwnedFd::from_raw_fd(libc::dup(client.as_raw_fd())) });
        urgent.send_out_of_band(b"!").expect("open");
        client.write_all(b"cd").expect("open");
        let mut got = [0; 5];
        server.read_exact(&mut got).expect("it is there");
        assert_eq!(&got, b"ab!cd");
    });
}

/// A program that has the kernel make it wait from now on.
#[test]
fn who_waits_again_leaves_for_good_with_its_peer() {
    inside("redirect::leave::who_waits_again_leaves_for_good_with_its_peer", |cgroup| {
        let (mut world, accelerator) = accelerated(cgroup);
        let (mut client, mut server) = pair("127.0.0.1:0");
        let address = client.local_addr().expect("bound");
        let mut messages = join(&accelerator, &mut client, &mut server, 100);
        client.set_nonblocking(false).expect("a socket");
        let begin = Instant::now();
        while accelerator.sweep().expect("readable") > 0 {
            exchange(&mut client, &mut server, 100);
            messages += 1;
            accelerator.join().expect("the kernel iterates");
            assert!(begin.elapsed() < DEADLINE, "they do not leave");
        }
        client.set_nonblocking(true).expect("a socket");
        // What they sent beside TCP still counts, however often it is looked for what may be forgotten.
        (0..3).for_each(|_| _ = accelerator.sweep().expect("readable"));
        for _ in 0..AFTER {
            assert!(!goes_beside(&mut client, &mut server, 100));
            accelerator.join().expect("the kernel iterates");
        }
        messages += u64::from(AFTER);
        drop((client, server));
        for end in ends(&mut world, address) {
            assert_eq!((end.sent, end.received), (messages * 100, messages * 100));
        }
    });
}
