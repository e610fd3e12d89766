//! How connects are spread over endpoints.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use dataplane::kernel::{Kernel, MapError, Options, Target};
use socket2::SockRef;

use crate::{
    sandbox::inside,
    world::{options, own_cookie},
};

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn managed(options: &Options) -> Kernel {
    let kernel = Kernel::load(options).expect("root may");
    kernel.manager().enrol(own_cookie()).expect("there is room");
    kernel
}

#[test]
fn endpoints_are_chosen_as_often_as_their_weights_say() {
    inside("balance::endpoints_are_chosen_as_often_as_their_weights_say", |cgroup| {
        const PICKS: u32 = 12_000;
        let kernel = managed(&options(cgroup));
        for (vip, bind) in [("10.96.0.10:80", "127.0.0.1:0"), ("[fd96::10]:80", "[::1]:0")] {
            let listeners: Vec<_> = (0..5).map(|_| TcpListener::bind(bind).expect("free")).collect();
            let at: HashMap<_, _> = listeners.iter().map(|l| (l.local_addr().expect("bound"), l)).collect();
            for weights in [[1; 5], [1, 2, 3, 4, 10], [1000, 1, 999, 500, 7]] {
                let endpoints: Vec<_> = at.keys().copied().zip(weights).collect();
                let target = Target { endpoints: endpoints.clone(), waypoint: 0 };
                kernel.steering().set(address(vip).into(), &target).expect("there is room");
                let mut picked: HashMap<SocketAddr, u32> = HashMap::new();
                for _ in 0..PICKS {
                    let client = TcpStream::connect(address(vip)).expect("steered");
                    let peer = client.peer_addr().expect("connected");
                    *picked.entry(peer).or_default() += 1;
                    let server = at[&peer].accept().expect("it is there");
                    SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("open");
                    drop((client, server));
                }
                let total = weights.iter().sum::<u32>();
                let part = |(endpoint, weight): &(SocketAddr, u32)| {
                    let wanted = f64::from(PICKS * weight) / f64::from(total);
                    let off = f64::from(picked.get(endpoint).copied().unwrap_or_default()) - wanted;
                    off * off / wanted
                };
                // With four degrees of freedom a fair choice is above this once in 10^9 runs.
                let chi_squared: f64 = endpoints.iter().map(part).sum();
                assert!(chi_squared < 50.0, "{chi_squared} for {weights:?}: {picked:?}");
            }
        }
    });
}

#[test]
fn a_service_that_finds_no_room_for_what_it_has_now_is_not_steered() {
    inside("balance::a_service_that_finds_no_room_for_what_it_has_now_is_not_steered", |cgroup| {
        let kernel = managed(&Options { max_endpoints: 4, ..options(cgroup) });
        let mut steering = kernel.steering();
        let listener = TcpListener::bind("127.0.0.1:0").expect("free");
        let (vip, to) = (address("10.96.0.10:80"), listener.local_addr().expect("bound"));
        steering.set_service(vip, &[to]).expect("there is room");
        TcpStream::connect(vip).expect("steered");
        let error = steering.set_service(vip, &[to; 5]).expect_err("five do not fit");
        assert!(matches!(error, MapError::Full { capacity: 4, .. }), "{error}");
        assert!(!steering.has(vip.into()), "it must not go to endpoints that it has no more");
        TcpStream::connect(vip).expect_err("no route leads there");
        // Four fit only once the one from before is gone.
        steering.set_service(vip, &[to; 3]).expect("there is room");
        steering.set_service(vip, &[to; 4]).expect("the old set makes room");
        TcpStream::connect(vip).expect("steered");
    });
}

#[test]
fn udp_is_left_alone() {
    inside("balance::udp_is_left_alone", |cgroup| {
        let kernel = managed(&options(cgroup));
        for (vip, local) in [("127.0.0.99:80", "127.0.0.1:0"), ("[::1]:81", "[::1]:0")] {
            let (vip, listener) = (address(vip), TcpListener::bind(local).expect("free"));
            let to = listener.local_addr().expect("bound");
            kernel.steering().set_service(vip, &[to]).expect("there is room");
            let socket = UdpSocket::bind(local).expect("free");
            socket.connect(vip).expect("UDP needs no answer");
            assert_eq!(socket.peer_addr().expect("connected"), vip);
            assert_eq!(TcpStream::connect(vip).expect("steered").peer_addr().expect("connected"), to);
        }
    });
}
