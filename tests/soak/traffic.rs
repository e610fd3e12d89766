//! Clients that hold conversations with the servers, each keeping account.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use tests::{
    Crew, Peer, Pod, Sandbox,
    retry::{DEADLINE, eventually},
    truth::Truth,
};

use crate::changes::SERVICES;

/// Ports that are served: many, since one address and port would soon have every local port in use.
pub(crate) const PORTS: Range<u16> = 9000..9024;
/// Clients in each pod, each with one conversation at a time.
const EACH: usize = 4;

/// Servers, and clients that wait to begin.
pub(crate) struct Prepared {
    servers: Vec<Peer>,
    clients: Vec<Client>,
}

/// Clients at work.
pub(crate) struct Traffic {
    servers: Vec<Peer>,
    clients: Crew,
}

impl Prepared {
    /// Has the clients begin.
    pub(crate) fn start(self) -> Traffic {
        let clients = Crew::start(self.clients, |mut client, stop| {
            while !stop.load(Relaxed) {
                client.converse()?;
            }
            Ok(client.truth)
        });
        Traffic { servers: self.servers, clients }
    }
}

impl Traffic {
    /// Starts a process for each server and client. A guest dials pods alone: no service is steered while it is not managed.
    pub(crate) fn prepare(
        sandbox: &Sandbox,
        clients: &[Pod],
        servers: &[Pod],
        guest: &Pod,
        seed: u64,
    ) -> Result<Prepared> {
        let mut hosts = Vec::new();
        for pod in servers {
            let mut peer = pod.peer()?;
            for port in PORTS {
                peer.ask(format_args!("host [::]:{port}"))?;
            }
            hosts.push(peer);
        }
        let names: Arc<[_]> =
            servers.iter().flat_map(|pod| pod.addresses().map(|address| (address, pod.name.clone()))).collect();
        let direct: Vec<_> = names.iter().map(|(address, _)| *address).collect();
        let services = (1..).zip(SERVICES).flat_map(|(n, _)| [sandbox.vip(n).into(), sandbox.vip6(n).into()]);
        let any: Vec<_> = services.chain(direct.iter().copied()).collect();
        let mut rng = Rng::with_seed(seed);
        let mut client = |pod: &Pod, targets: &[IpAddr]| -> Result<Client> {
            let (peer, name, rng) = (pod.peer()?, pod.name.clone(), rng.fork());
            Ok(Client {
                peer,
                name,
                targets: targets.to_vec(),
                names: Arc::clone(&names),
                rng,
                truth: Truth::default(),
            })
        };
        let mut all = Vec::new();
        for _ in 0..EACH {
            all.extend(clients.iter().map(|pod| client(pod, &any)).collect::<Result<Vec<_>>>()?);
        }
        all.push(client(guest, &direct)?);
        Ok(Prepared { servers: hosts, clients: all })
    }

    /// Waits for the end of every conversation, and tells what all of them came to, at both ends.
    pub(crate) fn end(self) -> Result<Truth> {
        let mut servers = self.servers;
        let truth = self.clients.end(|| {
            let said: Vec<_> = servers.iter_mut().map(|s| s.ask("hosted").map(drop)).filter_map(Result::err).collect();
            format!("servers say {said:#?}")
        })?;
        let total = truth.total();
        eventually(DEADLINE, || {
            let mut at_servers = (0, 0, 0);
            for server in &mut servers {
                let hosted = server.ask("hosted")?;
                at_servers.0 += hosted.connections;
                at_servers.1 += hosted.received;
                at_servers.2 += hosted.sent;
            }
            let at_clients = (total.opened, total.there, total.back);
            ensure!(at_servers == at_clients, "clients came to {at_clients:?}, servers to {at_servers:?}");
            Ok(())
        })?;
        Ok(truth)
    }
}

struct Client {
    peer: Peer,
    name: String,
    targets: Vec<IpAddr>,
    /// Whose address is whose.
    names: Arc<[(IpAddr, String)]>,
    rng: Rng,
    truth: Truth,
}

impl Client {
    fn converse(&mut self) -> Result<()> {
        let target = SocketAddr::new(self.targets[self.rng.usize(..self.targets.len())], self.rng.u16(PORTS));
        let number = self.rng.u64(..);
        let asked = self.peer.ask(format_args!("converse {target} {number}"));
        let done = asked.with_context(|| format!("from {}", self.name))?;
        // Whom steering has chosen.
        let reached = done.remote.context("a connected socket has a peer")?.ip();
        let found = self.names.iter().find(|(address, _)| *address == reached);
        let (_, server) = found.with_context(|| format!("{target} led to {reached}"))?;
        let tally = self.truth.of(&self.name, server);
        tally.opened += 1;
        tally.there += done.sent;
        tally.back += done.received;
        Ok(())
    }
}
