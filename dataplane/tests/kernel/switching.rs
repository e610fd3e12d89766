//! Telemetry that is attached and detached while connections live.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use abi::Kind;
use dataplane::kernel::{Kernel, Progress};

use crate::{
    sandbox::inside,
    world::{World, is_outbound, options},
};

#[test]
fn what_is_not_asked_for_is_not_loaded() {
    inside("switching::what_is_not_asked_for_is_not_loaded", |cgroup| {
        let mut kernel = Kernel::load(&options(cgroup)).expect("root may");
        assert_eq!(kernel.telemetry(), None);
        assert_eq!(kernel.loaded(), ["connect4", "connect6"]);
        for _ in 0..2 {
            assert_eq!(kernel.attach_telemetry().expect("root may"), Progress::Snapshot);
            assert_eq!(kernel.attach_telemetry().expect("it is attached"), Progress::Snapshot);
            // The latter where the kernel lets no program walk over socket storage.
            let loaded = ["snapshot", "snapshot_tcp"]
                .map(|snapshot| ["connect4", "connect6", "lifecycle", "release", snapshot, "adopt"]);
            assert!(loaded.iter().any(|loaded| kernel.loaded() == loaded), "{:?}", kernel.loaded());
            kernel.detach_telemetry().expect("it is attached");
            kernel.detach_telemetry().expect("detached is as good");
            assert_eq!(kernel.loaded(), ["connect4", "connect6"]);
        }
    });
}

#[test]
fn connections_are_followed_again_after_a_pause() {
    inside("switching::connections_are_followed_again_after_a_pause", |cgroup| {
        let mut world = World::new(cgroup);
        let listener = TcpListener::bind("127.0.0.1:0").expect("free");
        let to = listener.local_addr().expect("bound");
        let connect = || (TcpStream::connect(to).expect("listening"), listener.accept().expect("answered").0);
        let (mut client, mut server) = connect();
        let gone = connect();
        assert_eq!(world.pass().len(), 4);
        world.kernel.detach_telemetry().expect("attached");
        assert!(world.source.snapshot().expect("no error").is_none());
        client.write_all(&[1; 77]).expect("open");
        server.read_exact(&mut [0; 77]).expect("sent");
        drop(gone);
        let unseen = connect();
        world.kernel.attach_telemetry().expect("root may");
        let live = world.pass();
        assert_eq!(live.len(), 2, "{live:#?}");
        assert!(live.iter().any(|r| is_outbound(r) && r.sent == 77));
        let local = client.local_addr().expect("bound");
        drop(client);
        assert_eq!(server.read(&mut [0]).expect("orderly"), 0);
        drop(server);
        assert_eq!(world.end_of(local).sent, 77);
        drop(unseen);
        assert_eq!(world.drain().iter().filter(|r| r.kind == Kind::Failed as u32).count(), 0);
    });
}

#[test]
fn packets_report_their_connection_once_an_interval() {
    inside("switching::packets_report_their_connection_once_an_interval", |cgroup| {
        let mut options = options(cgroup);
        (options.progress, options.report_interval) = (Progress::Packet, Duration::from_millis(100));
        let mut world = World::with(&options);
        assert_eq!(
            world.kernel.loaded(),
            ["connect4", "connect6", "lifecycle", "release", "adopt", "packet_ingress", "packet_egress"]
        );
        let listener = TcpListener::bind("127.0.0.1:0").expect("free");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let (mut server, _) = listener.accept().expect("answered");
        let begin = std::time::Instant::now();
        let mut total = 0;
        while begin.elapsed() < Duration::from_millis(550) {
            client.write_all(&[1; 10]).expect("open");
            server.read_exact(&mut [0; 10]).expect("sent");
            total += 10;
        }
        let mut progress: Vec<_> = world.drain().iter().filter(|r| r.kind == Kind::Progress as u32).copied().collect();
        // Those of two processors come in no order.
        progress.sort_by_key(|record| record.now_ns);
        for outbound in [true, false] {
            let own: Vec<_> = progress.iter().filter(|r| is_outbound(r) == outbound).collect();
            assert!((3..=10).contains(&own.len()), "{} in half a second", own.len());
            assert!(own.iter().all(|r| r.sent <= total && r.received <= total));
            assert!(own.windows(2).all(|two| two[0].sent <= two[1].sent && two[0].now_ns < two[1].now_ns));
        }
        assert!(progress.iter().any(|r| is_outbound(r) && r.sent > 0));
        assert!(world.source.snapshot().expect("no error").is_none());
    });
}
