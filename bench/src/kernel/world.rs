//! Two pods of one node and a service, all in the mesh file.

use std::{net::SocketAddr, ops::Range, path::Path};

use anyhow::Result;
use tests::{Mesh, Meshd, Pod, Sandbox};

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
    /// Steering alone.
    Steering,
    /// All telemetry but the log.
    On,
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
            Mode::Off => return Ok(None),
            Mode::Steering => Vec::new(),
            Mode::On => all.to_vec(),
            Mode::Packet => [&all[..], &["--progress=packet"]].concat(),
        };
        flags.extend(more);
        Meshd::start(&self.sandbox, &self.mesh, &flags).map(Some)
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

    fn cgroup(&self) -> &Path {
        self.sandbox.cgroup()
    }
}
