//! Passes over live connections.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use abi::Record;
use dataplane::kernel::Options;

use crate::{
    sandbox::{DEADLINE, inside, new_pod},
    world::{World, is_outbound, options, own_cookie},
};

#[test]
fn every_live_connection_is_in_every_pass_while_others_come_and_go() {
    inside("snapshot::every_live_connection_is_in_every_pass_while_others_come_and_go", |cgroup| {
        every_live_connection_is_in_every_pass(&options(cgroup));
    });
}

#[test]
fn where_namespaces_are_walked_over_every_live_connection_is_in_every_pass_too() {
    inside("snapshot::where_namespaces_are_walked_over_every_live_connection_is_in_every_pass_too", |cgroup| {
        every_live_connection_is_in_every_pass(&Options { walk_namespaces: true, ..options(cgroup) });
    });
}

fn every_live_connection_is_in_every_pass(options: &Options) {
    // A ring that a walk fills several times.
    let mut world = World::with(&Options { ring_slots: Some(512), ..options.clone() });
    let listener = TcpListener::bind("127.0.0.1:0").expect("free");
    let to = listener.local_addr().expect("bound");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Ends the churn when an assertion fails, too.
        let _stopped = Stop(&stop);
        let churn = TcpListener::bind("127.0.0.1:0").expect("free");
        let (stop, churned) = (&stop, churn.local_addr().expect("bound"));
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let streams: Vec<_> = (0..50).map(|_| TcpStream::connect(churned).expect("listening")).collect();
                for stream in streams {
                    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("open");
                }
                while churn.set_nonblocking(true).is_ok() && churn.accept().is_ok() {}
            }
        });
        let kept: Vec<_> = (0..600)
            .map(|_| {
                let client = TcpStream::connect(to).expect("listening");
                (client, listener.accept().expect("answered"))
            })
            .collect();
        for _ in 0..40 {
            // A port may be used towards several peers.
            let mut shown: HashMap<(SocketAddr, SocketAddr), u32> = HashMap::new();
            for record in world.pass() {
                *shown.entry((record.local.into(), record.remote.into())).or_default() += 1;
            }
            for (client, (_, from)) in &kept {
                assert_eq!(client.local_addr().expect("bound"), *from);
                assert_eq!((shown.get(&(*from, to)), shown.get(&(to, *from))), (Some(&1), Some(&1)), "{from}");
            }
            world.drain();
            world.seen.clear();
        }
    });
}

/// A namespace outlives its last process by its last connections.
#[test]
fn a_namespace_without_a_process_is_walked_over_until_its_last_connection_has_ended() {
    inside("snapshot::a_namespace_without_a_process_is_walked_over_until_its_last_connection_has_ended", |cgroup| {
        let mut world = World::with(&Options { walk_namespaces: true, ..options(cgroup) });
        let mut manager = world.kernel.manager();
        let (mut process, namespace, ends) = std::thread::spawn(move || {
            let process = new_pod();
            manager.enrol(own_cookie()).expect("there is room");
            let listener = TcpListener::bind("127.0.0.1:0").expect("free");
            let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
            let server = listener.accept().expect("answered").0;
            (process, std::fs::read_link("/proc/thread-self/ns/net").expect("proc is mounted"), (client, server))
        })
        .join()
        .expect("it connects");
        let is_held = || {
            let files = std::fs::read_dir("/proc/self/fd").expect("proc is mounted");
            files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok()).any(|to| to == namespace)
        };
        assert_eq!((world.pass().len(), is_held()), (2, true));
        process.kill().expect("it runs");
        process.wait().expect("it was killed");
        for _ in 0..2 {
            assert_eq!((world.pass().len(), is_held()), (2, true));
        }
        drop(ends);
        let begin = Instant::now();
        while !world.pass().is_empty() || is_held() {
            assert!(begin.elapsed() < DEADLINE, "it is held: {}", is_held());
        }
    });
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_closed_connection_is_in_no_pass() {
    inside("snapshot::a_closed_connection_is_in_no_pass", |cgroup| {
        let mut world = World::new(cgroup);
        let listener = TcpListener::bind("127.0.0.1:0").expect("free");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let (server, _) = listener.accept().expect("answered");
        assert_eq!(world.pass().len(), 2);
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("open");
        drop(client);
        // The other end is closed too, though its file is still open.
        world.wait_for("the accepter's end", |r| crate::world::is_end(r) && !is_outbound(r));
        assert_eq!(world.pass(), []);
        drop(server);
    });
}

#[test]
fn of_a_connection_with_nothing_new_only_the_cookie_is_told() {
    inside("snapshot::of_a_connection_with_nothing_new_only_the_cookie_is_told", |cgroup| {
        let mut world = World::new(cgroup);
        let listener = TcpListener::bind("127.0.0.1:0").expect("free");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let (mut server, _) = listener.accept().expect("answered");
        let sorted = |mut cookies: Vec<u64>| {
            cookies.sort_unstable();
            cookies
        };
        let cookies = |shown: &[Record]| sorted(shown.iter().map(|record| record.cookie).collect());
        let both = cookies(&world.pass());
        assert_eq!(both.len(), 2);
        // What the first pass may have seen being changed the second tells.
        let (shown, quiet) = world.pass_over_what_is_new();
        assert_eq!((cookies(&shown), quiet), (both.clone(), vec![]));
        let (shown, quiet) = world.pass_over_what_is_new();
        assert_eq!((shown, sorted(quiet)), (vec![], both.clone()));

        client.write_all(b"new").expect("open");
        server.read_exact(&mut [0; 3]).expect("open");
        let (mut sent, mut received, begin) = (0, 0, Instant::now());
        loop {
            assert!(begin.elapsed() < DEADLINE, "{sent} bytes sent and {received} received are told");
            let (shown, quiet) = world.pass_over_what_is_new();
            sent = shown.iter().map(|record| record.sent).fold(sent, u64::max);
            received = shown.iter().map(|record| record.received).fold(received, u64::max);
            // (They are quiet too while the answer of the peer's TCP waits.)
            if sorted(quiet) == both && (sent, received) == (3, 3) {
                break;
            }
        }
        assert_eq!(cookies(&world.pass()), both);
    });
}
