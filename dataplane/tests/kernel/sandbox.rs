//! One test's world: a process in a cgroup of its own, and a thread in a network namespace of its own.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use dataplane::kernel::find_cgroup_root;
use nix::{
    sched::{CloneFlags, unshare},
    sys::resource::{Resource, getrlimit, setrlimit},
};

/// Set for the process that runs the test's body: its cgroup.
const INSIDE: &str = "MESHD_KERNEL_TEST_CGROUP";

/// How long anything may take before the test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A cgroup, removed by `Drop` with all that runs in it.
struct Cgroup(PathBuf);

impl Drop for Cgroup {
    fn drop(&mut self) {
        let begin = Instant::now();
        _ = fs::write(self.0.join("cgroup.kill"), "1");
        while fs::remove_dir(&self.0).is_err() && begin.elapsed() < DEADLINE {
            std::thread::yield_now();
        }
    }
}

/// Runs a test's body in a process of its own, in a cgroup of its own, on a thread that is alone in a network namespace with the
/// loopback interface up. `test` is the test's path, as `--exact` takes it.
pub(crate) fn inside(test: &str, body: impl FnOnce(&Path)) {
    if let Some(cgroup) = env::var_os(INSIDE) {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit of files");
        setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("it may be used up");
        new_namespace();
        body(Path::new(&cgroup));
        return;
    }
    assert!(nix::unistd::geteuid().is_root(), "kernel tests need root");
    let root = find_cgroup_root(Path::new("/proc")).expect("cgroup v2 is mounted");
    let name = format!("mk-{}-{}", test.replace("::", "-"), std::process::id());
    let cgroup = Cgroup(root.join(name));
    fs::create_dir(&cgroup.0).expect("root may make a cgroup");
    let output = Command::new("sh")
        .args(["-c", r#"echo $$ > "$0/cgroup.procs" && exec "$@""#])
        .arg(&cgroup.0)
        .arg(env::current_exe().expect("this program has a path"))
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(INSIDE, &cgroup.0)
        .stdin(Stdio::null())
        .output()
        .expect("sh runs");
    let words = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    eprintln!("{words}");
    assert!(output.status.success() && words.contains("1 passed"), "{test} failed");
}

/// Moves this thread, and those it will start, into a new network namespace. As in a pod there is a process in it, which ends with the cgroup:
/// by their processes namespaces are found.
pub(crate) fn new_namespace() {
    drop(new_pod());
}

/// As [`new_namespace`]; returns the process.
pub(crate) fn new_pod() -> Child {
    unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
    ip("link set lo up");
    let null = Stdio::null;
    let mut sleep = Command::new("sleep");
    sleep.arg("86400").stdin(null()).stdout(null()).stderr(null()).spawn().expect("sleep is installed")
}

/// Runs `ip` in this thread's namespace.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Changes a network setting of this thread's namespace.
pub(crate) fn sysctl(name: &str, value: &str) {
    fs::write(format!("/proc/sys/{}", name.replace('.', "/")), value).unwrap_or_else(|error| panic!("{name}: {error}"));
}
