//! The least that `meshd` can do with, and what it keeps of more.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    Meshd,
    command::run,
    meshd::{ALL, mesh_file},
    retry::DEADLINE,
};

use crate::pair::{Pair, Truth, talk};

/// `CAP_NET_ADMIN`, `CAP_SYS_PTRACE`, `CAP_SYS_ADMIN`, `CAP_PERFMON`, `CAP_BPF`, by their numbers in `linux/capability.h`.
const NEEDED: u64 = 1 << 12 | 1 << 19 | 1 << 21 | 1 << 38 | 1 << 39;
const EXACTLY: &[&str] =
    &["setpriv", "--inh-caps=-all", "--bounding-set=-all,+net_admin,+sys_ptrace,+sys_admin,+perfmon,+bpf"];

/// What `/proc/PID/status` says of each thread.
fn threads(meshd: &Meshd<'_>) -> Result<Vec<BTreeMap<String, String>>> {
    let threads = fs::read_dir(format!("/proc/{}/task", meshd.pid())).context("listing meshd's threads")?;
    let mut all = Vec::new();
    for thread in threads {
        // One that ended meanwhile has nothing to say.
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
        let fields = status.lines().filter_map(|line| line.split_once(':'));
        all.push(fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect());
    }
    ensure!(all.len() > 3, "too few threads to be all of them: {all:#?}");
    Ok(all)
}

/// Checks that every thread has the rights that are needed and can get no others.
fn has_only_what_it_needs(meshd: &Meshd<'_>) -> Result<()> {
    let (needed, none) = (format!("{NEEDED:016x}"), "0".repeat(16));
    for thread in threads(meshd)? {
        let wanted = [
            ("CapPrm", needed.as_str()),
            ("CapEff", &needed),
            ("CapBnd", &needed),
            ("CapInh", &none),
            ("CapAmb", &none),
            ("NoNewPrivs", "1"),
            // A filter is in force.
            ("Seccomp", "2"),
        ];
        for (field, value) in wanted {
            ensure!(thread.get(field).is_some_and(|found| found == value), "{field} is not {value} in {thread:#?}");
        }
    }
    Ok(())
}

#[test]
fn a_daemon_of_root_keeps_what_it_needs_alone() -> Result<()> {
    let mut pair = Pair::new("leastrights")?;
    let service = pair.service();
    let meshd = Meshd::start(&pair.sandbox, &pair.mesh(), ALL)?;
    has_only_what_it_needs(&meshd)?;
    talk(&mut pair.client, &mut pair.server, &service, 7)?;
    meshd.eventually(|s| Truth { opened: 1, closed: 1, there: 7, back: 0 }.is_shown(s))?;
    has_only_what_it_needs(&meshd)
}

#[test]
fn five_capabilities_do_for_all_that_meshd_does() -> Result<()> {
    let mut pair = Pair::new("fivecaps")?;
    let (service, direct) = (pair.service(), pair.direct());
    fs::write(mesh_file(&pair.sandbox), pair.mesh().render())?;
    let (client, server) = (&mut pair.client, &mut pair.server);
    client.open("older", &direct, "l", server)?;

    let flags = [ALL, &["--on-exit=keep"]].concat();
    let start = || -> Result<_> {
        let mut meshd = Meshd::spawn_with(&pair.sandbox, EXACTLY, &flags)?;
        meshd.ready()?;
        has_only_what_it_needs(&meshd)?;
        Ok(meshd)
    };
    // Namespaces are found and entered, older connections adopted, connects steered, open connections pulled.
    let mut meshd = start()?;
    meshd.eventually(|s| s.shows("meshd_connections_adopted_total", &[], 2.0))?;
    client.open("open", &service, "l", server)?;
    client.send("open", 30, server)?;
    client.send("older", 5, server)?;
    meshd.eventually(|s| Truth { opened: 1, closed: 0, there: 35, back: 0 }.is_shown(s))?;
    meshd.logs(&[("state", "BPF_TCP_ESTABLISHED"), ("sent_bytes", "30")])?;
    // Switches load, attach and detach.
    for enable in ["false", "true"] {
        ensure!(meshd.post(&format!("/monitoring?enable={enable}"), "")?.status == 200, "enable={enable}");
    }
    // What is pinned is taken over, and taken away.
    meshd.signal(Signal::SIGTERM)?;
    ensure!(meshd.ended(DEADLINE)?.success(), "it says\n{}", meshd.log());
    let mut meshd = start()?;
    client.close("open", server)?;
    meshd.eventually(|s| {
        let ends = [("reporter", "source"), ("source_workload", "client")];
        s.shows("kmesh_tcp_connections_closed_total", &ends, 1.0)
    })?;
    meshd.kill()?;
    let detaching = [ALL, &["--on-exit=detach"]].concat();
    let mut last = Meshd::spawn_with(&pair.sandbox, EXACTLY, &detaching)?;
    last.ready()?;
    last.signal(Signal::SIGTERM)?;
    ensure!(last.ended(DEADLINE)?.success(), "it says\n{}", last.log());
    let (meshd, cgroup) = (tests::artifacts::meshd()?, pair.sandbox.cgroup());
    let left = run(&format!("{} uninstall --cgroup {}", meshd.display(), cgroup.display()))?;
    ensure!(left.starts_with("meshd has nothing attached"), "{left}");
    Ok(())
}

#[test]
fn each_capability_that_is_missing_is_named() -> Result<()> {
    let pair = Pair::new("fourcaps")?;
    fs::write(mesh_file(&pair.sandbox), pair.mesh().render())?;
    for name in ["net_admin", "sys_ptrace", "sys_admin", "perfmon", "bpf"] {
        let without = format!("--bounding-set=-{name}");
        let line = Meshd::spawn_with(&pair.sandbox, &["setpriv", "--inh-caps=-all", &without], ALL)?.refusal()?;
        let missing = format!("missing: CAP_{}", name.to_uppercase());
        ensure!(line.ends_with(&missing), "no `{missing}` at the end of `{line}`");
    }
    Ok(())
}
