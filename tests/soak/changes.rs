//! What is changed in the mesh.

use std::{
    fmt, fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use fastrand::Rng;
use serde_json::json;
use tests::{
    Mesh, Meshd, Pod, Sandbox,
    kernel_log::KernelLog,
    meshd::mesh_file,
    retry::{DEADLINE, eventually},
};

use crate::{GUEST, SERVERS, traffic::PORTS};

/// Services, each of which has one or both of the servers as endpoints.
pub(crate) const SERVICES: [&str; 2] = ["front", "back"];

/// The mesh as it is now, and how often it became another.
pub(crate) struct Changes<'a> {
    sandbox: &'a Sandbox,
    pods: &'a [&'a Pod],
    rng: Rng,
    /// Which servers are endpoints, by service.
    endpoints: [[bool; SERVERS.len()]; SERVICES.len()],
    /// Whether an endpoint that is left out is unhealthy, and not just none of the service's.
    unhealthy: Option<usize>,
    managed: bool,
    others: usize,
    made: u32,
    left: u32,
    /// Most sockets that were redirected at one time.
    pub(crate) joined: f64,
}

impl<'a> Changes<'a> {
    pub(crate) fn new(sandbox: &'a Sandbox, pods: &'a [&'a Pod], seed: u64) -> Self {
        let endpoints = [[true; SERVERS.len()]; SERVICES.len()];
        let rng = Rng::with_seed(seed);
        Self { sandbox, pods, rng, endpoints, unhealthy: None, managed: true, others: 0, made: 0, left: 0, joined: 0.0 }
    }

    /// Makes one change after the other for this long; the kernel may not complain meanwhile.
    pub(crate) fn make(&mut self, meshd: &Meshd<'_>, log: &mut KernelLog, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.change();
            self.publish(meshd).with_context(|| format!("after {self}"))?;
            log.is_quiet().with_context(|| format!("after {self}"))?;
            let peace = self.rng.u64(..1000);
            pass(Duration::from_millis(peace));
        }
        Ok(())
    }

    /// Returns the mesh as it is now.
    pub(crate) fn mesh(&self) -> Mesh {
        let mesh = self.pods.iter().fold(Mesh::new(), |mesh, pod| mesh.pod(pod));
        let ports: Vec<_> = PORTS.map(|port| (port, port)).collect();
        let mesh = (1..).zip(SERVICES).zip(self.endpoints).fold(mesh, |mesh, ((number, name), endpoints)| {
            let named = SERVERS.iter().zip(endpoints).filter(|(_, is)| *is).map(|(name, _)| *name);
            let vips = [self.sandbox.vip(number).into(), self.sandbox.vip6(number).into()];
            mesh.service(name, &vips, &ports, &named.collect::<Vec<_>>())
        });
        let mesh = match self.unhealthy {
            Some(server) => mesh.with(SERVERS[server], &json!({"status": "Unhealthy"})),
            None => mesh,
        };
        let mesh = if self.managed { mesh } else { mesh.with(GUEST, &json!({"node": "node-b"})) };
        // Pods elsewhere that nobody talks to.
        (0..self.others).fold(mesh, |mesh, n| {
            let address = [192, 0, 2, u8::try_from(n + 1).unwrap_or(u8::MAX)].into();
            mesh.workload(&format!("other-{n}"), &[address], json!({"node": "node-b"}))
        })
    }

    /// Each service keeps an endpoint that is healthy.
    fn change(&mut self) {
        match self.rng.u8(..4) {
            0 => {
                self.managed = !self.managed;
                self.left += u32::from(!self.managed);
            }
            1 => self.unhealthy = [None, Some(0), Some(1)][self.rng.usize(..3)],
            _ => {
                let service = self.rng.usize(..SERVICES.len());
                self.endpoints[service] = [[true, false], [false, true], [true, true]][self.rng.usize(..3)];
            }
        }
        for endpoints in &mut self.endpoints {
            if let Some(server) = self.unhealthy {
                endpoints[1 - server] = true;
            }
        }
        // Another number than before, so that the file is another one in any case.
        self.others = (self.others + self.rng.usize(1..100)) % 100;
    }

    /// Publishes it as a control plane would, all at once, and waits until it is applied.
    fn publish(&mut self, meshd: &Meshd<'_>) -> Result<()> {
        const LOADS: &str = "meshd_mesh_file_loads_total";
        let scrape = meshd.scrape()?;
        self.joined = self.joined.max(scrape.total("meshd_accelerate_joined", &[]));
        let applied = scrape.total(LOADS, &[("result", "applied")]);
        let next = self.sandbox.directory().join("next.yaml");
        fs::write(&next, self.mesh().render()).context("writing the mesh")?;
        fs::rename(next, mesh_file(self.sandbox)).context("publishing the mesh")?;
        self.made += 1;
        eventually(DEADLINE, || meshd.scrape()?.shows(LOADS, &[("result", "applied")], applied + 1.0))
    }
}

impl fmt::Display for Changes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { made, left, joined, .. } = self;
        write!(f, "{made} changes of the mesh, the guest left {left} times, up to {joined} sockets redirected at once")
    }
}

/// Lets time pass: here it is the moment that is random, and no condition says when it has come.
#[expect(clippy::disallowed_methods, reason = "nothing is waited for")]
fn pass(time: Duration) {
    std::thread::sleep(time);
}
