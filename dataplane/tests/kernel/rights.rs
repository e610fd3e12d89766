//! What is said where the kernel does not allow something.

use std::{path::Path, process::Command};

use dataplane::kernel::{Kernel, Options, probe};

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
        let missing: Vec<_> = checks.iter().filter(|check| !check.ok && check.name != "capabilities").collect();
        assert!(missing.is_empty(), "{missing:#?}");
        assert!(checks.len() >= 12);
    });
}
