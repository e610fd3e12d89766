use std::{collections::BTreeSet, fs, io, net::IpAddr, os::fd::OwnedFd};

use rustc_hash::FxHashMap;
use tempfile::TempDir;

use super::{Failures, Manager, Roster};
use crate::enrol::{
    namespace::Seen,
    process::{Inode, Processes, tests::process},
};

/// A host made up: its processes, and what a visit to each namespace finds.
struct Host {
    proc: TempDir,
    inside: FxHashMap<u64, Seen>,
    map: Map,
    roster: Roster,
}

/// A manager map with room for `room` namespaces.
struct Map {
    cookies: BTreeSet<u64>,
    room: usize,
}

impl Manager for Map {
    fn enrol(&mut self, cookie: u64) -> anyhow::Result<()> {
        anyhow::ensure!(self.cookies.len() < self.room, "the map is full");
        assert!(self.cookies.insert(cookie), "enrolled twice");
        Ok(())
    }
    fn remove(&mut self, cookie: u64) -> anyhow::Result<()> {
        assert!(self.cookies.remove(&cookie), "taken out twice");
        Ok(())
    }
}

const HOST: Inode = 1000;

impl Host {
    fn new() -> Self {
        let proc = tempfile::tempdir().unwrap();
        let mut host = Self {
            proc,
            inside: FxHashMap::default(),
            map: Map { cookies: BTreeSet::new(), room: 10 },
            roster: Roster::default(),
        };
        host.start(1, HOST, 1, "10.0.0.1");
        host
    }

    fn start(&mut self, pid: u32, inode: Inode, cookie: u64, address: &str) {
        process(self.proc.path(), pid, inode);
        let file = fs::File::create(self.proc.path().join(format!("{pid}/inside"))).unwrap();
        drop(file);
        self.inside.insert(inode, Seen { cookie, addresses: vec![address.parse().unwrap()] });
    }

    fn end(&self, pid: u32) {
        fs::remove_dir_all(self.proc.path().join(pid.to_string())).unwrap();
    }

    /// Looks once, with these addresses wanted; returns the namespaces that were visited.
    fn pass(&mut self, wanted: &[&str]) -> (Vec<u64>, Failures) {
        let mut failures = Failures::default();
        let mut visited = Vec::new();
        let inside = &self.inside;
        let visit = |namespaces: Vec<(Inode, io::Result<OwnedFd>)>| {
            let visits = namespaces.into_iter().map(|(inode, _)| {
                visited.push(inode);
                inside.get(&inode).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::PermissionDenied))
            });
            visits.collect()
        };
        let processes = Processes::open(self.proc.path()).unwrap();
        self.roster.look(&processes, &[HOST], visit, &mut self.map, &mut failures).unwrap();
        let wanted = wanted.iter().map(|a| a.parse::<IpAddr>().unwrap()).collect();
        self.roster.settle(&wanted, &mut self.map, &mut failures);
        visited.sort_unstable();
        (visited, failures)
    }

    fn managed(&self) -> Vec<u64> {
        self.map.cookies.iter().copied().collect()
    }

    fn covers(&self, workload: &[&str]) -> bool {
        let addresses: Box<[IpAddr]> = workload.iter().map(|a| a.parse().unwrap()).collect();
        self.roster.missing(std::iter::once(&addresses)) == 0
    }
}

#[test]
fn a_namespace_with_a_workload_s_address_is_enrolled_and_leaves_with_the_workload() {
    let mut host = Host::new();
    host.start(20, 2000, 2, "10.0.0.5");
    host.start(30, 3000, 3, "10.0.0.6");
    assert_eq!(host.pass(&["10.0.0.5"]), (vec![2000, 3000], Failures::default()));
    assert_eq!((host.managed(), host.roster.enrolled()), (vec![2], 1));
    assert!(host.covers(&["fd00::5", "10.0.0.5"]) && !host.covers(&["10.0.0.6"]));
    host.pass(&["10.0.0.6"]);
    assert_eq!(host.managed(), [3]);
    host.pass(&[]);
    assert_eq!(host.managed(), [0_u64; 0]);
}

#[test]
fn the_host_s_namespace_is_never_entered() {
    let mut host = Host::new();
    assert_eq!(host.pass(&["10.0.0.1"]).0, [0_u64; 0]);
    assert_eq!(host.managed(), [0_u64; 0]);
}

#[test]
fn a_namespace_goes_with_its_last_process_and_not_before() {
    let mut host = Host::new();
    host.start(20, 2000, 2, "10.0.0.5");
    host.start(21, 2000, 2, "10.0.0.5");
    host.pass(&["10.0.0.5"]);
    assert!(host.roster.holds());
    host.end(20);
    host.pass(&["10.0.0.5"]);
    assert!(host.roster.holds(), "the other process holds it");
    assert_eq!(host.managed(), [2]);
    host.end(21);
    assert!(!host.roster.holds());
    host.pass(&["10.0.0.5"]);
    assert_eq!((host.managed(), host.covers(&["10.0.0.5"])), (vec![], false));
}

#[test]
fn an_inode_used_again_is_another_namespace() {
    let mut host = Host::new();
    host.start(20, 2000, 2, "10.0.0.5");
    host.pass(&["10.0.0.5"]);
    host.end(20);
    host.start(20, 2000, 9, "10.0.0.5");
    host.pass(&["10.0.0.5"]);
    assert_eq!(host.managed(), [9]);
    host.end(20);
    host.start(20, 2000, 10, "10.0.0.7");
    host.pass(&["10.0.0.5"]);
    assert_eq!(host.managed(), [0_u64; 0]);
}

#[test]
fn addresses_that_come_late_are_found_and_enrolled_namespaces_are_left_alone() {
    let mut host = Host::new();
    host.start(20, 2000, 2, "10.0.0.5");
    host.start(30, 3000, 3, "10.9.9.9");
    host.pass(&["10.0.0.5", "10.0.0.6"]);
    host.inside.get_mut(&3000).unwrap().addresses = vec!["10.0.0.6".parse().unwrap()];
    assert_eq!(host.pass(&["10.0.0.5", "10.0.0.6"]).0, [3000]);
    assert_eq!(host.managed(), [2, 3]);
}

#[test]
fn what_fails_is_counted_and_tried_again() {
    let mut host = Host::new();
    host.start(20, 2000, 2, "10.0.0.5");
    host.start(30, 3000, 3, "10.0.0.6");
    let seen = host.inside.remove(&3000).unwrap();
    host.map.room = 0;
    let (_, failures) = host.pass(&["10.0.0.5", "10.0.0.6"]);
    assert_eq!((failures.unvisited, failures.unwritten), (1, 1));
    assert!(failures.first.is_some());
    host.inside.insert(3000, seen);
    host.map.room = 2;
    assert_eq!(host.pass(&["10.0.0.5", "10.0.0.6"]), (vec![2000, 3000], Failures::default()));
    assert_eq!(host.managed(), [2, 3]);
}
