//! Connects to service addresses.

use std::{
    collections::HashSet,
    net::{SocketAddr, TcpListener, TcpStream},
};

use abi::{Kind, record::flags};
use dataplane::kernel::{Kernel, MapError};
use socket2::{Domain, Socket, Type};

use crate::{
    sandbox::inside,
    world::{World, is_outbound, options, own_cookie},
};

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn a_service_address_becomes_one_of_its_endpoints_and_stays_known() {
    inside("steering::a_service_address_becomes_one_of_its_endpoints_and_stays_known", |cgroup| {
        let mut world = World::new(cgroup);
        for (vip, bind) in [("10.96.0.10:80", "127.0.0.1:0"), ("[fd96::10]:80", "[::1]:0")] {
            let listeners: Vec<_> = (0..3).map(|_| TcpListener::bind(bind).expect("free")).collect();
            let endpoints: Vec<_> = listeners.iter().map(|l| l.local_addr().expect("bound")).collect();
            world.kernel.steering().set_service(address(vip), &endpoints).expect("there is room");
            let mut reached = HashSet::new();
            for _ in 0..60 {
                let client = TcpStream::connect(address(vip)).expect("steered");
                let local = client.local_addr().expect("bound");
                let peer = client.peer_addr().expect("connected");
                reached.insert(peer);
                // A local port serves again towards another endpoint, so both addresses make the connection.
                let opened = world.wait_for("the opening with the peer that was reached", |r| {
                    let ends = (SocketAddr::from(r.local), SocketAddr::from(r.remote));
                    r.kind == Kind::Established as u32 && is_outbound(r) && ends == (local, peer)
                });
                assert_eq!(SocketAddr::from(opened.original), address(vip));
            }
            assert_eq!(reached, endpoints.into_iter().collect(), "every endpoint has its share");
        }
    });
}

#[test]
fn an_ipv6_socket_that_dials_ipv4_is_steered_too() {
    inside("steering::an_ipv6_socket_that_dials_ipv4_is_steered_too", |cgroup| {
        let mut world = World::new(cgroup);
        let listener = TcpListener::bind("127.0.0.1:0").expect("free");
        let endpoint = listener.local_addr().expect("bound");
        world.kernel.steering().set_service(address("10.96.0.10:80"), &[endpoint]).expect("there is room");
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("a socket");
        socket.connect(&address("[::ffff:10.96.0.10]:80").into()).expect("steered");
        let opened = world.wait_for("the opening", |r| r.kind == Kind::Established as u32 && is_outbound(r));
        assert_eq!(SocketAddr::from(opened.original), address("10.96.0.10:80"));
        assert_eq!(SocketAddr::from(opened.remote), endpoint);
        assert_eq!(opened.flags, flags::IPV6_SOCKET);
    });
}

#[test]
fn a_service_without_endpoints_refuses_and_says_so() {
    inside("steering::a_service_without_endpoints_refuses_and_says_so", |cgroup| {
        let mut world = World::new(cgroup);
        for (vip, other) in [("10.96.0.10:80", "[::1]:80"), ("[fd96::10]:80", "127.0.0.1:80")] {
            let vip = address(vip);
            // Endpoints that the socket could not reach are as good as none.
            for endpoints in [vec![], vec![address(other)]] {
                world.seen.clear();
                world.kernel.steering().set_service(vip, &endpoints).expect("there is room");
                let error = TcpStream::connect(vip).expect_err("no endpoint");
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
                let record = world.failure(vip);
                assert_eq!((record.flags, record.error), (flags::NO_HEALTHY_ENDPOINT, 111));
                assert!(record.original.is_none() && record.local.is_none());
                assert_eq!(world.drain().len(), 1);
            }
        }
    });
}

#[test]
fn a_failed_steered_connect_names_both_addresses() {
    inside("steering::a_failed_steered_connect_names_both_addresses", |cgroup| {
        let mut world = World::new(cgroup);
        let mut steering = world.kernel.steering();
        for (vip, endpoint) in [("10.96.0.1:80", "127.0.0.1:1"), ("10.96.0.2:80", "192.0.2.1:80")] {
            steering.set_service(address(vip), &[address(endpoint)]).expect("there is room");
            TcpStream::connect(address(vip)).expect_err("nobody there");
            let record = world.failure(address(endpoint));
            assert_eq!(SocketAddr::from(record.original), address(vip));
        }
    });
}

#[test]
fn only_managed_namespaces_are_steered_and_only_while_the_service_is_there() {
    inside("steering::only_managed_namespaces_are_steered_and_only_while_the_service_is_there", |cgroup| {
        let kernel = Kernel::load(&options(cgroup)).expect("root may");
        let listener = TcpListener::bind("127.0.0.1:0").expect("free");
        let endpoint = listener.local_addr().expect("bound");
        let vip = address("127.0.0.77:7777");
        let (mut steering, mut manager) = (kernel.steering(), kernel.manager());
        steering.set_service(vip, &[endpoint]).expect("there is room");
        TcpStream::connect(vip).expect_err("not managed");
        manager.enrol(own_cookie()).expect("there is room");
        assert_eq!(TcpStream::connect(vip).expect("steered").peer_addr().expect("connected"), endpoint);
        steering.remove_service(vip).expect("it is there");
        steering.remove_service(vip).expect("gone is as good");
        TcpStream::connect(vip).expect_err("no service");
        manager.remove(own_cookie()).expect("it is there");
        manager.remove(own_cookie()).expect("gone is as good");
        assert_eq!(manager.list().expect("readable"), []);
    });
}

#[test]
fn connects_never_fail_while_endpoints_change() {
    inside("steering::connects_never_fail_while_endpoints_change", |cgroup| {
        let world = World::new(cgroup);
        let listeners: Vec<_> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").expect("free")).collect();
        let endpoints: Vec<_> = listeners.iter().map(|l| l.local_addr().expect("bound")).collect();
        let vip = address("10.96.0.10:80");
        let mut steering = world.kernel.steering();
        steering.set_service(vip, &endpoints).expect("there is room");
        std::thread::scope(|scope| {
            let connecting = scope.spawn(|| {
                for _ in 0..2000 {
                    let stream = TcpStream::connect(vip).expect("some endpoint is always there");
                    socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).expect("open");
                }
            });
            let mut turn = 0;
            while !connecting.is_finished() {
                turn += 1;
                steering.set_service(vip, &endpoints[turn % 4..]).expect("there is room");
                while listeners.iter().any(|l| l.set_nonblocking(true).is_ok() && l.accept().is_ok()) {}
            }
            assert!(turn > 10);
        });
    });
}

#[test]
fn a_full_map_is_an_error_that_names_the_flag_and_changes_nothing() {
    inside("steering::a_full_map_is_an_error_that_names_the_flag_and_changes_nothing", |cgroup| {
        let mut options = options(cgroup);
        (options.max_services, options.max_endpoints) = (2, 4);
        let mut kernel = Kernel::load(&options).expect("root may");
        let source = kernel.take_source();
        let mut steering = kernel.steering();
        let endpoints: Vec<_> = (1..=9).map(|n| address(&format!("10.0.0.{n}:80"))).collect();
        let [one, two, three] = [1, 2, 3].map(|n| address(&format!("10.96.0.{n}:80")));
        steering.set_service(one, &endpoints[..2]).expect("there is room");
        let error = steering.set_service(two, &endpoints).expect_err("nine do not fit");
        assert!(matches!(error, MapError::Full { capacity: 4, flag: Some("--max-endpoints"), .. }), "{error}");
        steering.set_service(two, &[]).expect("there is room");
        let error = steering.set_service(three, &[]).expect_err("three do not fit");
        assert!(matches!(error, MapError::Full { capacity: 2, flag: Some("--max-services"), .. }), "{error}");
        let usage = source.usage().expect("readable");
        assert_eq!((usage.services, usage.endpoints, usage.steering_refused), ((2, 2), (2, 4), 2));
        steering.set_service(one, &endpoints[..1]).expect("the new set is written beside the old");
        assert_eq!(source.usage().expect("readable").endpoints, (1, 4));
    });
}
