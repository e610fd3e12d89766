//! Two pods that most tests need: a client and a server.

use std::net::IpAddr;

use anyhow::Result;
use tests::{Mesh, Peer, Pod, Sandbox, Scrape};

/// Where the server listens, and what its service calls that port.
pub(crate) const TARGET: u16 = 8080;
/// The port of the service `echo`.
pub(crate) const PORT: u16 = 80;

/// A client and a server on one node, both managed, with a peer running in each. Fields drop in this order.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) client: Peer,
    pub(crate) server: Peer,
    pub(crate) client_pod: Pod,
    pub(crate) server_pod: Pod,
    pub(crate) sandbox: Sandbox,
}

impl Pair {
    /// Makes the pods, and a listener `l` on every address of the server.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let sandbox = Sandbox::new(name)?;
        let (client_pod, server_pod) = (sandbox.pod("client")?, sandbox.pod("server")?);
        let (client, mut server) = (client_pod.peer()?, server_pod.peer()?);
        server.ask(format_args!("listen l [::]:{TARGET}"))?;
        Ok(Self { client, server, client_pod, server_pod, sandbox })
    }

    /// Returns a mesh of both pods and the service `echo`, whose one endpoint is the server.
    pub(crate) fn mesh(&self) -> Mesh {
        let pods = Mesh::new().pod(&self.client_pod).pod(&self.server_pod);
        pods.service("echo", &self.vips(), &[(PORT, TARGET)], &["server"])
    }

    /// Returns the addresses of `echo`.
    pub(crate) fn vips(&self) -> [IpAddr; 2] {
        [self.sandbox.vip(1).into(), self.sandbox.vip6(1).into()]
    }

    /// Returns `echo`'s IPv4 address and port.
    pub(crate) fn service(&self) -> String {
        format!("{}:{PORT}", self.sandbox.vip(1))
    }

    /// Returns the server's IPv4 address and port.
    pub(crate) fn direct(&self) -> String {
        format!("{}:{TARGET}", self.server_pod.v4)
    }
}

/// A short connection to the listener `l`: opened, some bytes sent there, closed by the client first.
pub(crate) fn talk(client: &mut Peer, server: &mut Peer, dial: &str, bytes: u64) -> Result<()> {
    client.open("talk", dial, "l", server)?;
    client.send("talk", bytes, server)?;
    client.close("talk", server)
}

/// What both ends of connections between client and server came to, workload metrics.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Truth {
    pub(crate) opened: u32,
    pub(crate) closed: u32,
    /// Payload bytes from client to server.
    pub(crate) there: u64,
    /// Payload bytes from server to client.
    pub(crate) back: u64,
}

impl Truth {
    /// Says whether a scrape shows exactly this at both ends, in the workload and in the service metrics.
    pub(crate) fn is_shown(&self, scrape: &Scrape) -> Result<()> {
        for prefix in ["kmesh_tcp_workload", "kmesh_tcp"] {
            for (reporter, sent, received) in
                [("source", self.there, self.back), ("destination", self.back, self.there)]
            {
                let ends = [("reporter", reporter), ("source_workload", "client"), ("destination_workload", "server")];
                scrape.shows(&format!("{prefix}_connections_opened_total"), &ends, self.opened.into())?;
                scrape.shows(&format!("{prefix}_connections_closed_total"), &ends, self.closed.into())?;
                scrape.shows(&format!("{prefix}_connections_failed_total"), &ends, 0.0)?;
                scrape.shows(&format!("{prefix}_sent_bytes_total"), &ends, sent as f64)?;
                scrape.shows(&format!("{prefix}_received_bytes_total"), &ends, received as f64)?;
            }
        }
        Ok(())
    }
}
