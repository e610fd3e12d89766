//! Connects that fail, each with its reason.

use std::net::{SocketAddr, TcpListener, TcpStream};

use abi::{Kind, Record, record::flags};
use socket2::{Domain, Socket, Type};

use crate::{
    sandbox::{inside, ip, sysctl},
    world::{World, is_outbound},
};

const EADDRNOTAVAIL: u32 = 99;
const ENETUNREACH: u32 = 101;
const ETIMEDOUT: u32 = 110;
const ECONNREFUSED: u32 = 111;
const EHOSTUNREACH: u32 = 113;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn errno(error: &std::io::Error) -> u32 {
    error.raw_os_error().expect("the kernel said it") as u32
}

/// Connects, and asserts that the program and the record got the same errno.
fn fails(world: &mut World, to: &str, expected: u32) -> abi::Record {
    let error = TcpStream::connect(address(to)).expect_err(to);
    assert_eq!(errno(&error), expected, "{to}: {error}");
    let record = world.failure(address(to));
    assert_eq!(record.error, expected, "{to}: {record:#?}");
    assert_eq!((record.sent, record.received, record.direction), (0, 0, 1));
    assert!(record.start_ns <= record.now_ns && record.cookie != 0 && record.netns != 0);
    record
}

/// An interface that leads nowhere: whom one asks for there does not answer.
fn nowhere() {
    ip("link add v0 type veth peer name v1");
    ip("link set v1 up");
    ip("link set v0 up");
    ip("addr add 10.9.0.1/24 dev v0");
    ip("addr add fd09::1/64 dev v0 nodad");
}

#[test]
fn a_refused_connect_is_a_failure_and_nothing_else() {
    inside("failures::a_refused_connect_is_a_failure_and_nothing_else", |cgroup| {
        let mut world = World::new(cgroup);
        for to in ["127.0.0.1:1", "[::1]:1"] {
            let record = fails(&mut world, to, ECONNREFUSED);
            assert_ne!(record.local.port(), 0);
        }
        assert_eq!(world.counted(), [0, 0, 2]);
        assert_eq!(world.drain().len(), 2);
    });
}

#[test]
fn no_route_and_no_free_port_are_told_apart() {
    inside("failures::no_route_and_no_free_port_are_told_apart", |cgroup| {
        let mut world = World::new(cgroup);
        fails(&mut world, "192.0.2.1:80", ENETUNREACH);
        fails(&mut world, "[2001:db8::1]:80", ENETUNREACH);
        // One local port, and one connection that has it.
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(bind).expect("free");
            let to = listener.local_addr().expect("bound");
            sysctl("net.ipv4.ip_local_port_range", "40000 40000");
            let held = TcpStream::connect(to).expect("one port is there");
            let record = fails(&mut world, &to.to_string(), EADDRNOTAVAIL);
            assert!(record.local.is_none());
            drop(held);
            sysctl("net.ipv4.ip_local_port_range", "32768 60999");
        }
        assert_eq!(world.counter(abi::maps::counter::FAILED), 4);
    });
}

#[test]
fn a_host_that_does_not_answer_is_a_time_out_and_one_that_is_not_there_unreachable() {
    inside("failures::a_host_that_does_not_answer_is_a_time_out_and_one_that_is_not_there_unreachable", |cgroup| {
        let mut world = World::new(cgroup);
        nowhere();
        sysctl("net.ipv4.tcp_syn_retries", "1");
        ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev v0 nud permanent");
        ip("neigh add fd09::2 lladdr 02:00:00:00:00:02 dev v0 nud permanent");
        for protocol in ["ipv4", "ipv6"] {
            sysctl(&format!("net.{protocol}.neigh.v0.retrans_time_ms"), "50");
        }
        fails(&mut world, "10.9.0.3:80", EHOSTUNREACH);
        fails(&mut world, "[fd09::3]:80", EHOSTUNREACH);
        let record = fails(&mut world, "10.9.0.2:80", ETIMEDOUT);
        assert!(record.retransmits >= 1, "{record:#?}");
        fails(&mut world, "[fd09::2]:80", ETIMEDOUT);
        assert_eq!(world.counted(), [0, 0, 4]);
    });
}

#[test]
fn a_connect_that_the_program_gives_up_has_no_error() {
    inside("failures::a_connect_that_the_program_gives_up_has_no_error", |cgroup| {
        let mut world = World::new(cgroup);
        nowhere();
        ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev v0 nud permanent");
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        socket.connect(&address("10.9.0.2:80").into()).expect_err("under way");
        drop(socket);
        let record = world.failure(address("10.9.0.2:80"));
        assert_eq!((record.error, record.state), (0, 2));
        assert_eq!(SocketAddr::from(record.local).ip(), address("10.9.0.1:0").ip());
    });
}

#[test]
fn a_socket_used_again_starts_afresh() {
    inside("failures::a_socket_used_again_starts_afresh", |cgroup| {
        let mut world = World::new(cgroup);
        let listener = TcpListener::bind("127.0.0.1:0").expect("free");
        let to = listener.local_addr().expect("bound");
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let no_route = address("192.0.2.1:80");
        socket.connect(&no_route.into()).expect_err("no route");
        assert!(world.drain().is_empty(), "the socket may still be used");
        let refused = address("127.0.0.1:1");
        socket.connect(&refused.into()).expect_err("nobody listens");
        assert_eq!(world.failure(no_route).error, ENETUNREACH);
        assert_eq!(world.failure(refused).error, ECONNREFUSED);
        socket.connect(&to.into()).expect("the listener takes it");
        disconnect(&socket);
        socket.connect(&to.into()).expect("the listener takes it again");
        let (_first, _second) = (listener.accept().expect("answered"), listener.accept().expect("answered"));
        drop(socket);
        // Established twice, failed twice; the second end comes once the peer's TCP has answered.
        let own = |kind: Kind| move |r: &Record| r.kind == kind as u32 && is_outbound(r);
        let mut closed = world.wait_for_all("both ends", 2, own(Kind::Closed));
        closed.sort_by_key(|record| record.start_ns);
        assert_eq!((closed.len(), world.wait_for_all("both", 2, own(Kind::Established)).len()), (2, 2));
        assert_eq!(closed[0].flags & flags::RESET, flags::RESET, "it was cut off");
        assert_eq!(closed[1].flags & flags::RESET, 0, "it ended in order");
        let mut starts: Vec<_> = world.seen.iter().filter(|r| r.direction == 1).map(|r| r.start_ns).collect();
        starts.sort_unstable();
        starts.dedup();
        assert_eq!(starts.len(), 4, "four connects, four begins");
    });
}

/// Cuts a connection off so that its socket can connect again.
fn disconnect(socket: &Socket) {
    use std::os::fd::AsRawFd as _;
    let nobody = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    // SAFETY: the descriptor is open and the address as long as it is said to be.
    let done = unsafe { libc::connect(socket.as_raw_fd(), &nobody, size_of_val(&nobody) as libc::socklen_t) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}
