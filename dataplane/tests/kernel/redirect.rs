//! Socket redirect: what goes beside TCP arrives once, in order, and is counted at both ends.

mod leave;
mod stream;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use abi::{Record, maps::counter};
use dataplane::kernel::{Accelerator, Kernel, Options};

use tests::EventStream;

use crate::{
    sandbox::{DEADLINE, inside, ip, new_namespace},
    world::{World, is_end, is_outbound, options},
};

/// Segments after which connections join here.
const AFTER: u32 = 8;

/// Programs that let connections join, and who joins them.
fn accelerated(cgroup: &Path) -> (World, Accelerator) {
    let world = World::with(&Options { accelerate: Some(AFTER), ..options(cgroup) });
    let accelerator = world.kernel.accelerator();
    (world, accelerator)
}

/// Joins whatever may, over and over, until dropped.
struct Joining(Option<(Arc<AtomicBool>, JoinHandle<()>)>);

impl Joining {
    fn begin(accelerator: Accelerator) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                accelerator.join().expect("the kernel iterates");
                thread::yield_now();
            }
        });
        Self(Some((stop, thread)))
    }
}

impl Drop for Joining {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.0.take() {
            stop.store(true, Ordering::Relaxed);
            thread.join().expect("it ends");
        }
    }
}

/// A connection with both ends in this process, of programs that wait for events.
fn pair(to: &str) -> (EventStream, EventStream) {
    let listener = TcpListener::bind(to).expect("the address is free");
    let client = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("the listener takes it");
    let (server, _) = listener.accept().expect("the connect was answered");
    (nonblocking(client), nonblocking(server))
}

fn nonblocking(stream: TcpStream) -> EventStream {
    stream.try_into().expect("a socket")
}

/// A message that fits the peer's queue.
fn send(from: &mut EventStream, to: &mut EventStream, size: usize) {
    from.write_all(&vec![7; size]).expect("the peer reads");
    to.read_exact(&mut vec![0; size]).expect("the peer sends");
}

/// A message there and one back.
fn exchange(client: &mut EventStream, server: &mut EventStream, size: usize) {
    send(client, server, size);
    send(server, client, size);
}

/// Tells whether a message there and one back go beside TCP.
fn goes_beside(client: &mut EventStream, server: &mut EventStream, size: usize) -> bool {
    let before = (by_tcp(client), by_tcp(server));
    exchange(client, server, size);
    (by_tcp(client), by_tcp(server)) == before
}

/// Exchanges messages until they go beside TCP both ways; returns how many it took.
fn join(accelerator: &Accelerator, client: &mut EventStream, server: &mut EventStream, size: usize) -> u64 {
    let begin = Instant::now();
    let mut messages = 1;
    while !goes_beside(client, server, size) {
        accelerator.join().expect("the kernel iterates");
        messages += 1;
        assert!(begin.elapsed() < DEADLINE, "it does not leave TCP");
    }
    messages
}

/// What TCP itself has had acknowledged (`tcpi_bytes_acked`), once nothing is on its way.
fn by_tcp(end: &TcpStream) -> u64 {
    let begin = Instant::now();
    loop {
        // SAFETY: zero is a valid value of every field.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        let value = (&raw mut info).cast();
        // SAFETY: the kernel writes at most `length` bytes to `info`.
        let got = unsafe { libc::getsockopt(end.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, value, &mut length) };
        assert_eq!(got, 0);
        if info.tcpi_unacked == 0 && info.tcpi_notsent_bytes == 0 {
            return info.tcpi_bytes_acked;
        }
        assert!(begin.elapsed() < DEADLINE, "it is acknowledged");
        thread::yield_now();
    }
}

/// Waits for the ends of a connection that was opened from this address: of who opened, and of who accepted.
fn ends(world: &mut World, client: SocketAddr) -> [Record; 2] {
    [true, false].map(|out| {
        world.wait_for("an end", |record| {
            let own = if out { record.local } else { record.remote };
            is_end(record) && is_outbound(record) == out && SocketAddr::from(own) == client
        })
    })
}

#[test]
fn a_long_connection_leaves_tcp_and_is_counted_all_the_same() {
    inside("redirect::a_long_connection_leaves_tcp_and_is_counted_all_the_same", |cgroup| {
        let (mut world, accelerator) = accelerated(cgroup);
        for to in ["127.0.0.1:0", "[::1]:0"] {
            let (mut client, mut server) = pair(to);
            let address = client.local_addr().expect("bound");
            let mut messages = join(&accelerator, &mut client, &mut server, 1000);
            for _ in 0..100 {
                assert!(goes_beside(&mut client, &mut server, 1000));
                messages += 1;
            }
            // While it lives too, and though nothing of it went by TCP since the last pass.
            for end in world.pass() {
                assert_eq!((end.sent, end.received), (messages * 1000, messages * 1000), "{end:#?}");
            }
            drop(client);
            assert_eq!(server.read(&mut [0]).expect("an orderly end"), 0);
            drop(server);
            for end in ends(&mut world, address) {
                assert_eq!((end.sent, end.received), (messages * 1000, messages * 1000), "{end:#?}");
            }
        }
        let joins = accelerator.joins().expect("readable");
        assert_eq!((joins.joined, joins.parted), (4, 4));
        assert_eq!(accelerator.sweep().expect("readable"), 0);
    });
}

#[test]
fn a_short_connection_stays_with_tcp() {
    inside("redirect::a_short_connection_stays_with_tcp", |cgroup| {
        let (mut world, accelerator) = accelerated(cgroup);
        let (mut client, mut server) = pair("127.0.0.1:0");
        let address = client.local_addr().expect("bound");
        for _ in 0..3 {
            accelerator.join().expect("the kernel iterates");
        }
        exchange(&mut client, &mut server, 1000);
        drop((client, server));
        for end in ends(&mut world, address) {
            assert_eq!((end.sent, end.received), (1000, 1000));
        }
        assert_eq!(world.counter(counter::JOINED), 0);
    });
}

#[test]
fn where_namespaces_are_walked_over_connections_leave_tcp_too() {
    inside("redirect::where_namespaces_are_walked_over_connections_leave_tcp_too", |cgroup| {
        let options = Options { accelerate: Some(AFTER), walk_namespaces: true, ..options(cgroup) };
        if linux() < (6, 5) {
            let refused = Kernel::load(&options).err().expect("it would wait for itself");
            assert!(format!("{refused:#}").contains("older than 6.5"), "{refused:#}");
            return;
        }
        let mut world = World::with(&options);
        let accelerator = world.kernel.accelerator();
        let (mut client, mut server) = pair("127.0.0.1:0");
        let address = client.local_addr().expect("bound");
        let messages = join(&accelerator, &mut client, &mut server, 1000);
        assert!(goes_beside(&mut client, &mut server, 1000));
        drop((client, server));
        let sent = (messages + 1) * 1000;
        for end in ends(&mut world, address) {
            assert_eq!(end.sent.max(end.received), sent, "{end:#?}");
        }
    });
}

/// The first two numbers of the running kernel's release.
fn linux() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("proc is mounted");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().expect("a number"));
    (numbers.next().expect("one"), numbers.next().expect("two"))
}

/// Two namespaces may have the same addresses and ports: sequence numbers tell who is whose peer.
#[test]
fn connections_that_look_alike_do_not_meet() {
    inside("redirect::connections_that_look_alike_do_not_meet", |cgroup| {
        let world = World::with(&Options { accelerate: Some(AFTER), manage_all: true, ..options(cgroup) });
        let accelerator = world.kernel.accelerator();
        let connection = || {
            thread::spawn(|| {
                new_namespace();
                ip("addr add 10.9.0.1/32 dev lo");
                ip("addr add 10.9.0.2/32 dev lo");
                let listener = TcpListener::bind("10.9.0.1:4000").expect("free");
                let socket =
                    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
                let at = |text: &str| text.parse::<SocketAddr>().expect("an address").into();
                socket.bind(&at("10.9.0.2:5000")).expect("free");
                socket.connect(&at("10.9.0.1:4000")).expect("listening");
                let (server, _) = listener.accept().expect("answered");
                (nonblocking(TcpStream::from(socket)), nonblocking(server))
            })
            .join()
            .expect("it connects")
        };
        let mut pairs = [connection(), connection()];
        for round in 0..100_u8 {
            for (i, (client, server)) in pairs.iter_mut().enumerate() {
                let message = [round, i as u8, 3, 4];
                client.write_all(&message).expect("it is open");
                let mut got = [0; 4];
                server.read_exact(&mut got).expect("it comes");
                assert_eq!(got, message);
                server.write_all(&message).expect("it is open");
                client.read_exact(&mut got).expect("it comes");
                assert_eq!(got, message);
            }
            accelerator.join().expect("the kernel iterates");
        }
        assert_eq!(world.counter(counter::JOINED) % 2, 0, "always both ends");
    });
}

/// The kernel would wake who waits in a read for more than data.
#[test]
fn a_program_that_waits_for_what_it_reads_stays_with_tcp() {
    inside("redirect::a_program_that_waits_for_what_it_reads_stays_with_tcp", |cgroup| {
        let (mut world, accelerator) = accelerated(cgroup);
        for (client_waits, server_waits) in [(true, true), (true, false), (false, true)] {
            let (mut client, mut server) = pair("127.0.0.1:0");
            client.set_nonblocking(!client_waits).expect("a socket");
            server.set_nonblocking(!server_waits).expect("a socket");
            for _ in 0..2 * AFTER {
                assert!(!goes_beside(&mut client, &mut server, 100));
                accelerator.join().expect("the kernel iterates");
            }
            let address = client.local_addr().expect("bound");
            drop((client, server));
            for end in ends(&mut world, address) {
                assert_eq!((end.sent, end.received), (u64::from(AFTER) * 200, u64::from(AFTER) * 200));
            }
        }
        assert_eq!(accelerator.joins().expect("readable").joined, 0);
    });
}
