//! Clients in two pods that talk to servers in two others, each at random, each keeping account.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use anyhow::{Result, ensure};
use fastrand::Rng;
use tests::{Crew, Peer, Pod, Sandbox, truth::Truth};

/// Ports that are served: many, since one address and port would soon have every local port in use.
pub(crate) const PORTS: Range<u16> = 9000..9024;
/// Nobody listens there.
const CLOSED: u16 = 9999;
/// Clients in each pod.
const EACH: usize = 2;
/// Most connections that a client keeps open.
const OPEN: usize = 12;

/// Servers that echo, and clients that wait to begin.
pub(crate) struct Prepared {
    servers: Vec<Peer>,
    clients: Vec<Client>,
}

/// Clients at work.
pub(crate) struct Traffic {
    /// Ended last.
    servers: Vec<Peer>,
    clients: Crew,
}

impl Prepared {
    /// Has the clients begin.
    pub(crate) fn start(self) -> Traffic {
        let clients = Crew::start(self.clients, |mut client, stop| client.work(stop).map(|()| client.truth));
        Traffic { servers: self.servers, clients }
    }
}

impl Traffic {
    /// Starts a process for each server and client.
    pub(crate) fn prepare(sandbox: &Sandbox, clients: &[Pod], servers: &[Pod], seed: u64) -> Result<Prepared> {
        let (mut targets, mut echoing) = (Vec::new(), Vec::new());
        for (number, pod) in (1..).zip(servers) {
            let mut peer = pod.peer()?;
            for port in PORTS {
                peer.ask(format_args!("serve [::]:{port}"))?;
            }
            echoing.push(peer);
            let (vip, v6) = (sandbox.vip(number).into(), pod.v6.into());
            targets.push(Target { name: pod.name.clone(), pod: pod.v4.into(), vip, v6 });
        }
        let pods = (1..).zip(clients.iter().cycle().take(clients.len() * EACH));
        let client = |(number, pod): (u64, &Pod)| -> Result<Client> {
            Ok(Client {
                peer: pod.peer()?,
                name: pod.name.clone(),
                targets: targets.clone(),
                rng: Rng::with_seed(seed ^ number),
                open: Vec::new(),
                opened: 0,
                truth: Truth::default(),
            })
        };
        Ok(Prepared { servers: echoing, clients: pods.map(client).collect::<Result<_>>()? })
    }

    /// Has every client close what it has open, and tells what all of it came to.
    pub(crate) fn end(self) -> Result<Truth> {
        let truth = self.clients.end(|| "a client".to_owned())?;
        drop(self.servers);
        Ok(truth)
    }
}

#[derive(Clone, Debug)]
struct Target {
    name: String,
    pod: IpAddr,
    vip: IpAddr,
    v6: IpAddr,
}

struct Client {
    peer: Peer,
    name: String,
    targets: Vec<Target>,
    rng: Rng,
    /// Name of each open connection, and whom it reached.
    open: Vec<(String, String)>,
    opened: u32,
    truth: Truth,
}

impl Client {
    fn work(&mut self, stop: &AtomicBool) -> Result<()> {
        while !stop.load(Relaxed) {
            match self.rng.u8(..10) {
                0..5 => self.churn()?,
                5 => self.fail()?,
                6 if self.open.len() < OPEN => self.open()?,
                6 | 7 => self.close()?,
                _ => self.talk()?,
            }
        }
        while !self.open.is_empty() {
            self.close()?;
        }
        Ok(())
    }

    /// Short connections, one after another.
    fn churn(&mut self) -> Result<()> {
        let (name, target) = self.target();
        let bytes = [0, 1, 700, 20_000][self.rng.usize(..4)];
        let count = self.rng.u64(1..400);
        let done = self.peer.ask(format_args!("churn {target} {count} {bytes}"))?;
        ensure!((done.connections, done.received) == (count, count * bytes), "churn came to {done:?}");
        let tally = self.truth.of(&self.name, &name);
        tally.opened += count;
        tally.there += count * bytes;
        tally.back += count * bytes;
        Ok(())
    }

    fn fail(&mut self) -> Result<()> {
        let target = &self.targets[self.rng.usize(..self.targets.len())];
        let refused = self.peer.ask_to_fail(format_args!("connect x {}:{CLOSED}", target.pod))?;
        ensure!(refused == "ECONNREFUSED", "the connect ended with {refused}");
        self.truth.of(&self.name, &target.name).failed += 1;
        Ok(())
    }

    fn open(&mut self) -> Result<()> {
        let (name, target) = self.target();
        self.opened += 1;
        let connection = format!("c{}", self.opened);
        self.peer.ask(format_args!("connect {connection} {target}"))?;
        self.truth.of(&self.name, &name).opened += 1;
        self.open.push((connection, name));
        Ok(())
    }

    /// Some bytes there and back over a connection that is open.
    fn talk(&mut self) -> Result<()> {
        let Some((connection, name)) = self.open.get(self.rng.usize(..OPEN)) else { return Ok(()) };
        let bytes = [1, 1000, 30_000][self.rng.usize(..3)];
        self.peer.ask(format_args!("send {connection} {bytes}"))?;
        self.peer.ask(format_args!("receive {connection} {bytes}"))?;
        let tally = self.truth.of(&self.name, name);
        tally.there += bytes;
        tally.back += bytes;
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        let (connection, _) = self.open.swap_remove(self.rng.usize(..self.open.len()));
        for command in ["finish", "drain", "close"] {
            self.peer.ask(format_args!("{command} {connection}"))?;
        }
        Ok(())
    }

    /// Chooses whom to dial, and how.
    fn target(&mut self) -> (String, SocketAddr) {
        let target = &self.targets[self.rng.usize(..self.targets.len())];
        let address = [target.vip, target.vip, target.pod, target.v6][self.rng.usize(..4)];
        (target.name.clone(), SocketAddr::new(address, self.rng.u16(PORTS)))
    }
}
