//! What is pinned, and who takes it over.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use abi::{Kind, maps};
use aya::{maps::Array, programs::links::FdLink, programs::links::PinnedLink};
use dataplane::kernel::{Kernel, Options, Pins};
use telemetry::Memory as _;

use crate::{
    sandbox::inside,
    world::{World, is_outbound, options},
};

fn keeping(cgroup: &Path) -> Options {
    Options { keep: true, ..options(cgroup) }
}

/// Where everything of this cgroup is pinned.
pub(crate) fn pins(cgroup: &Path) -> PathBuf {
    let id = fs::metadata(cgroup).expect("the test's cgroup").ino();
    Path::new("/sys/fs/bpf/meshd").join(id.to_string())
}

/// Makes what was left pinned that of version 0.
pub(crate) fn as_of_another_version(cgroup: &Path) {
    let maps = |version: u32| pins(cgroup).join(format!("maps-{version}"));
    fs::rename(maps(maps::VERSION), maps(0)).expect("one file system");
}

fn link(cgroup: &Path, name: &str) -> u32 {
    let pinned = PinnedLink::from_pin(pins(cgroup).join("links").join(name)).expect("it is pinned");
    FdLink::from(pinned).info().expect("a link").id()
}

#[test]
fn a_second_daemon_takes_over_links_storage_and_unread_records() {
    inside("restart::a_second_daemon_takes_over_links_storage_and_unread_records", |cgroup| {
        let mut world = World::with(&keeping(cgroup));
        let listener = TcpListener::bind("127.0.0.1:0").expect("free");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let (mut server, _) = listener.accept().expect("answered");
        let local = client.local_addr().expect("bound");
        assert_eq!(world.pass().len(), 2);
        let link_ids = || ["connect4", "connect6", "lifecycle", "release"].map(|name| link(cgroup, name));
        let before = link_ids();
        drop(world);

        // Nobody is there, and everything is noted.
        client.write_all(&[1; 55]).expect("open");
        server.read_exact(&mut [0; 55]).expect("sent");
        let short = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        drop(listener.accept().expect("answered"));
        drop(short);

        let mut world = World::with(&options(cgroup));
        assert!(world.kernel.telemetry_left());
        assert_eq!(link_ids(), before, "the same links, with new programs");
        let opened = world.wait_for("an opened connection", |r| r.kind == Kind::Established as u32 && is_outbound(r));
        world.wait_for("its end", |r| r.kind == Kind::Closed as u32 && r.cookie == opened.cookie);
        let shown = world.pass();
        assert_eq!(shown.len(), 2, "open connections are shown anew, whatever passes there were: {shown:#?}");
        assert!(shown.iter().any(|r| is_outbound(r) && r.sent == 55));
        drop(client);
        assert_eq!(server.read(&mut [0]).expect("orderly"), 0);
        drop(server);
        assert_eq!(world.end_of(local).sent, 55);
        drop(world);
        assert!(!pins(cgroup).exists(), "nothing stays");
    });
}

#[test]
fn what_is_steered_goes_on_and_what_is_not_wanted_any_more_can_be_removed() {
    inside("restart::what_is_steered_goes_on_and_what_is_not_wanted_any_more_can_be_removed", |cgroup| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("free");
        let (vip, gone) = ("10.96.0.1:80".parse().expect("an address"), "10.96.0.2:80".parse().expect("an address"));
        let to = listener.local_addr().expect("bound");
        let world = World::with(&keeping(cgroup));
        for address in [vip, gone] {
            world.kernel.steering().set_service(address, &[to, to]).expect("there is room");
        }
        drop(world);
        TcpStream::connect(vip).expect("steered without a daemon");

        // Its maps get another size, too.
        let larger = Options { max_services: 4, max_endpoints: 10, ..options(cgroup) };
        let kernel = Kernel::load(&larger).expect("root may");
        let mut known: Vec<_> = kernel.steering().programmed().into_iter().map(|dialled| dialled.address).collect();
        known.sort();
        assert_eq!(known, [vip, gone]);
        TcpStream::connect(vip).expect("steered by the next one");
        kernel.steering().remove_service(gone).expect("it is there");
        TcpStream::connect(gone).expect_err("no route");
        for n in 0..3 {
            kernel.steering().set_service((std::net::Ipv4Addr::new(10, 96, 1, n), 80).into(), &[to; 2]).expect("room");
        }
        TcpStream::connect(vip).expect("still steered");
    });
}

#[test]
fn one_cgroup_has_one_daemon() {
    inside("restart::one_cgroup_has_one_daemon", |cgroup| {
        let first = Kernel::load(&options(cgroup)).expect("root may");
        let error = Kernel::load(&options(cgroup)).err().expect("there is one").to_string();
        assert!(error.contains("another meshd serves") && error.contains(&cgroup.display().to_string()), "{error}");
        drop(first);
        Kernel::load(&options(cgroup)).expect("it is free again");
    });
}

#[test]
fn a_map_that_is_none_of_ours_is_replaced() {
    inside("restart::a_map_that_is_none_of_ours_is_replaced", |cgroup| {
        drop(World::with(&keeping(cgroup)));
        let path = pins(cgroup).join(format!("maps-{}", maps::VERSION)).join(maps::SERVICES);
        fs::remove_file(&path).expect("it is pinned");
        Array::<_, u32>::create(7, 0).expect("root may").pin(&path).expect("the name is free");
        let link = pins(cgroup).join("links/connect6");
        fs::remove_file(&link).expect("it is pinned");
        Array::<_, u32>::create(7, 0).expect("root may").pin(&link).expect("the name is free");

        let listener = TcpListener::bind("127.0.0.1:0").expect("free");
        let vip = "10.96.0.1:80".parse().expect("an address");
        let mut world = World::with(&options(cgroup));
        world.kernel.steering().set_service(vip, &[listener.local_addr().expect("bound")]).expect("there is room");
        TcpStream::connect(vip).expect("steered");
        world.wait_for("the connection", |r| r.kind == Kind::Established as u32 && is_outbound(r));
    });
}

#[test]
fn saved_counters_are_there_again_and_what_is_none_of_ours_is_not_taken_for_them() {
    inside("restart::saved_counters_are_there_again_and_what_is_none_of_ours_is_not_taken_for_them", |cgroup| {
        let load = || Kernel::load(&keeping(cgroup)).expect("root may");
        let kernel = load();
        let mut counters = kernel.counters().expect("there is memory");
        counters.grow().expect("there is memory");
        counters.segment(0)[7].store(77, Relaxed);
        drop(kernel);
        let counters = load().counters().expect("there is memory");
        assert_eq!((counters.segments(), counters.segment(0)[7].load(Relaxed)), (1, 77));

        let path = pins(cgroup).join("counters/0");
        fs::remove_file(&path).expect("it is pinned");
        Array::<_, u64>::create(7, 0).expect("root may").pin(&path).expect("the name is free");
        assert_eq!(load().counters().expect("there is memory").segments(), 0);
        drop(Kernel::load(&options(cgroup)).expect("root may"));
        assert!(!pins(cgroup).exists());
    });
}

#[test]
fn uninstalling_leaves_nothing_and_disturbs_nobody() {
    inside("restart::uninstalling_leaves_nothing_and_disturbs_nobody", |cgroup| {
        let find = || Pins::find(Path::new("/sys/fs/bpf"), cgroup);
        let running = World::with(&keeping(cgroup));
        find().expect_err("a daemon runs");
        drop(running);
        assert!(pins(cgroup).join("links/lifecycle").exists());
        find()
            .expect("it may be locked")
            .expect("there is something")
            .uninstall(Path::new("/proc"), Duration::ZERO)
            .expect("root may");
        assert!(!pins(cgroup).exists());
        assert!(find().expect("nobody has it").is_none());
        TcpStream::connect("10.96.0.1:80").expect_err("no route");
    });
}

#[test]
fn another_version_is_replaced_and_open_connections_go_on() {
    inside("restart::another_version_is_replaced_and_open_connections_go_on", |cgroup| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("free");
        let to = listener.local_addr().expect("bound");
        let vip = "10.96.0.1:80".parse().expect("an address");
        let mut world = World::with(&keeping(cgroup));
        world.kernel.steering().set_service(vip, &[to]).expect("there is room");
        let mut client = TcpStream::connect(vip).expect("steered");
        let (mut server, _) = listener.accept().expect("answered");
        client.write_all(&[1; 30]).expect("open");
        server.read_exact(&mut [0; 30]).expect("sent");
        let before = world.wait_for("the connection", |r| r.kind == Kind::Established as u32 && is_outbound(r));
        drop(world);
        let maps = |version: &str| pins(cgroup).join(format!("maps-{version}"));
        as_of_another_version(cgroup);
        TcpStream::connect(vip).expect("still steered");
        drop(listener.accept().expect("answered"));

        let mut world = World::with(&options(cgroup));
        assert!(!maps("0").exists() && maps(&maps::VERSION.to_string()).exists());
        TcpStream::connect(vip).expect("still steered, by the other");
        drop(listener.accept().expect("answered"));
        client.write_all(&[1; 12]).expect("open");
        server.read_exact(&mut [0; 12]).expect("sent");
        let shown = world.pass();
        assert_eq!(shown.len(), 2, "{shown:#?}");
        let local = client.local_addr().expect("bound");
        drop(client);
        assert_eq!(server.read(&mut [0]).expect("orderly"), 0);
        drop(server);
        let end = world.end_of(local);
        assert_eq!((end.cookie, end.start_ns, end.sent), (before.cookie, before.start_ns, 42));
        assert_eq!(SocketAddr::from(end.original), vip, "what was dialled is known");
    });
}
