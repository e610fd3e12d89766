//! Two pods of one node and a service, all in the mesh file.

use std::{net::SocketAddr, ops::Range, path::Path};

use anyhow::Result;
use tests::{Mesh, Meshd, Pod, Sandbox, netns::Namespace};

use super::worker::Worker;

/// Ports that are served: many, since one address and port would soon have every local port in use.
pub const PORTS: Range<u16> = 20_000..20_064;

/// Which address a client dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Dial {
    /// The service's virtual address, which steering replaces
    Vip,
    /// The pod's own address
    Pod,
}

/// What runs of the data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Off,
    /// No `meshd`; programs on the same hooks that only return.
    Least,
    /// Steering alone.
    Steering,
    /// All telemetry but the log.
    On,
    /// The same, and connections between the two pods are redirected.
    Accelerated,
    /// The same, open connections reported by the packet programs.
    Packet,
}

/// The pods and what they are called.
#[derive(Debug)]
pub struct World {
    /// A process in each pod, without which `meshd` would not find it. First, since it has to end before its namespace goes.
    _residents: [Worker; 2],
    sandbox: Sandbox,
    client: Pod,
    server: Pod,
    mesh: Mesh,
}

impl World {
    /// Makes the namespaces, the cgroup and the mesh; waits for tests and benchmarks that run already.
    pub fn new() -> Result<Self> {
        let sandbox = Sandbox::new("bench")?;
        let (client, server) = (sandbox.pod("client")?, sandbox.pod("server")?);
        let ports: Vec<_> = PORTS.map(|port| (port, port)).collect();
        let mesh = Mesh::new().pod(&client).pod(&server);
        let mesh = mesh.service("server", &[sandbox.vip(1).into()], &ports, &["server"]);
        let resident = |pod: &Pod| Worker::start(pod.namespace(), sandbox.cgroup());
        let residents = [resident(&client)?, resident(&server)?];
        Ok(Self { _residents: residents, sandbox, client, server, mesh })
    }

    /// Starts `meshd` in a mode and waits until it is ready; `more` are further flags.
    pub fn meshd(&self, mode: Mode, more: &[&str]) -> Result<Option<Meshd<'_>>> {
        let all = ["--monitoring", "--workload-metrics", "--connection-metrics"];
        let mut flags = match mode {
            Mode::Off | Mode::Least => return Ok(None),
            Mode::Steering => Vec::new(),
            Mode::On => all.to_vec(),
            Mode::Accelerated => [&all[..], &["--accelerate"]].concat(),
            Mode::Packet => [&all[..], &["--progress=packet"]].concat(),
        };
        flags.extend(more);
        Meshd::start(&self.sandbox, &self.mesh, &flags).map(Some)
    }

    /// Starts a `meshd` that follows a control plane, and waits for nothing; steering alone.
    pub fn meshd_of(&self, control_plane: &str, more: &[&str]) -> Result<Meshd<'_>> {
        let flags = [&["--xds-address", control_plane], more].concat();
        Meshd::spawn_without_mesh(&self.sandbox, &[], &flags)
    }

    /// Returns the namespace of the node, in which `meshd` runs.
    pub fn node(&self) -> &Namespace {
        self.sandbox.node()
    }

    /// Returns what a client dials.
    pub fn targets(&self, dial: Dial) -> Vec<SocketAddr> {
        let ip = if dial == Dial::Vip { self.sandbox.vip(1) } else { self.server.v4 };
        PORTS.map(|port| (ip, port).into()).collect()
    }

    /// Starts a process in the client's pod.
    pub fn client(&self) -> Result<Worker> {
        Worker::start(self.client.namespace(), self.cgroup())
    }

    /// Starts a process in the server's pod that listens on some of the ports.
    pub fn server(&self, ports: Range<u16>) -> Result<Worker> {
        let mut server = Worker::start(self.server.namespace(), self.cgroup())?;
        server.ask(&super::load::Order::Serve { address: self.server.v4.into(), ports })?;
        Ok(server)
    }

    /// Starts one more process in each pod, the client's and the server's.
    pub fn workers(&self) -> Result<[Worker; 2]> {
        let [client, server] = self.pods();
        Ok([Worker::start(client, self.cgroup())?, Worker::start(server, self.cgroup())?])
    }

    /// Returns the namespaces of the pods, the client's and the server's.
    pub fn pods(&self) -> [&Namespace; 2] {
        [self.client.namespace(), self.server.namespace()]
    }

    /// Returns the cgroup that all of it runs in.
    pub fn cgroup(&self) -> &Path {
        self.sandbox.cgroup()
    }
}
