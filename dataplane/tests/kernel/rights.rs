//! What is said where the kernel does not allow something.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::Path,
    process::Command,
    thread,
};

use dataplane::{
    kernel::{Kernel, Options, probe},
    rights,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

use crate::{sandbox::inside, world::options};

const WITHOUT: &str = "MESHD_KERNEL_TEST_WITHOUT_RIGHTS";

#[test]
fn no_rights_is_one_line_that_names_them() {
    if let Some(cgroup) = std::env::var_os(WITHOUT) {
        let error = Kernel::load(&options(Path::new(&cgroup))).err().expect("no rights").to_string();
        assert!(error.contains("CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN"), "{error}");
        let checks = probe(Some(Path::new(&cgroup)), Path::new("/proc"));
        let missing: Vec<_> = checks.iter().filter(|check| !check.ok).map(|check| check.name).collect();
        assert!(missing.contains(&"capabilities"), "{checks:#?}");
        return;
    }
    inside("rights::no_rights_is_one_line_that_names_them", |cgroup| {
        let output = Command::new("setpriv")
            .args(["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"])
            .arg(std::env::current_exe().expect("this program has a path"))
            .args(["--exact", "rights::no_rights_is_one_line_that_names_them", "--nocapture"])
            .env(WITHOUT, cgroup)
            .output()
            .expect("util-linux is installed");
        let words = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && words.contains("1 passed"), "{words}");
    });
}

#[test]
fn a_confined_process_reads_and_neither_writes_files_nor_runs_programs() {
    inside("rights::a_confined_process_reads_and_neither_writes_files_nor_runs_programs", |_| {
        let directory = tempfile::tempdir().expect("a directory for a file");
        let file = directory.path().join("file");
        fs::write(&file, "before").expect("nothing refuses that yet");
        // A thread that is older is confined too.
        let (go, wait) = std::sync::mpsc::sync_channel::<()>(0);
        let path = file.clone();
        let older = thread::spawn(move || wait.recv().map(|()| fs::write(path, "after")));
        rights::confine().expect("the kernel filters");
        go.send(()).expect("the thread waits");

        let refused = |result: io::Result<()>, what: &str| {
            assert_eq!(result.map_err(|error| error.kind()), Err(io::ErrorKind::PermissionDenied), "{what}");
        };
        refused(older.join().expect("it does not panic").expect("it was told"), "write, another thread");
        refused(OpenOptions::new().append(true).open(&file).map(drop), "append");
        refused(OpenOptions::new().read(true).write(true).open(&file).map(drop), "read and write");
        refused(File::create(directory.path().join("new")).map(drop), "create");
        refused(fs::rename(&file, directory.path().join("renamed")), "rename");
        refused(fs::hard_link(&file, directory.path().join("linked")), "link");
        refused(std::os::unix::fs::symlink(&file, directory.path().join("linked")), "symlink");
        refused(fs::set_permissions(&file, fs::metadata(&file).expect("it is there").permissions()), "chmod");
        refused(Command::new("true").status().map(drop), "exec");
        refused(
            mount(None::<&str>, "/tmp", Some("tmpfs"), MsFlags::empty(), None::<&str>).map_err(Into::into),
            "mount",
        );
        refused(unshare(CloneFlags::CLONE_NEWNS).map_err(Into::into), "unshare");
        let own = |kind: &str| File::open(format!("/proc/thread-self/ns/{kind}")).expect("it may be looked at");
        refused(setns(own("uts"), CloneFlags::CLONE_NEWUTS).map_err(Into::into), "another namespace");

        setns(own("net"), CloneFlags::CLONE_NEWNET).expect("a network namespace may be entered");
        assert_eq!(fs::read_to_string(&file).expect("it may be read"), "before");
    });
}

#[test]
fn what_is_no_cgroup_is_refused_by_name() {
    let options = |cgroup: &str| Options { cgroup: cgroup.into(), ..Options::default() };
    let error = Kernel::load(&options("/tmp")).err().expect("no cgroup").to_string();
    assert!(error.contains("/tmp is not a cgroup v2 directory"), "{error}");
    let error = Kernel::load(&options("/nowhere")).err().expect("no cgroup").to_string();
    assert!(error.contains("cannot open the cgroup /nowhere"), "{error}");
}

#[test]
fn everything_is_found_on_a_kernel_that_has_it() {
    inside("rights::everything_is_found_on_a_kernel_that_has_it", |cgroup| {
        let checks = probe(Some(cgroup), Path::new("/proc"));
        let is_there = |name| checks.iter().any(|check| check.name == name && check.ok);
        // Hardened kernels have the second alone, and that does for the first.
        let (storage, tcp) = ("iterator over socket storage", "iterator over TCP sockets");
        let missing = checks.iter().filter(|check| !check.ok && ![storage, "capabilities"].contains(&check.name));
        let missing: Vec<_> = missing.collect();
        assert!(missing.is_empty(), "{missing:#?}");
        assert!(is_there(tcp) && checks.iter().any(|check| check.name == storage));
        assert!(checks.len() >= 12);
    });
}
