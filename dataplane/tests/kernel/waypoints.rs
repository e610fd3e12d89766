//! Connects that go by a waypoint.

use std::net::{SocketAddr, TcpListener, TcpStream};

use abi::{Kind, record::flags};
use dataplane::kernel::{Dialled, Target};
use rustc_hash::FxHashMap;

use crate::{
    sandbox::inside,
    world::{World, is_outbound, own_cookie},
};

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn dialled(address: SocketAddr, direct: bool) -> Dialled {
    Dialled { address, direct }
}

fn peer(dial: SocketAddr) -> SocketAddr {
    TcpStream::connect(dial).expect("steered").peer_addr().expect("connected")
}

/// Waits for the record of an opened connection and returns its flags.
fn opening(world: &mut World, dialled: SocketAddr, reached: SocketAddr) -> u32 {
    let opened = world.wait_for("the opening", |r| {
        let ends = (SocketAddr::from(r.original), SocketAddr::from(r.remote));
        r.kind == Kind::Established as u32 && is_outbound(r) && ends == (dialled, reached)
    });
    opened.flags
}

#[test]
fn what_is_behind_a_waypoint_goes_there_and_its_own_namespace_goes_past_it() {
    inside("waypoints::what_is_behind_a_waypoint_goes_there_and_its_own_namespace_goes_past_it", |cgroup| {
        let mut world = World::new(cgroup);
        let (mut steering, waypoints) = (world.kernel.steering(), world.kernel.waypoints());
        for (vip, pod, bind) in
            [("10.96.0.10:80", "127.0.0.66:7", "127.0.0.1:0"), ("[fd96::10]:80", "[fd96::66]:7", "[::1]:0")]
        {
            let [way, server] = [(); 2].map(|()| TcpListener::bind(bind).expect("free"));
            let [way_at, server_at] = [&way, &server].map(|l| l.local_addr().expect("bound"));
            let (vip, pod) = (address(vip), address(pod));
            let any_port = SocketAddr::new(pod.ip(), 0);
            let through = Target { endpoints: vec![(way_at, 1)], waypoint: 7 };
            for dialled in [vip, any_port] {
                steering.set(dialled.into(), &through).expect("there is room");
            }
            steering.set(dialled(vip, true), &Target::equal(&[server_at])).expect("there is room");
            for dial in [vip, pod] {
                assert_eq!(peer(dial), way_at);
                assert_eq!(opening(&mut world, dial, way_at) & flags::WAYPOINT, flags::WAYPOINT);
            }

            // An entry for a port is before the one for any.
            steering.set(pod.into(), &Target::equal(&[server_at])).expect("there is room");
            assert_eq!(peer(pod), server_at);
            steering.remove(pod.into()).expect("it is there");
            assert_eq!(peer(pod), way_at);

            // This namespace is the waypoint's, but not another's.
            waypoints.set_addresses(&FxHashMap::from_iter([(7, vec![way_at.ip()])])).expect("there is room");
            waypoints.set_namespaces([(own_cookie(), vec![way_at.ip()])].into_iter()).expect("there is room");
            assert_eq!(peer(vip), server_at);
            assert_eq!(opening(&mut world, vip, server_at) & flags::WAYPOINT, 0);
            assert!(TcpStream::connect(pod).is_err(), "dialled as it is, where nobody is");
            steering.set(vip.into(), &Target { waypoint: 8, ..through.clone() }).expect("there is room");
            assert_eq!(peer(vip), way_at);
            waypoints.set_addresses(&FxHashMap::default()).expect("there is room");
            steering.remove(any_port.into()).expect("it is there");
            assert!(TcpStream::connect(pod).is_err());
        }
    });
}

#[test]
fn a_waypoint_that_nobody_can_reach_refuses() {
    inside("waypoints::a_waypoint_that_nobody_can_reach_refuses", |cgroup| {
        let mut world = World::new(cgroup);
        let vip = address("10.96.0.10:80");
        let nowhere = Target { endpoints: vec![], waypoint: 7 };
        world.kernel.steering().set(vip.into(), &nowhere).expect("there is room");
        let error = TcpStream::connect(vip).expect_err("no endpoint");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
        assert_eq!(world.failure(vip).flags & flags::NO_HEALTHY_ENDPOINT, flags::NO_HEALTHY_ENDPOINT);
    });
}
