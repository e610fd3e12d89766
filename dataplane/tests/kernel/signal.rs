//! The CNI signal.

use std::{net::TcpListener, os::unix::fs::symlink};

use abi::Kind;
use dataplane::kernel::{Enrolled, Kernel};
use socket2::{Domain, Socket, Type};

use crate::{
    sandbox::{inside, ip},
    world::{World, options, own_cookie},
};

/// Signals as a CNI plugin does: the connect succeeds, is under way, or there is no route for it.
fn signal(to: &str) {
    let to: std::net::SocketAddr = to.parse().expect("an address");
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    socket.set_nonblocking(true).expect("a socket");
    drop(socket.connect(&to.into()));
}

#[test]
fn a_signal_enrols_and_takes_out_and_is_not_observed() {
    inside("signal::a_signal_enrols_and_takes_out_and_is_not_observed", |cgroup| {
        let mut world = World::new(cgroup);
        let mut manager = world.kernel.manager();
        let netns = own_cookie();
        manager.remove(netns).expect("it is there");
        // A way for the signal to go.
        ip("link add v0 type veth peer name v1");
        ip("link set v0 up");
        ip("addr add 10.9.0.1/24 dev v0");
        ip("route add default dev v0");
        for (enrol, leave) in [("0.0.0.2:929", "0.0.0.2:930"), ("[::2]:929", "[::2]:930")] {
            signal(enrol);
            signal(enrol);
            assert_eq!(manager.list().expect("readable"), [Enrolled { netns, mesh: false, signal: true }]);
            manager.enrol(netns).expect("there is room");
            signal(leave);
            assert_eq!(manager.list().expect("readable"), [Enrolled { netns, mesh: true, signal: false }]);
            signal(enrol);
            manager.remove(netns).expect("it is there");
            assert_eq!(manager.list().expect("readable"), [Enrolled { netns, mesh: false, signal: true }]);
            signal(leave);
            signal(leave);
            assert_eq!(manager.list().expect("readable"), []);
        }
        signal("0.0.0.2:929");
        assert_eq!(world.drain(), [], "signals are not observed");
        let listener = TcpListener::bind("127.0.0.1:0").expect("free");
        let _client = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let opened = world.wait_for_all("what a signal enrolled", 2, |_| true);
        assert_eq!(opened.iter().map(|r| r.kind).collect::<Vec<_>>(), [Kind::Established as u32; 2]);
    });
}

#[test]
fn the_hosts_namespace_is_deaf_and_not_everyone() {
    inside("signal::the_hosts_namespace_is_deaf_and_not_everyone", |cgroup| {
        // A proc whose first process is this thread, so that its namespace is the host's.
        let proc = tempfile::tempdir().expect("there is a place");
        std::fs::create_dir_all(proc.path().join("1/ns")).expect("it is ours");
        // SAFETY: the call touches no memory.
        let thread = unsafe { libc::gettid() };
        symlink(format!("/proc/{}/task/{thread}/ns/net", std::process::id()), proc.path().join("1/ns/net"))
            .expect("it is ours");
        let mut options = options(cgroup);
        options.proc = proc.path().to_owned();
        options.manage_all = true;
        let mut kernel = Kernel::load(&options).expect("root may");
        kernel.attach_telemetry().expect("root may");
        let source = kernel.take_source();
        let mut world = World { kernel, source, seen: Vec::new() };
        signal("0.0.0.2:929");
        assert_eq!(world.kernel.manager().list().expect("readable"), []);
        let connect = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("free");
            std::net::TcpStream::connect(listener.local_addr().expect("bound")).map(drop).expect("listening");
        };
        connect();
        std::thread::spawn(move || {
            crate::sandbox::new_namespace();
            connect();
        })
        .join()
        .expect("it connects");
        let opened = world.wait_for_all("everyone else", 2, |r| r.kind == Kind::Established as u32);
        assert_eq!(opened.len(), 2, "{opened:#?}");
        let own = own_cookie();
        assert!(world.seen.iter().all(|r| r.netns != own), "the host's own: {:#?}", world.seen);
    });
}
