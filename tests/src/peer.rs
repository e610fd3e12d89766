//! A `peer` that runs in a pod, told what to do.

use std::{
    fmt::Display,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{artifacts, netns::Namespace, protocol::Reply};

/// A running `peer`; it holds the pod's namespace as an application does, and ends by `Drop`.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    stdin: ChildStdin,
    replies: Receiver<String>,
}

impl Peer {
    /// Starts a peer in a namespace and a cgroup.
    pub fn start(namespace: &Namespace, cgroup: &Path) -> Result<Self> {
        let script = "echo $$ > \"$0/cgroup.procs\" && exec \"$1\"";
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", namespace.path().display())).args(["sh", "-c", script]);
        command.arg(cgroup).arg(artifacts::peer()?).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("starting a peer")?;
        let stdin = child.stdin.take().expect("standard input is piped");
        let stdout = child.stdout.take().expect("standard output is piped");
        let (sender, replies) = sync_channel(16);
        thread::spawn(move || {
            // Ends with the peer, or with the test that no longer listens.
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut peer = Self { child, stdin, replies };
        peer.ask("served").context("the peer's first answer")?;
        Ok(peer)
    }

    /// Returns its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives a command and returns the answer; an answer that tells of a failure is an error.
    pub fn ask(&mut self, command: impl Display) -> Result<Reply> {
        self.begin(&command)?;
        self.finish().with_context(|| format!("peer: {command}"))
    }

    /// Gives a command that is to fail and returns why it did: an errno's name.
    pub fn ask_to_fail(&mut self, command: impl Display) -> Result<String> {
        self.begin(&command)?;
        let reply = self.reply()?;
        reply.error.with_context(|| format!("peer: {command}: did not fail"))
    }

    /// Gives a command and does not wait for its answer, so that two peers can be busy with each other.
    pub fn begin(&mut self, command: impl Display) -> Result<()> {
        writeln!(self.stdin, "{command}").with_context(|| format!("telling a peer to {command}"))
    }

    /// Returns the answer to the oldest command not yet answered.
    pub fn finish(&mut self) -> Result<Reply> {
        let reply = self.reply()?;
        if let Some(error) = reply.error {
            bail!("{error}");
        }
        Ok(reply)
    }

    fn reply(&self) -> Result<Reply> {
        let line = self.replies.recv_timeout(Duration::from_secs(120)).context("a peer does not answer")?;
        serde_json::from_str(&line).with_context(|| format!("a peer's answer: {line}"))
    }

    /// Opens a connection between two peers: `name` is the connection at both ends. Returns the opening end's own address.
    pub fn open(&mut self, name: &str, dial: impl Display, listener: &str, other: &mut Self) -> Result<SocketAddr> {
        let local = self.ask(format_args!("connect {name} {dial}"))?.local;
        other.ask(format_args!("accept {listener} {name}"))?;
        local.context("a connected socket has an address")
    }

    /// Sends bytes over a connection that both peers call by one name, and waits until they have arrived.
    pub fn send(&mut self, name: &str, bytes: u64, other: &mut Self) -> Result<()> {
        self.begin(format_args!("send {name} {bytes}"))?;
        other.ask(format_args!("receive {name} {bytes}"))?;
        self.finish().map(drop)
    }

    /// Closes a connection that both peers call by one name, this end first, each end reading to the end.
    pub fn close(&mut self, name: &str, other: &mut Self) -> Result<()> {
        self.ask(format_args!("finish {name}"))?;
        other.ask(format_args!("drain {name}"))?;
        other.ask(format_args!("close {name}"))?;
        self.ask(format_args!("drain {name}"))?;
        self.ask(format_args!("close {name}")).map(drop)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
