//! What waypoints are told of what was dialled.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::Duration,
};

use dataplane::kernel::{Kernel, Metadata, Options, Target};

use socket2::SockRef;
use tests::EventStream;

use crate::{
    sandbox::inside,
    world::{World, is_end, is_outbound, options, own_cookie},
};

const VIPS: [(&str, &str); 2] = [("10.96.0.10:80", "127.0.0.1:0"), ("[fd96::10]:80", "[::1]:0")];

fn telling(cgroup: &Path, waypoint_metadata: Metadata) -> Options {
    Options { waypoint_metadata, ..options(cgroup) }
}

/// A connection to a service behind a waypoint, and what the waypoint reads: as many bytes of header, then the request.
struct Dialled {
    vip: SocketAddr,
    client: EventStream,
    waypoint: EventStream,
}

impl Dialled {
    fn new(kernel: &Kernel, vip: &str, bind: &str) -> Self {
        let vip = vip.parse().expect("an address");
        let listener = TcpListener::bind(bind).expect("free");
        let at = listener.local_addr().expect("bound");
        let through = Target { endpoints: vec![(at, 1)], waypoint: 7 };
        kernel.steering().set(SocketAddr::into(vip), &through).expect("there is room");
        let client = TcpStream::connect(vip).expect("steered");
        let (waypoint, _) = listener.accept().expect("answered");
        Self { vip, client: nonblocking(client), waypoint: nonblocking(waypoint) }
    }

    /// Sends two messages; returns what stands before the first, after it was compared that nothing else was added.
    fn header(&mut self, length: usize) -> Vec<u8> {
        self.client.write_all(b"first").expect("open");
        let mut header = vec![0; length];
        self.waypoint.read_exact(&mut header).expect("it is told");
        let mut message = [0; 11];
        self.client.write_all(b"second").expect("open");
        self.waypoint.read_exact(&mut message).expect("it comes");
        assert_eq!(&message, b"firstsecond");
        header
    }
}

fn nonblocking(stream: TcpStream) -> EventStream {
    stream.try_into().expect("a socket")
}

/// Octets of an address as they cross the wire.
fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[test]
fn by_proxy_protocol_it_learns_who_connects_and_what_was_dialled() {
    inside("metadata::by_proxy_protocol_it_learns_who_connects_and_what_was_dialled", |cgroup| {
        let mut world = World::with(&telling(cgroup, Metadata::Proxy));
        for (vip, bind) in VIPS {
            let mut dialled = Dialled::new(&world.kernel, vip, bind);
            let client = dialled.client.local_addr().expect("bound");
            let size = 2 * octets(client.ip()).len() + 4;
            let header = dialled.header(16 + size);
            // Section 2.2 of the protocol: signature, version and command, family and transport, length, addresses, ports.
            let family = if client.is_ipv4() { 0x11 } else { 0x21 };
            let expected = [
                b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec(),
                vec![family, 0, size as u8],
                octets(client.ip()),
                octets(dialled.vip.ip()),
                client.port().to_be_bytes().to_vec(),
                80_u16.to_be_bytes().to_vec(),
            ];
            assert_eq!(header, expected.concat());
            // It is no payload of who sent it without knowing.
            dialled.waypoint.write_all(b"answer").expect("open");
            dialled.client.read_exact(&mut [0; 6]).expect("it comes");
            drop(dialled);
            let end = world.wait_for("the opener's end", |record| {
                is_end(record) && is_outbound(record) && SocketAddr::from(record.local) == client
            });
            assert_eq!((end.sent, end.received), (11, 6));
        }
    });
}

#[test]
fn in_kmeshs_form_it_learns_what_was_dialled() {
    inside("metadata::in_kmeshs_form_it_learns_what_was_dialled", |cgroup| {
        let world = World::with(&telling(cgroup, Metadata::Tlv));
        for (vip, bind) in VIPS {
            let mut dialled = Dialled::new(&world.kernel, vip, bind);
            let address = octets(dialled.vip.ip());
            let header = dialled.header(5 + address.len() + 2 + 5);
            let length = (address.len() as u32 + 2).to_be_bytes();
            let expected = [&[1][..], &length, &address, &80_u16.to_be_bytes(), &[0xfe, 0, 0, 0, 0]];
            assert_eq!(header, expected.concat());
        }
    });
}

/// Waypoints need it whether or not anybody observes connections.
#[test]
fn without_telemetry_it_is_told_too() {
    inside("metadata::without_telemetry_it_is_told_too", |cgroup| {
        let kernel = Kernel::load(&telling(cgroup, Metadata::Tlv)).expect("root may");
        kernel.manager().enrol(own_cookie()).expect("there is room");
        for (vip, bind) in VIPS {
            let mut dialled = Dialled::new(&kernel, vip, bind);
            let size = octets(dialled.vip.ip()).len();
            assert_eq!(dialled.header(12 + size)[5..5 + size], octets(dialled.vip.ip()));
        }
    });
}

#[test]
fn nobody_else_is_told_anything() {
    inside("metadata::nobody_else_is_told_anything", |cgroup| {
        let world = World::with(&telling(cgroup, Metadata::Proxy));
        let listener = TcpListener::bind("127.0.0.1:0").expect("free");
        let at = listener.local_addr().expect("bound");
        let vip: SocketAddr = "10.96.0.11:80".parse().expect("an address");
        world.kernel.steering().set(vip.into(), &Target::equal(&[at])).expect("there is room");
        for dial in [vip, at] {
            let mut client = TcpStream::connect(dial).expect("listening");
            let (mut server, _) = listener.accept().expect("answered");
            client.write_all(b"plain").expect("open");
            drop(client);
            let mut got = Vec::new();
            server.read_to_end(&mut got).expect("an orderly end");
            assert_eq!(got, b"plain");
        }
        // Nor a waypoint that is to be told nothing.
        drop(world);
        let world = World::with(&options(cgroup));
        let mut dialled = Dialled::new(&world.kernel, VIPS[0].0, VIPS[0].1);
        assert!(dialled.header(0).is_empty());
    });
}

/// A program that waits in a read is answered with data, the peer's close or an error, whatever else wakes it.
#[test]
fn a_client_that_waits_in_its_reads_is_as_any_other_once_it_has_told() {
    inside("metadata::a_client_that_waits_in_its_reads_is_as_any_other_once_it_has_told", |cgroup| {
        const AMOUNT: usize = 16 << 20;
        let world = World::with(&telling(cgroup, Metadata::Proxy));
        for (vip, bind) in VIPS {
            let mut dialled = Dialled::new(&world.kernel, vip, bind);
            let header = 16 + 2 * octets(dialled.vip.ip()).len() + 4;
            dialled.header(header);
            let client = dialled.client.try_clone().expect("open");
            client.set_nonblocking(false).expect("open");
            // Whenever the writer's queue has room again, the reader is woken.
            std::thread::scope(|scope| {
                let reader = scope.spawn(|| (&client).read_exact(&mut [0]));
                scope.spawn(|| (&client).write_all(&vec![5; AMOUNT]).expect("the waypoint reads"));
                let mut got = vec![0; AMOUNT];
                dialled.waypoint.read_exact(&mut got).expect("it comes");
                assert!(got.iter().all(|byte| *byte == 5));
                dialled.waypoint.write_all(b"!").expect("open");
                reader.join().expect("no panic").expect("nothing but data ends the read");
            });
            std::thread::scope(|scope| {
                let reader = scope.spawn(|| (&client).read(&mut [0]));
                SockRef::from(&*dialled.waypoint).set_linger(Some(Duration::ZERO)).expect("open");
                drop(dialled);
                let error = reader.join().expect("no panic").expect_err("it was reset");
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            });
        }
    });
}

/// A waypoint on this node may be a joined socket's peer as anybody else.
#[test]
fn a_connection_to_a_waypoint_leaves_tcp_after_its_header() {
    inside("metadata::a_connection_to_a_waypoint_leaves_tcp_after_its_header", |cgroup| {
        let options = Options { accelerate: Some(8), ..telling(cgroup, Metadata::Proxy) };
        let mut world = World::with(&options);
        let accelerator = world.kernel.accelerator();
        let mut dialled = Dialled::new(&world.kernel, VIPS[0].0, VIPS[0].1);
        let client = dialled.client.local_addr().expect("bound");
        dialled.header(28);
        let mut messages = 0;
        while accelerator.joins().expect("readable").joined < 2 || messages < 100 {
            dialled.client.write_all(&[3; 10]).expect("open");
            dialled.waypoint.read_exact(&mut [0; 10]).expect("it comes");
            dialled.waypoint.write_all(&[4; 10]).expect("open");
            dialled.client.read_exact(&mut [0; 10]).expect("it comes");
            messages += 1;
            accelerator.join().expect("the kernel iterates");
            assert!(messages < 10_000, "it does not join");
        }
        drop(dialled);
        let [out, inward] = [true, false].map(|out| {
            world.wait_for("an end", |record| {
                let own = if out { record.local } else { record.remote };
                is_end(record) && is_outbound(record) == out && SocketAddr::from(own) == client
            })
        });
        assert_eq!((out.sent, out.received), (11 + messages * 10, messages * 10));
        assert_eq!(
            (inward.sent, inward.received),
            (messages * 10, 28 + 11 + messages * 10),
            "the waypoint read the header"
        );
        assert!(accelerator.joins().expect("readable").redirected > 0);
    });
}
