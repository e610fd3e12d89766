//! Bytes are payload, to the byte, at both ends.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::{Meshd, Scrape, meshd::ALL};

use crate::pair::{Pair, TARGET, Truth, talk};

#[test]
fn bytes_are_exact_over_ipv4() -> Result<()> {
    let pair = Pair::new("bytes4")?;
    let address = pair.direct();
    exact(pair, &address, &address)
}

#[test]
fn bytes_are_exact_over_ipv6() -> Result<()> {
    let pair = Pair::new("bytes6")?;
    let address = format!("[{}]:{TARGET}", pair.server_pod.v6);
    exact(pair, &address, &address)
}

#[test]
fn bytes_are_exact_over_a_mapped_address_and_it_is_shown_as_ipv4() -> Result<()> {
    let pair = Pair::new("mapped")?;
    let dial = format!("[::ffff:{}]:{TARGET}", pair.server_pod.v4);
    let shown = pair.direct();
    exact(pair, &dial, &shown)
}

/// Connections that end in each way there is; after each, both ends show the sum so far.
fn exact(mut pair: Pair, dial: &str, shown: &str) -> Result<()> {
    let sandbox = &pair.sandbox;
    let meshd = Meshd::start(sandbox, &pair.mesh(), ALL)?;
    let (client, server) = (&mut pair.client, &mut pair.server);

    // The client ends first.
    let local = client.open("a", dial, "l", server)?.to_string();
    client.send("a", 100_003, server)?;
    server.send("a", 7, client)?;
    client.close("a", server)?;
    meshd.eventually(|s| Truth { opened: 1, closed: 1, there: 100_003, back: 7 }.is_shown(s))?;
    let shown_local = local.replace("[::ffff:", "").replace(']', if shown.contains('[') { "]" } else { "" });
    let ends = [("src.addr", &*shown_local), ("dst.addr", shown), ("state", "BPF_TCP_CLOSE"), ("error", "")];
    let outbound = meshd.logs(&[&ends[..], &[("direction", "OUTBOUND")]].concat())?;
    assert_eq!((outbound.number("sent_bytes"), outbound.number("received_bytes")), (100_003, 7));
    let inbound = meshd.logs(&[&ends[..], &[("direction", "INBOUND")]].concat())?;
    assert_eq!((inbound.number("sent_bytes"), inbound.number("received_bytes")), (7, 100_003));

    // The server ends first.
    client.open("b", dial, "l", server)?;
    client.send("b", 1, server)?;
    server.close("b", client)?;
    meshd.eventually(|s| Truth { opened: 2, closed: 2, there: 100_004, back: 7 }.is_shown(s))?;

    // Nothing is sent at all.
    talk(client, server, dial, 0)?;
    meshd.eventually(|s| Truth { opened: 3, closed: 3, there: 100_004, back: 7 }.is_shown(s))?;

    // Both ends end at once: each has sent its FIN before it reads the other's.
    client.open("d", dial, "l", server)?;
    server.send("d", 1_000_000, client)?;
    client.begin("finish d")?;
    server.begin("finish d")?;
    client.finish()?;
    server.finish()?;
    for end in [&mut *client, &mut *server] {
        end.ask("drain d")?;
        end.ask("close d")?;
    }
    meshd.eventually(|s| Truth { opened: 4, closed: 4, there: 100_004, back: 1_000_007 }.is_shown(s))?;

    // An open connection moves forward; a reset ends it, and adds nothing.
    client.open("e", dial, "l", server)?;
    client.send("e", 5, server)?;
    server.send("e", 6, client)?;
    meshd.eventually(|s| Truth { opened: 5, closed: 4, there: 100_009, back: 1_000_013 }.is_shown(s))?;
    client.ask("reset e")?;
    assert_eq!(server.ask_to_fail("drain e")?, "ECONNRESET");
    server.ask("close e")?;
    let scrape = meshd.eventually(|s| Truth { opened: 5, closed: 5, there: 100_009, back: 1_000_013 }.is_shown(s))?;
    let reset = [("response_flags", "RESET")];
    scrape.shows("kmesh_tcp_workload_connections_closed_total", &reset, 2.0)?;
    scrape.shows("kmesh_tcp_workload_connections_opened_total", &reset, 0.0)?;
    scrape.shows("kmesh_tcp_workload_sent_bytes_total", &reset, 0.0)
}

#[test]
fn five_gibibytes_on_one_connection_do_not_wrap() -> Result<()> {
    const BYTES: u64 = 5 << 30;
    let mut pair = Pair::new("large")?;
    let (sandbox, direct) = (&pair.sandbox, pair.direct());
    let meshd = Meshd::start(sandbox, &pair.mesh(), ALL)?;
    let (client, server) = (&mut pair.client, &mut pair.server);

    client.open("a", &direct, "l", server)?;
    client.send("a", BYTES, server)?;
    meshd.eventually(|s| Truth { opened: 1, closed: 0, there: BYTES, back: 0 }.is_shown(s))?;
    meshd.eventually(|s| {
        s.shows("kmesh_tcp_connection_sent_bytes_total", &[("reporter", "source")], BYTES as f64)?;
        s.shows("kmesh_tcp_connection_received_bytes_total", &[("reporter", "destination")], BYTES as f64)
    })?;
    client.close("a", server)?;
    meshd.eventually(|s| Truth { opened: 1, closed: 1, there: BYTES, back: 0 }.is_shown(s))?;
    let line = meshd.logs(&[("direction", "OUTBOUND"), ("state", "BPF_TCP_CLOSE")])?;
    assert_eq!(line.number("sent_bytes"), BYTES);
    Ok(())
}

#[test]
fn a_reused_pair_of_addresses_and_ports_is_another_connection() -> Result<()> {
    let mut pair = Pair::new("reuse")?;
    let from = format!("{}:40000", pair.client_pod.v4);
    let dial = format!("{} from {from}", pair.direct());
    let sandbox = &pair.sandbox;
    let meshd = Meshd::start(sandbox, &pair.mesh(), ALL)?;
    let (client, server) = (&mut pair.client, &mut pair.server);

    let mut truth = Truth::default();
    for (name, bytes) in [("a", 50_000), ("b", 30)] {
        client.open(name, &dial, "l", server)?;
        client.send(name, bytes, server)?;
        truth.opened += 1;
        truth.there += bytes;
        meshd.eventually(|s| truth.is_shown(s))?;
        // A reset leaves no TIME_WAIT behind, so the port can be used again at once.
        client.ask(format_args!("reset {name}"))?;
        server.ask_to_fail(format_args!("drain {name}"))?;
        server.ask(format_args!("close {name}"))?;
        truth.closed += 1;
        meshd.eventually(|s| truth.is_shown(s))?;
    }
    for (bytes, end) in ["50000", "30"].into_iter().flat_map(|b| [(b, "sent_bytes"), (b, "received_bytes")]) {
        meshd.logs(&[("src.addr", &from), (end, bytes), ("state", "BPF_TCP_CLOSE")])?;
    }
    Ok(())
}

#[test]
fn no_counter_falls_and_none_is_short_while_connections_come_and_go() -> Result<()> {
    const CONNECTIONS: u32 = 400;
    const BYTES: u64 = 3000;
    let mut pair = Pair::new("churn")?;
    let (sandbox, service) = (&pair.sandbox, pair.service());
    pair.server.ask(format_args!("serve {}:9090", pair.server_pod.v4))?;
    let mesh = pair.mesh().service("churn", &[sandbox.vip(2).into()], &[(80, 9090)], &["server"]);
    let meshd = Meshd::start(sandbox, &mesh, ALL)?;
    let client = &mut pair.client;
    client.ask(format_args!("connect open {service}"))?;

    client.begin(format_args!("churn {}:80 {CONNECTIONS} {BYTES}", sandbox.vip(2)))?;
    let bytes = u64::from(CONNECTIONS) * BYTES;
    let truth = Truth { opened: CONNECTIONS + 1, closed: CONNECTIONS, there: bytes, back: bytes };
    let end = Instant::now() + Duration::from_secs(60);
    let mut before = meshd.scrape()?;
    loop {
        let now = meshd.scrape()?;
        falls_nowhere(&before, &now)?;
        match truth.is_shown(&now) {
            Ok(()) => break,
            Err(error) => ensure!(Instant::now() < end, "{error:#}"),
        }
        before = now;
    }
    let reply = client.finish()?;
    assert_eq!((reply.sent, reply.received), (bytes, bytes));
    Ok(())
}

/// Every series of `before` is in `now`, and no counter is less.
fn falls_nowhere(before: &Scrape, now: &Scrape) -> Result<()> {
    for sample in before.samples() {
        let after = now.samples().iter().find(|s| s.name == sample.name && s.labels == sample.labels);
        let after = after.with_context(|| format!("{}{:?} is gone", sample.name, sample.labels))?;
        let counter = now.kind(&sample.name) == Some("counter");
        ensure!(!counter || after.value >= sample.value, "{}{:?} fell to {}", sample.name, sample.labels, after.value);
    }
    Ok(())
}
