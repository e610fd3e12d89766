//! Lost packets are seen as retransmits and losses.

use anyhow::{Result, ensure};
use tests::{Meshd, meshd::ALL};

use crate::pair::{Pair, Truth};

#[test]
fn dropped_packets_are_retransmits_and_losses_of_the_sender_alone() -> Result<()> {
    const BYTES: u64 = 8_000_000;
    let mut pair = Pair::new("loss")?;
    // Segments of 64 KiB would make too few packets to drop any of.
    pair.client_pod.namespace().ip("link set eth0 gso_max_segs 1")?;
    // Data alone: where the last acknowledgement of all is lost, the other end sends its FIN again.
    let data = "-p tcp --dport 8080 -m length --length 1000:65535";
    let server = pair.server_pod.namespace();
    server.run(&format!("iptables -A INPUT {data} -m statistic --mode nth --every 50 --packet 0 -j DROP"))?;
    let (sandbox, direct) = (&pair.sandbox, pair.direct());
    let meshd = Meshd::start(sandbox, &pair.mesh(), ALL)?;
    let (client, server) = (&mut pair.client, &mut pair.server);

    client.open("a", &direct, "l", server)?;
    client.send("a", BYTES, server)?;
    // Long enough to have series of its own before it ends.
    meshd.eventually(|s| s.only("kmesh_tcp_connection_retrans_total", &[("reporter", "source")]).map(drop))?;
    client.close("a", server)?;
    let scrape = meshd.eventually(|s| Truth { opened: 1, closed: 1, there: BYTES, back: 0 }.is_shown(s))?;

    let line = meshd.logs(&[("direction", "OUTBOUND"), ("state", "BPF_TCP_CLOSE")])?;
    let (retransmits, lost) = (line.number("retransmissions"), line.number("packet_loss"));
    // One in fifty of at least 5,000 segments.
    ensure!(retransmits >= 50 && lost >= 50, "{} retransmits, {} losses", retransmits, lost);
    let labels = [("reporter", "source"), ("source_workload", "client"), ("destination_workload", "server")];
    scrape.shows("kmesh_tcp_retrans_total", &labels, retransmits as f64)?;
    scrape.shows("kmesh_tcp_packet_loss_total", &labels, lost as f64)?;
    scrape.shows("kmesh_tcp_connection_retrans_total", &labels, retransmits as f64)?;
    scrape.shows("kmesh_tcp_connection_packet_lost_total", &labels, lost as f64)?;
    for name in ["kmesh_tcp_retrans_total", "kmesh_tcp_packet_loss_total"] {
        scrape.shows(name, &[("reporter", "destination")], 0.0)?;
    }
    Ok(())
}
