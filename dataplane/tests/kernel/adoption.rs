//! Connections that are older than the programs, or than their namespace's enrolment.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    path::Path,
    sync::mpsc::sync_channel,
    time::{Duration, Instant},
};

use abi::{Kind, Record, TcpState, maps::counter, record::flags};
use dataplane::kernel::Options;
use socket2::{Domain, Socket, Type};

use crate::{
    sandbox::{DEADLINE, inside, ip},
    world::{World, is_end, is_outbound, options},
};

/// Both ends of a connection, the one that opened it first.
type Ends = (TcpStream, TcpStream);

fn open(listener: &TcpListener) -> Ends {
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
    let (server, _) = listener.accept().expect("answered");
    (client, server)
}

fn listen(address: &str) -> TcpListener {
    TcpListener::bind(address).expect("free")
}

/// Sends, and reads at the other end.
fn send(mut from: &TcpStream, mut to: &TcpStream, bytes: usize) {
    from.write_all(&vec![7; bytes]).expect("open");
    to.read_exact(&mut vec![0; bytes]).expect("sent");
}

/// Waits until a socket is in a state.
fn wait_for_state(socket: &TcpStream, state: TcpState) {
    wait_for(socket, |listed| listed.state == state as u8);
}

/// Waits until all that a socket has sent is acknowledged.
fn wait_for_acknowledgement(socket: &TcpStream) {
    wait_for(socket, |listed| listed.unacknowledged == 0);
}

fn wait_for(socket: &TcpStream, fits: impl Fn(&Listed) -> bool) {
    let begin = Instant::now();
    while !listed(socket).is_some_and(|listed| fits(&listed)) {
        assert!(begin.elapsed() < DEADLINE, "{socket:?} is {:?}", listed(socket));
        std::thread::yield_now();
    }
}

/// What the kernel lists of a socket of this namespace.
#[derive(Debug)]
struct Listed {
    state: u8,
    unacknowledged: u32,
}

/// Finds a socket by its ports.
fn listed(socket: &TcpStream) -> Option<Listed> {
    let (local, remote) = addresses(socket);
    let text = ["tcp", "tcp6"].map(|name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).expect("proc"));
    text.iter().flat_map(|text| text.lines()).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, mine, other, state, queues, ..] = *fields else { return None };
        let is = |field: &str, port: u16| field.ends_with(&format!(":{port:04X}"));
        (is(mine, local.port()) && is(other, remote.port())).then(|| Listed {
            state: u8::from_str_radix(state, 16).expect("hexadecimal"),
            unacknowledged: u32::from_str_radix(queues.split(':').next().expect("a first part"), 16)
                .expect("hexadecimal"),
        })
    })
}

/// Searches this thread's namespace.
fn adopt(world: &World) {
    let namespace = File::open("/proc/thread-self/ns/net").expect("proc is mounted");
    world.kernel.adopter().adopt(namespace.as_fd()).unwrap_or_else(|error| panic!("{error:#}"));
}

/// The records of a pass by the socket's own address and its peer's.
fn shown(world: &mut World) -> HashMap<(SocketAddr, SocketAddr), Record> {
    world.pass().into_iter().map(|record| ((record.local.into(), record.remote.into()), record)).collect()
}

fn addresses(socket: &TcpStream) -> (SocketAddr, SocketAddr) {
    (socket.local_addr().expect("bound"), socket.peer_addr().expect("connected"))
}

#[test]
fn every_open_connection_is_adopted_with_its_direction_and_nothing_else_is() {
    inside("adoption::every_open_connection_is_adopted_with_its_direction_and_nothing_else_is", |cgroup| {
        let (v4, v6) = (listen("127.0.0.1:0"), listen("[::1]:0"));
        let (idle, idle6, busy) = (open(&v4), open(&v6), open(&v4));
        send(&busy.0, &busy.1, 1000);
        (&busy.1).write_all(&[1; 300]).expect("open");
        // Who closed has sent its FIN, the other end has not.
        let half = open(&v6);
        send(&half.0, &half.1, 10);
        half.0.shutdown(Shutdown::Write).expect("open");
        wait_for_state(&half.0, TcpState::FinWait2);
        // A FIN that waits behind data for which the peer has no room.
        let stuck = open(&v4);
        stuck.0.set_nonblocking(true).expect("a socket");
        while (&stuck.0).write(&[1; 1 << 16]).is_ok() {}
        stuck.0.shutdown(Shutdown::Write).expect("open");
        // The other end closed first; and what is left of a connection in TIME_WAIT.
        let over = open(&v4);
        drop(over.0);
        wait_for_state(&over.1, TcpState::CloseWait);
        drop(over.1);
        let waiting = TcpStream::connect(v4.local_addr().expect("bound")).expect("listening");

        let mut world = World::new(cgroup);
        assert_eq!(world.pass(), [], "nobody has watched them");
        adopt(&world);
        let outbound = [&idle.0, &idle6.0, &busy.0, &half.0, &stuck.0, &waiting].map(addresses);
        let inbound = [&idle.1, &idle6.1, &busy.1, &half.1, &stuck.1].map(addresses);
        let unaccepted = (addresses(&waiting).1, addresses(&waiting).0);
        let records = shown(&mut world);
        assert_eq!(records.len(), 12, "{records:#?}");
        for (ends, opened_here) in outbound
            .iter()
            .map(|ends| (ends, true))
            .chain(inbound.iter().chain([&unaccepted]).map(|ends| (ends, false)))
        {
            let record = records.get(ends).unwrap_or_else(|| panic!("{ends:?} is not adopted: {records:#?}"));
            assert_eq!(is_outbound(record), opened_here, "{ends:?}");
            assert_ne!(record.flags & flags::ADOPTED, 0, "{ends:?}");
            assert_eq!((record.sent, record.received), (0, 0), "{ends:?}");
        }
        // Another look finds nobody new.
        adopt(&world);
        assert_eq!((world.counter(counter::ADOPTED), shown(&mut world).len()), (12, 12));
        assert_eq!(world.counted(), [0, 0, 0], "they are not opened");
    });
}

#[test]
fn an_adopted_connection_counts_from_its_adoption_on() {
    inside("adoption::an_adopted_connection_counts_from_its_adoption_on", |cgroup| {
        from_adoption_on(options(cgroup), 0);
    });
}

#[test]
fn with_history_an_adopted_connection_counts_with_what_it_had_moved() {
    inside("adoption::with_history_an_adopted_connection_counts_with_what_it_had_moved", |cgroup| {
        from_adoption_on(Options { adopt_history: true, ..options(cgroup) }, 1);
    });
}

/// Connections of both families that end in several ways after they were adopted. `history` times what was before counts.
fn from_adoption_on(options: Options, history: u64) {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = listen(address);
        let (orderly, reset, half) = (open(&listener), open(&listener), open(&listener));
        for (client, server) in [&orderly, &reset, &half] {
            send(client, server, 5000);
            send(server, client, 70);
        }
        half.0.shutdown(Shutdown::Write).expect("open");
        wait_for_state(&half.0, TcpState::FinWait2);

        let before = Instant::now();
        let mut world = World::with(&options);
        adopt(&world);
        send(&orderly.0, &orderly.1, 123);
        send(&orderly.1, &orderly.0, 45);
        send(&reset.0, &reset.1, 6);
        send(&half.1, &half.0, 9);
        // A reset leaves what was not acknowledged uncounted.
        wait_for_acknowledgement(&reset.0);
        let ends = [&orderly, &reset, &half].map(|ends| ends.0.local_addr().expect("bound"));
        socket2::SockRef::from(&reset.0).set_linger(Some(Duration::ZERO)).expect("open");
        drop((orderly, reset, half));
        for (local, sent, received, is_reset) in
            [(ends[0], 123, 45, false), (ends[1], 6, 0, true), (ends[2], 0, 9, false)]
        {
            let (sent, received) = (sent + history * 5000, received + history * 70);
            let client = world.end_of(local);
            assert_eq!((client.sent, client.received), (sent, received), "{local}");
            let server = world.wait_for("the other end", |r| is_end(r) && SocketAddr::from(r.remote) == local);
            assert_eq!((server.sent, server.received), (received, sent), "{local}");
            assert!(is_outbound(&client) && !is_outbound(&server));
            for record in [&client, &server] {
                assert_ne!(record.flags & flags::ADOPTED, 0);
                assert_eq!(record.flags & flags::RESET != 0, is_reset, "{local}");
                // It begins with its adoption.
                let age = Duration::from_nanos(record.now_ns - record.start_ns);
                assert!(age < before.elapsed(), "{age:?}");
            }
        }
        assert_eq!((world.counted(), world.counter(counter::ADOPTED)), ([0, 6, 0], 6));
    }
}

#[test]
fn connections_that_close_while_they_are_adopted_end_once() {
    inside("adoption::connections_that_close_while_they_are_adopted_end_once", |cgroup| {
        let listeners: Vec<_> = (0..4).map(|_| listen("127.0.0.1:0")).collect();
        let mut adopted = 0;
        // From a search before all closes to one after them.
        for round in 0..12_u32 {
            let mut ends: Vec<_> = (0..400).map(|n| open(&listeners[n % 4])).collect();
            let mut world = World::with(&Options { ring_slots: Some(2048), ..options(cgroup) });
            let (begun, closing) = sync_channel(1);
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    for n in 0.. {
                        if n == 40 * round {
                            begun.send(()).expect("someone waits");
                        }
                        if ends.pop().is_none() {
                            return;
                        }
                    }
                });
                closing.recv().ok();
                adopt(&world);
            });
            let mine = world.counter(counter::ADOPTED);
            world.wait_for_all("the adopted ones", mine as usize, |_| true);
            assert!(world.seen.iter().all(|r| is_end(r) && r.flags & flags::ADOPTED != 0), "{:?}", world.seen);
            let mut cookies: Vec<_> = world.seen.iter().map(|r| r.cookie).collect();
            cookies.sort_unstable();
            cookies.dedup();
            assert_eq!((cookies.len() as u64, world.seen.len() as u64), (mine, mine));
            assert_eq!((world.counted(), world.pass()), ([0, mine, 0], vec![]));
            adopted += mine;
        }
        assert!(adopted > 400, "only {adopted} were adopted");
    });
}

#[test]
fn a_connect_on_its_way_is_watched_to_its_end_and_a_signal_is_not() {
    inside("adoption::a_connect_on_its_way_is_watched_to_its_end_and_a_signal_is_not", |cgroup| {
        // Nobody answers there, and no one finds out.
        ip("link add quiet type veth peer name nobody");
        ip("link set quiet up");
        ip("link set nobody up");
        ip("addr add 10.98.0.1/16 dev quiet");
        ip("neigh add 10.98.0.7 lladdr 02:00:00:00:00:07 dev quiet nud permanent");
        ip("neigh add 0.0.0.2 lladdr 02:00:00:00:00:02 dev quiet nud permanent");
        ip("route add default dev quiet");
        let connecting = |to: (Ipv4Addr, u16)| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("there are sockets");
            socket.set_nonblocking(true).expect("a socket");
            socket.connect(&SocketAddr::from(to).into()).expect_err("nobody answers at once");
            socket
        };
        let listener = listen("127.0.0.1:0");
        let quiet = (Ipv4Addr::new(10, 98, 0, 7), 80);
        let (early, signal) = (connecting(quiet), connecting((Ipv4Addr::new(0, 0, 0, 2), 929)));
        let mut world = World::new(cgroup);
        adopt(&world);
        let (late, watched) = (connecting(quiet), open(&listener));
        adopt(&world);
        assert_eq!(world.counter(counter::ADOPTED), 0);
        drop((early, late, signal, watched));
        world.wait_for_counts([2, 2, 2]);
        let failed = world.wait_for_all("both connects", 2, |r| r.kind == Kind::Failed as u32);
        assert!(failed.iter().all(|r| SocketAddr::from(r.remote) == SocketAddr::from(quiet)), "{failed:#?}");
    });
}

#[test]
fn a_connection_from_outside_the_cgroup_is_in_the_passes_until_it_ends() {
    inside("adoption::a_connection_from_outside_the_cgroup_is_in_the_passes_until_it_ends", |cgroup| {
        let child = cgroup.join("inner");
        std::fs::create_dir(&child).expect("root may make a cgroup");
        seen_from(&child);
        std::fs::remove_dir(&child).expect("it is empty");
    });
}

/// Watches a cgroup that this process does not run in.
fn seen_from(cgroup: &Path) {
    let ends = open(&listen("127.0.0.1:0"));
    let mut world = World::new(cgroup);
    adopt(&world);
    send(&ends.0, &ends.1, 77);
    let records = shown(&mut world);
    assert_eq!((records[&addresses(&ends.0)].sent, records.len()), (77, 2));
    drop(ends);
    let begin = Instant::now();
    while !world.pass().is_empty() {
        assert!(begin.elapsed() < DEADLINE);
    }
    assert_eq!(world.counted(), [0, 0, 0], "no program is told of its end");
}
