//! Payload bytes, to the byte, and how connections end.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use abi::{Record, TcpState, record::flags};
use socket2::{Domain, SockRef, Socket, Type};

use crate::{
    sandbox::{DEADLINE, inside},
    world::{World, is_end, is_outbound},
};

/// A connection with both ends in this process.
fn pair(to: &str) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(to).expect("the address is free");
    let mut address = listener.local_addr().expect("it is bound");
    if to.starts_with("0.0.0.0") {
        address.set_ip([127, 0, 0, 1].into());
    }
    let client = TcpStream::connect(address).expect("the listener takes it");
    let (server, _) = listener.accept().expect("the connect was answered");
    (client, server)
}

/// Sends so many bytes from one end to the other, which reads them all.
fn send(from: &mut TcpStream, to: &mut TcpStream, amount: usize) {
    std::thread::scope(|scope| {
        scope.spawn(|| from.write_all(&vec![7; amount]).expect("the peer reads"));
        let mut received = vec![0; amount];
        to.read_exact(&mut received).expect("the peer sends");
    });
}

/// Closes one end, then the other once it has seen that.
fn close(first: TcpStream, mut second: TcpStream) {
    drop(first);
    assert_eq!(second.read(&mut [0]).expect("the peer closed orderly"), 0);
}

/// Asserts that both ends were reported with these totals, as seen by who opened.
fn assert_bytes(
    world: &mut World,
    client: SocketAddr,
    server: SocketAddr,
    sent: u64,
    received: u64,
) -> (Record, Record) {
    // By both addresses: a port is used again with another peer soon.
    let is_end_of = |r: &Record, local, remote| {
        is_end(r) && (SocketAddr::from(r.local), SocketAddr::from(r.remote)) == (local, remote)
    };
    let out = world.wait_for("the opener's end", |r| is_end_of(r, client, server));
    let inward = world.wait_for("the accepter's end", |r| is_end_of(r, server, client));
    assert_eq!((is_outbound(&out), is_outbound(&inward)), (true, false));
    assert_eq!((out.sent, out.received), (sent, received), "{out:#?}");
    assert_eq!((inward.sent, inward.received), (received, sent), "{inward:#?}");
    assert_eq!((out.original.is_none(), inward.original.is_none()), (true, true));
    (out, inward)
}

#[test]
fn totals_are_payload_to_the_byte_over_ipv4_and_ipv6() {
    inside("bytes::totals_are_payload_to_the_byte_over_ipv4_and_ipv6", |cgroup| {
        let mut world = World::new(cgroup);
        for to in ["127.0.0.1:0", "[::1]:0"] {
            for (there, back) in [(0, 0), (1, 0), (0, 1), (1000, 17), (3_000_000, 2_000_001)] {
                for opener_closes_first in [true, false] {
                    let (mut client, mut server) = pair(to);
                    let addresses = (client.local_addr().expect("bound"), client.peer_addr().expect("connected"));
                    send(&mut client, &mut server, there);
                    send(&mut server, &mut client, back);
                    if opener_closes_first {
                        close(client, server)
                    } else {
                        close(server, client)
                    };
                    let (out, inward) = assert_bytes(&mut world, addresses.0, addresses.1, there as u64, back as u64);
                    assert_eq!((out.flags | inward.flags) & flags::RESET, 0);
                    let ipv6 = if to.starts_with('[') { flags::IPV6_SOCKET } else { 0 };
                    assert_eq!((out.flags, inward.flags), (ipv6, ipv6));
                }
            }
        }
    });
}

#[test]
fn an_ipv6_socket_that_talks_ipv4_is_shown_as_ipv4() {
    inside("bytes::an_ipv6_socket_that_talks_ipv4_is_shown_as_ipv4", |cgroup| {
        let mut world = World::new(cgroup);
        let listener = TcpListener::bind("127.0.0.1:0").expect("free");
        let server = listener.local_addr().expect("bound");
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("IPv6 is on");
        let mapped: SocketAddr = format!("[::ffff:127.0.0.1]:{}", server.port()).parse().expect("an address");
        socket.connect(&mapped.into()).expect("the listener takes it");
        let mut client = TcpStream::from(socket);
        let (mut accepted, from) = listener.accept().expect("answered");
        send(&mut client, &mut accepted, 12345);
        close(client, accepted);
        let (out, inward) = assert_bytes(&mut world, from, server, 12345, 0);
        assert_eq!((out.flags, inward.flags), (flags::IPV6_SOCKET, 0));
    });
}

#[test]
fn half_closed_connections_keep_counting() {
    inside("bytes::half_closed_connections_keep_counting", |cgroup| {
        let mut world = World::new(cgroup);
        let (mut client, mut server) = pair("127.0.0.1:0");
        let local = client.local_addr().expect("bound");
        send(&mut client, &mut server, 10);
        client.shutdown(Shutdown::Write).expect("open");
        assert_eq!(server.read(&mut [0]).expect("orderly"), 0);
        send(&mut server, &mut client, 100_000);
        let live = world.pass();
        let out = live.iter().find(|r| is_outbound(r)).expect("half closed is live");
        assert_eq!((out.sent, out.received, out.state), (10, 100_000, TcpState::FinWait2 as u8));
        let inward = live.iter().find(|r| !is_outbound(r)).expect("half closed is live");
        assert_eq!((inward.received, inward.state), (10, TcpState::CloseWait as u8));
        close(server, client);
        let end = world.end_of(local);
        assert_eq!((end.sent, end.received, end.flags), (10, 100_000, 0));
    });
}

#[test]
fn a_live_connection_is_shown_exactly_while_idle() {
    inside("bytes::a_live_connection_is_shown_exactly_while_idle", |cgroup| {
        let mut world = World::new(cgroup);
        let (mut client, mut server) = pair("[::1]:0");
        send(&mut client, &mut server, 4321);
        send(&mut server, &mut client, 99);
        let begin = Instant::now();
        // The last segment's acknowledgement may be on its way.
        while world.pass().iter().map(|r| r.sent).sum::<u64>() < 4321 + 99 {
            assert!(begin.elapsed() < DEADLINE);
        }
        for _ in 0..3 {
            let live = world.pass();
            assert_eq!(live.len(), 2);
            for record in live {
                let expected = if is_outbound(&record) { (4321, 99) } else { (99, 4321) };
                assert_eq!((record.sent, record.received), expected);
                assert_eq!(record.state, TcpState::Established as u8);
                assert!(record.mss > 0 && record.cwnd > 0 && record.segments_in > 0 && record.segments_out > 0);
                assert!(record.min_rtt_us < 1_000_000 && record.srtt_us < 1_000_000);
            }
        }
    });
}

#[test]
fn a_reset_is_told_at_both_ends_whoever_sent_it() {
    inside("bytes::a_reset_is_told_at_both_ends_whoever_sent_it", |cgroup| {
        let mut world = World::new(cgroup);
        // A reset overtakes what was not acknowledged yet: of who sent `late` bytes last, these may count or not.
        let mut expect = |client: SocketAddr, [there, back]: [u64; 2], late: [u64; 2], how: &str| {
            for outbound in [true, false] {
                let end = world.wait_for(how, |r| {
                    let address = if outbound { r.local } else { r.remote };
                    r.kind == 2 && is_outbound(r) == outbound && SocketAddr::from(address) == client
                });
                assert_eq!(end.flags & flags::RESET, flags::RESET, "{how}: {end:#?}");
                let (sent, received, late) =
                    if outbound { (there, back, late) } else { (back, there, [late[1], late[0]]) };
                assert!(end.sent == sent || end.sent == sent + late[0], "{how}: {end:#?}");
                assert_eq!(end.received, received + late[1], "{how}: {end:#?}");
            }
            // The next one may have the same port.
            world.seen.clear();
        };
        for opener in [true, false] {
            // A linger time of 0.
            let (mut client, mut server) = pair("127.0.0.1:0");
            let local = client.local_addr().expect("bound");
            send(&mut client, &mut server, 500);
            let (first, mut second) = if opener { (client, server) } else { (server, client) };
            SockRef::from(&first).set_linger(Some(Duration::ZERO)).expect("open");
            drop(first);
            second.read(&mut [0]).expect_err("it was reset");
            expect(local, [500, 0], [0, 0], "linger 0");

            // Data that nobody read.
            let (mut client, mut server) = pair("127.0.0.1:0");
            let local = client.local_addr().expect("bound");
            send(&mut client, &mut server, 3);
            send(&mut server, &mut client, 4);
            let (mut first, second) = if opener { (server, client) } else { (client, server) };
            first.write_all(&[1; 50]).expect("open");
            second.peek(&mut [0; 50]).expect("it came");
            drop(second);
            first.read(&mut [0]).expect_err("it was reset");
            expect(local, [3, 4], if opener { [0, 50] } else { [50, 0] }, "unread");
        }

        // After the peer's FIN.
        let (mut client, mut server) = pair("127.0.0.1:0");
        let local = client.local_addr().expect("bound");
        send(&mut client, &mut server, 9);
        server.shutdown(Shutdown::Write).expect("open");
        assert_eq!(client.read(&mut [0]).expect("orderly"), 0);
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("open");
        drop(client);
        expect(local, [9, 0], [0, 0], "after a FIN");
    });
}

#[test]
fn direction_and_times_are_the_connections_own() {
    inside("bytes::direction_and_times_are_the_connections_own", |cgroup| {
        let mut world = World::new(cgroup);
        let (client, server) = pair("127.0.0.1:0");
        let local = client.local_addr().expect("bound");
        let opened = world.wait_for_all("both ends", 2, |_| true);
        assert_eq!(opened.len(), 2);
        for record in &opened {
            assert_eq!((record.kind, record.sent, record.received), (1, 0, 0));
            assert!(record.start_ns > 0 && record.start_ns <= record.now_ns);
            assert_eq!(record.netns, crate::world::own_cookie());
        }
        assert_ne!(opened[0].cookie, opened[1].cookie);
        close(client, server);
        let end = world.end_of(local);
        let begin = opened.iter().find(|r| is_outbound(r)).expect("one end opened it");
        assert_eq!((begin.cookie, begin.start_ns), (end.cookie, end.start_ns));
        assert!(end.now_ns > begin.now_ns);
        world.wait_for_counts([2, 2, 0]);
    });
}

#[test]
fn round_trip_times_are_those_of_the_socket() {
    inside("bytes::round_trip_times_are_those_of_the_socket", |cgroup| {
        let mut world = World::new(cgroup);
        let (mut client, mut server) = pair("127.0.0.1:0");
        for _ in 0..20 {
            send(&mut client, &mut server, 1000);
            send(&mut server, &mut client, 1000);
        }
        // While it is idle the kernel's numbers stay, but for an acknowledgement that may be on its way.
        let begin = Instant::now();
        loop {
            let local = client.local_addr().expect("bound");
            let (before, records, after) = (times(&client), world.pass(), times(&client));
            let record =
                records.iter().find(|r| is_outbound(r) && SocketAddr::from(r.local) == local).expect("it is open");
            if before == after {
                assert_eq!([record.srtt_us, record.rttvar_us, record.min_rtt_us], before, "{record:#?}");
                assert!(record.srtt_us > 0 && record.srtt_us >= record.min_rtt_us, "{record:#?}");
                break;
            }
            assert!(begin.elapsed() < DEADLINE, "its times change all the time");
        }
        close(client, server);
    });
}

/// Smoothed round trip time, its deviation and the least one, us, as the socket tells them (`tcp_info`).
fn times(stream: &TcpStream) -> [u32; 3] {
    /// Where `tcpi_rtt`, `tcpi_rttvar` and `tcpi_min_rtt` are in `struct tcp_info` (`linux/tcp.h`).
    const PLACES: [usize; 3] = [68, 72, 148];
    let mut info = [0_u8; 160];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: the descriptor is open; the kernel writes at most `length` bytes to `info`.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    assert_eq!((result, length), (0, 160));
    PLACES.map(|at| u32::from_ne_bytes(info[at..at + 4].try_into().expect("four bytes")))
}
