//! What this kernel and these rights allow, for `meshd doctor`.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::{Btf, Ebpf};

use super::{
    Options,
    accelerate::{self, JOIN},
    adopt, btf,
    carry::Older,
    cgroup, explain, netns, object,
    telemetry::SNAPSHOT,
    walk,
};
use crate::rights;

/// One thing that meshd needs or profits from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked for.
    pub name: &'static str,
    /// It is there.
    pub ok: bool,
    /// Without it `meshd run` does not start, or not with `--monitoring`.
    pub required: bool,
    /// What was found, in one line.
    pub found: String,
    /// What is lost without it.
    pub costs: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

const STEERING: &str = "no connect to a service address is steered, and meshd does not start";
const TELEMETRY: &str = "no connection is observed: --monitoring does not start";
const NAMESPACES: &str =
    "open connections are found namespace by namespace, which takes the longer the more pods and connections there are";
const BY_PACKETS: &str =
    "open connections report by their packets: idle ones are not seen, and two programs run per packet";
const NEWER: &str = "run Linux 6.1 or newer";
const RIGHTS: &str = "run as root, or with CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN and CAP_SYS_PTRACE";

/// Looks for everything, loading each program by itself and attaching none. `cgroup` is the directory meshd would attach to, if not the
/// cgroup v2 root; `proc` is where the host's processes are seen.
pub fn probe(cgroup: Option<&Path>, proc: &Path) -> Vec<Check> {
    let mut checks = vec![kernel(), capabilities(), filter(), types(), host(proc), directory(cgroup, proc)];
    checks.extend(programs(proc));
    checks
}

fn check(name: &'static str, found: Result<String>, costs: &'static str, remedy: &'static str) -> Check {
    let ok = found.is_ok();
    let found = found.unwrap_or_else(|error| format!("{error:#}"));
    Check { name, ok, required: true, found, costs, remedy }
}

/// As [`check`], of something that can be done without.
fn optional(name: &'static str, found: Result<String>, costs: &'static str, remedy: &'static str) -> Check {
    Check { required: false, ..check(name, found, costs, remedy) }
}

fn kernel() -> Check {
    let (release, version) = explain::kernel_version();
    let found = match version {
        Some(version) if version < explain::OLDEST => Err(anyhow::anyhow!("Linux {release}")),
        _ => Ok(format!("Linux {release}")),
    };
    optional("kernel", found, "what is older is not tried; the programs below may load or not", NEWER)
}

/// Names the capabilities that this process should have and has not, and what to do about it.
pub(super) fn rights() -> Result<()> {
    missing_capabilities().with_context(|| format!("this process may not do its work; {RIGHTS}"))
}

fn missing_capabilities() -> Result<()> {
    let missing = rights::missing()?;
    anyhow::ensure!(missing.is_empty(), "missing: {}", missing.join(", "));
    Ok(())
}

fn capabilities() -> Check {
    let found = missing_capabilities().map(|()| "all that are needed".to_owned());
    check("capabilities", found, "programs can not be loaded, or the namespaces of pods not be found", RIGHTS)
}

fn filter() -> Check {
    let found = rights::filters().map(|()| "supported".to_owned());
    let costs = "meshd does its work, but whoever took it over could write files and run programs";
    optional("system call filter (seccomp)", found, costs, "run a kernel built with CONFIG_SECCOMP_FILTER=y")
}

fn types() -> Check {
    let found = btf::kernel().and_then(|types| types.offsets()).map(|offsets| {
        format!("every field that is read (sk_err at {}, bytes_acked at {})", offsets.error, offsets.bytes_acked)
    });
    check("type information (BTF)", found, STEERING, "run a kernel built with CONFIG_DEBUG_INFO_BTF=y")
}

fn host(proc: &Path) -> Check {
    let found = netns::host_netns_cookie(proc).and_then(|host| {
        let own = netns::current()?;
        Ok(format!("host {host}, this process {own}"))
    });
    let remedy =
        "in a pod: hostPID and --proc with the host's /proc; Linux 5.14 or newer; CAP_SYS_PTRACE and CAP_SYS_ADMIN";
    check("network namespace cookies", found, STEERING, remedy)
}

fn directory(cgroup: Option<&Path>, proc: &Path) -> Check {
    let found = cgroup.map_or_else(|| cgroup::find_cgroup_root(proc), |path| Ok(path.to_owned())).and_then(|path| {
        cgroup::open(&path)?;
        Ok(path.display().to_string())
    });
    check("cgroup v2", found, STEERING, "mount cgroup v2, or name its directory with --cgroup")
}

fn programs(proc: &Path) -> Vec<Check> {
    const PACKET: &str = "--progress packet does not work";
    const COSTS: [(&str, &str, &str); 6] = [
        ("connect4", "program connect4 (IPv4 steering)", STEERING),
        ("connect6", "program connect6 (IPv6 steering)", STEERING),
        ("lifecycle", "program sock_ops (opened, closed, failed)", TELEMETRY),
        ("release", "program sock_release (connects that never left)", TELEMETRY),
        ("packet_ingress", "program cgroup_skb ingress", PACKET),
        ("packet_egress", "program cgroup_skb egress", PACKET),
    ];
    let small = Options {
        proc: proc.to_owned(),
        max_connections: 1,
        max_services: 1,
        max_endpoints: 1,
        ring_slots: Some(16),
        ..Options::default()
    };
    let loaded = btf::kernel().and_then(|types| object::load(&small, &types, None, &Older::default()));
    let mut ebpf = match loaded {
        Ok(ebpf) => ebpf,
        Err(error) => return vec![check("maps", Err(error), STEERING, RIGHTS)],
    };
    let mut checks = vec![check("maps", Ok("all kinds".to_owned()), STEERING, RIGHTS)];
    for (program, name, costs) in COSTS {
        let found = object::load_program(&mut ebpf, program).map(|()| "loads".to_owned());
        let made = if costs == PACKET { optional } else { check };
        checks.push(made(name, found.map_err(|error| explain::load(error, "load it")), costs, NEWER));
    }
    let (costs, remedy) = match open(&mut ebpf) {
        Ok(_) => (
            NAMESPACES,
            "run a kernel that lets programs iterate over the elements of a map, as Linux does unless it is hardened",
        ),
        Err(_) => (BY_PACKETS, NEWER),
    };
    checks.push(optional("iterator over socket storage", iterator(&mut ebpf), costs, remedy));
    let costs = "connections older than meshd, or than their pod's enrolment, are not seen";
    checks.push(optional("iterator over TCP sockets", older(&mut ebpf), costs, NEWER));
    let costs = "--accelerate does not work";
    checks.push(optional(
        "socket redirect",
        redirect(&mut ebpf),
        costs,
        "run a kernel built with CONFIG_NET_SOCK_MSG=y",
    ));
    checks
}

fn redirect(ebpf: &mut Ebpf) -> Result<String> {
    accelerate::load_message(ebpf)?;
    let btf = kernel_types()?;
    walk::load_storage(ebpf, &btf, JOIN).or_else(|_| walk::load_tcp(ebpf, &btf, JOIN))?;
    Ok("loads".to_owned())
}

fn older(ebpf: &mut Ebpf) -> Result<String> {
    adopt::load(ebpf, &kernel_types()?)?;
    Ok("loads".to_owned())
}

fn iterator(ebpf: &mut Ebpf) -> Result<String> {
    walk::load_storage(ebpf, &kernel_types()?, SNAPSHOT)?;
    Ok("loads".to_owned())
}

/// What there is in its place.
fn open(ebpf: &mut Ebpf) -> Result<()> {
    walk::load_tcp(ebpf, &kernel_types()?, SNAPSHOT)
}

fn kernel_types() -> Result<Btf> {
    Btf::from_sys_fs().context("cannot read the kernel's types")
}
