//! A daemon that ends, however it ends, and the next one.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    Meshd, Scrape,
    meshd::{ALL, uninstall},
    retry::{DEADLINE, eventually},
};

use crate::pair::{Pair, Truth, talk};

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [ALL, more].concat()
}

#[test]
fn a_killed_daemon_leaves_everything_and_an_ended_one_nothing() -> Result<()> {
    let mut pair = Pair::new("killed")?;
    let (sandbox, service, mesh) = (&pair.sandbox, pair.service(), pair.mesh());
    let (client, server) = (&mut pair.client, &mut pair.server);
    let mut meshd = Meshd::start(sandbox, &mesh, ALL)?;
    client.open("a", &service, "l", server)?;
    meshd.kill()?;
    client.open("b", &service, "l", server).context("steering goes on without a daemon")?;

    let mut meshd = Meshd::start(sandbox, &mesh, ALL)?;
    meshd.says("taken over")?;
    talk(client, server, &service, 3)?;
    meshd.signal(Signal::SIGTERM)?;
    let status = meshd.ended(Duration::from_secs(5))?;
    ensure!(status.success(), "{status}: {}", meshd.log());
    ensure!(!sandbox.pins()?.exists(), "{} is still there", sandbox.pins()?.display());
    assert_eq!(client.ask_to_fail(format_args!("connect c {service}"))?, "ENETUNREACH");
    client.close("a", server)?;
    client.close("b", server)
}

#[test]
fn killed_at_any_moment_it_counts_every_connection_once_and_no_counter_falls() -> Result<()> {
    const CONNECTIONS: u32 = 16_000;
    const BYTES: u64 = 700;
    const OPEN: u32 = 40;
    let mut pair = Pair::new("killing")?;
    let (sandbox, service) = (&pair.sandbox, pair.service());
    pair.server.ask(format_args!("serve {}:9090", pair.server_pod.v4))?;
    let mesh = pair.mesh().service("churn", &[sandbox.vip(2).into()], &[(80, 9090)], &["server"]);
    let mesh = mesh.service("churn2", &[sandbox.vip(3).into()], &[(80, 9091)], &["server"]);
    pair.server.ask(format_args!("serve {}:9091", pair.server_pod.v4))?;
    let (client, server) = (&mut pair.client, &mut pair.server);
    let mut meshd = Meshd::start(sandbox, &mesh, ALL)?;
    for n in 0..OPEN {
        client.open(&format!("open{n}"), &service, "l", server)?;
        client.send(&format!("open{n}"), 10, server)?;
    }
    // To two ports: each has local ones enough.
    for vip in [2, 3] {
        client.begin(format_args!("churn {}:80 {} {BYTES}", sandbox.vip(vip), CONNECTIONS / 2))?;
    }

    let mut before = Scrape::default();
    for round in 0..40_u64 {
        // As long as it takes to be ready and longer, and in every moment of a take-over.
        if round % 3 == 0 {
            meshd.ready()?;
            let now = meshd.scrape()?;
            now.goes_on_from(&before, &[]).with_context(|| format!("after {round} kills"))?;
            before = now;
        } else {
            let ended = meshd.ended(Duration::from_millis(round * 37 % 120));
            ensure!(ended.is_err(), "meshd has ended by itself: {}", meshd.log());
        }
        meshd.kill()?;
        meshd = Meshd::spawn(sandbox, ALL)?;
    }
    meshd.ready()?;
    client.finish()?;
    client.finish()?;
    let bytes = u64::from(CONNECTIONS) * BYTES;
    let open = u64::from(OPEN) * 10;
    let truth = |opened| Truth { opened: CONNECTIONS + opened, closed: CONNECTIONS, there: bytes + open, back: bytes };
    let ends = f64::from(2 * (CONNECTIONS + OPEN));
    let now = meshd.eventually(|s| {
        truth(OPEN).is_shown(s)?;
        // Read some time after the records.
        s.shows("meshd_telemetry_kernel_connections_total", &[("event", "established")], ends)
    })?;
    now.goes_on_from(&before, &[])?;
    now.shows("meshd_telemetry_vanished_total", &[], 0.0)?;
    now.shows("meshd_connections_adopted_total", &[], 0.0)?;

    // A long connection's own series goes on, and what is open ends as ever.
    for n in 0..OPEN {
        client.close(&format!("open{n}"), server)?;
    }
    let all = Truth { closed: CONNECTIONS + OPEN, ..truth(OPEN) };
    meshd.eventually(|s| all.is_shown(s)).map(drop)
}

#[test]
fn a_second_after_a_kill_what_happened_since_is_shown() -> Result<()> {
    let mut pair = Pair::new("takeover")?;
    let (sandbox, service, mesh) = (&pair.sandbox, pair.service(), pair.mesh());
    let (client, server) = (&mut pair.client, &mut pair.server);
    let mut meshd = Meshd::start(sandbox, &mesh, ALL)?;
    let mut times = Vec::new();
    for opened in 1..=5 {
        meshd.kill()?;
        talk(client, server, &service, 10)?;
        let begin = Instant::now();
        meshd = Meshd::spawn(sandbox, ALL)?;
        let truth = Truth { opened, closed: opened, there: 10 * u64::from(opened), back: 0 };
        eventually(DEADLINE, || truth.is_shown(&meshd.scrape()?))?;
        times.push(begin.elapsed());
    }
    times.sort();
    eprintln!("from start to the first scrape with all of it: {times:?}");
    ensure!(times[2] < Duration::from_secs(1), "{times:?}");
    Ok(())
}

#[test]
fn what_is_kept_goes_on_until_it_is_uninstalled() -> Result<()> {
    let mut pair = Pair::new("kept")?;
    let (sandbox, service, mesh) = (&pair.sandbox, pair.service(), pair.mesh());
    let (client, server) = (&mut pair.client, &mut pair.server);
    let mut meshd = Meshd::start(sandbox, &mesh, &with(&["--on-exit=keep"]))?;
    let refused = uninstall(sandbox).expect_err("a daemon runs");
    ensure!(format!("{refused:#}").contains("another meshd serves the cgroup"), "{refused:#}");
    talk(client, server, &service, 7)?;
    meshd.signal(Signal::SIGTERM)?;
    let status = meshd.ended(Duration::from_secs(5))?;
    ensure!(status.success(), "{status}: {}", meshd.log());
    meshd.logs(&[("state", "BPF_TCP_CLOSE"), ("sent_bytes", "7"), ("direction", "OUTBOUND")])?;
    talk(client, server, &service, 0).context("steering goes on without a daemon")?;

    let said = uninstall(sandbox)?;
    ensure!(said.contains("removed") && said.contains(&sandbox.cgroup().display().to_string()), "{said}");
    ensure!(!sandbox.pins()?.exists(), "{} is still there", sandbox.pins()?.display());
    assert_eq!(client.ask_to_fail(format_args!("connect c {service}"))?, "ENETUNREACH");
    let said = uninstall(sandbox)?;
    ensure!(said.contains("nothing"), "{said}");
    Ok(())
}

#[test]
fn a_second_daemon_is_refused_in_one_line_and_the_first_goes_on() -> Result<()> {
    let mut pair = Pair::new("second")?;
    let (sandbox, service) = (&pair.sandbox, pair.service());
    let meshd = Meshd::start(sandbox, &pair.mesh(), ALL)?;
    let ports = ["--metrics-address=[::]:16020", "--ready-address=[::]:16021", "--admin-address=127.0.0.1:16200"];
    let line = Meshd::spawn(sandbox, &with(&ports))?.refusal()?;
    ensure!(line.contains("another meshd") && line.contains(&sandbox.cgroup().display().to_string()), "`{line}`");
    talk(&mut pair.client, &mut pair.server, &service, 3)?;
    meshd.logs(&[("sent_bytes", "3")]).map(drop)
}

#[test]
fn what_belongs_to_a_cgroup_that_is_gone_is_removed() -> Result<()> {
    let (other, stale) = (Pair::new("stale-other")?, Pair::new("stale")?);
    let left = stale.sandbox.pins()?;
    let mut meshd = Meshd::start(&stale.sandbox, &stale.mesh(), ALL)?;
    meshd.kill()?;
    drop(meshd);
    ensure!(left.exists(), "nothing was left");
    drop(stale);
    // The kernel takes a moment to let go of a cgroup that was removed.
    eventually(DEADLINE, || {
        drop(Meshd::start(&other.sandbox, &other.mesh(), &[])?);
        ensure!(!left.exists(), "{} is still there", left.display());
        Ok(())
    })
}

#[test]
fn switches_set_at_run_time_beat_their_flags_until_these_change() -> Result<()> {
    let pair = Pair::new("chosen")?;
    let paths = ["/monitoring", "/accesslog", "/workload_metrics", "/connection_metrics"];
    let are = |meshd: &Meshd<'_>, wanted: [bool; 4]| {
        let states = paths.iter().map(|path| Ok(meshd.get(15200, path)?.body.trim() == "true"));
        let states = states.collect::<Result<Vec<_>>>()?;
        ensure!(states == wanted, "{paths:?} are {states:?}, not {wanted:?}");
        anyhow::Ok(())
    };
    let flags = ["--on-exit=keep", "--monitoring", "--access-log"];
    let mut meshd = Meshd::start(&pair.sandbox, &pair.mesh(), &flags)?;
    are(&meshd, [true, true, false, false])?;
    assert_eq!(meshd.post("/accesslog?enable=false", "")?.status, 200);
    assert_eq!(meshd.post("/workload_metrics?enable=true", "")?.status, 200);
    meshd.kill()?;
    let mut meshd = Meshd::start(&pair.sandbox, &pair.mesh(), &flags)?;
    are(&meshd, [true, false, true, false])?;

    // Monitoring off keeps what the others were set to, across a restart too.
    assert_eq!(meshd.post("/monitoring?enable=false", "")?.status, 200);
    meshd.signal(Signal::SIGTERM)?;
    meshd.ended(DEADLINE)?;
    let mut meshd = Meshd::start(&pair.sandbox, &pair.mesh(), &flags)?;
    are(&meshd, [false, false, true, false])?;
    meshd.kill()?;

    // A flag that changes is in force again, the others stand.
    let mut meshd = Meshd::start(&pair.sandbox, &pair.mesh(), &["--monitoring", "--on-exit=keep"])?;
    are(&meshd, [false, false, true, false])?;
    meshd.kill()?;
    let mut meshd = Meshd::start(&pair.sandbox, &pair.mesh(), &flags)?;
    are(&meshd, [false, true, true, false])?;
    assert_eq!(meshd.post("/monitoring?enable=true", "")?.status, 200);
    are(&meshd, [true, true, true, false])?;

    // What is detached leaves nothing.
    meshd.kill()?;
    let mut meshd = Meshd::start(&pair.sandbox, &pair.mesh(), &["--monitoring", "--access-log"])?;
    are(&meshd, [true, true, true, false])?;
    meshd.signal(Signal::SIGTERM)?;
    meshd.ended(DEADLINE)?;
    let meshd = Meshd::start(&pair.sandbox, &pair.mesh(), &flags)?;
    are(&meshd, [true, true, false, false])
}

#[test]
fn another_version_takes_over_open_connections_and_their_counters() -> Result<()> {
    let mut pair = Pair::new("upgraded")?;
    let (sandbox, service, mesh) = (&pair.sandbox, pair.service(), pair.mesh());
    let (client, server) = (&mut pair.client, &mut pair.server);
    let mut meshd = Meshd::start(sandbox, &mesh, ALL)?;
    client.open("a", &service, "l", server)?;
    client.send("a", 100, server)?;
    talk(client, server, &service, 7)?;
    meshd.eventually(|s| Truth { opened: 2, closed: 1, there: 107, back: 0 }.is_shown(s))?;
    meshd.kill()?;
    client.send("a", 50, server)?;
    let maps = sandbox.pinned_maps()?;
    fs::rename(&maps, maps.with_file_name("maps-0")).context("making them another version's")?;

    let meshd = Meshd::start(sandbox, &mesh, ALL)?;
    meshd.says("another version was replaced")?;
    client.send("a", 3, server)?;
    talk(client, server, &service, 4)?;
    let scrape = meshd.eventually(|s| {
        Truth { opened: 3, closed: 2, there: 164, back: 0 }.is_shown(s)?;
        s.shows("meshd_telemetry_kernel_connections_total", &[("event", "established")], 6.0)
    })?;
    scrape.shows("meshd_connections_adopted_total", &[], 0.0)?;
    client.close("a", server)?;
    meshd.eventually(|s| Truth { opened: 3, closed: 3, there: 164, back: 0 }.is_shown(s)).map(drop)
}

#[test]
fn killed_while_it_reads_what_found_no_room_it_counts_that_once_too() -> Result<()> {
    const CONNECTIONS: u32 = 12_000;
    const BYTES: u64 = 500;
    let mut pair = Pair::new("killfull")?;
    let sandbox = &pair.sandbox;
    pair.server.ask(format_args!("serve {}:9090", pair.server_pod.v4))?;
    let mesh = pair.mesh().service("churn", &[sandbox.vip(2).into()], &[(80, 9090)], &["server"]);
    let flags = with(&["--ring-slots=64", "--max-connections=64"]);
    let mut meshd = Meshd::start(sandbox, &mesh, &flags)?;
    pair.client.begin(format_args!("churn {}:80 {CONNECTIONS} {BYTES}", sandbox.vip(2)))?;
    for round in 0..12_u64 {
        meshd.kill()?;
        // Long enough dead for rings and maps to fill up, then for a while alive.
        let dead = Instant::now() + Duration::from_millis(100 + round * 20);
        eventually(DEADLINE, || {
            ensure!(Instant::now() > dead, "not yet");
            Ok(())
        })?;
        meshd = Meshd::spawn(sandbox, &flags)?;
        let ended = meshd.ended(Duration::from_millis(80 + round * 53 % 300));
        ensure!(ended.is_err(), "meshd has ended by itself: {}", meshd.log());
    }
    pair.client.finish()?;
    let bytes = u64::from(CONNECTIONS) * BYTES;
    let truth = Truth { opened: CONNECTIONS, closed: CONNECTIONS, there: bytes, back: bytes };
    meshd.ready()?;
    let scrape = meshd.eventually(|s| truth.is_shown(s))?;
    ensure!(scrape.total("meshd_telemetry_summed_total", &[]) > 100.0, "too few to need sums");
    for none in
        ["meshd_telemetry_lost_bytes_total", "meshd_telemetry_vanished_total", "meshd_telemetry_malformed_total"]
    {
        scrape.shows(none, &[], 0.0)?;
    }
    Ok(())
}
