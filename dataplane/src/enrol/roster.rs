//! Which namespaces there are and which of them are enrolled.

use std::{
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustc_hash::{FxHashMap, FxHashSet};

use super::namespace::Seen;
use crate::process::{Holder, Inode, Processes};

/// A namespace this young is looked into with every pass: its addresses may be on their way.
const YOUNG: Duration = Duration::from_secs(60);
/// How often an older one is looked into.
const SELDOM: Duration = Duration::from_secs(10);

/// The kernel's side of enrolment.
pub(super) trait Manager {
    /// Enrols the namespace of a cookie.
    fn enrol(&mut self, cookie: u64) -> anyhow::Result<()>;
    /// Takes it out again.
    fn remove(&mut self, cookie: u64) -> anyhow::Result<()>;
}

/// What a pass could not do, by what it was about.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Failures {
    /// Processes whose namespace we may not see.
    pub(super) denied: usize,
    /// Namespaces that could not be entered.
    pub(super) unvisited: usize,
    /// Namespaces that could not be written to the manager map.
    pub(super) unwritten: usize,
    /// The first of them, in words.
    pub(super) first: Option<String>,
}

/// Every namespace known, by inode.
#[derive(Debug, Default)]
pub(super) struct Roster {
    namespaces: FxHashMap<Inode, Namespace>,
}

#[derive(Debug)]
struct Namespace {
    holder: Holder,
    seen: Option<Seen>,
    found: Instant,
    visited: Instant,
    enrolled: bool,
    /// How many times telemetry had been attached when it was searched for older connections, while it is managed.
    searched: Option<u64>,
}

impl Roster {
    /// Returns how many namespaces are enrolled.
    pub(super) fn enrolled(&self) -> usize {
        self.namespaces.values().filter(|n| n.enrolled).count()
    }

    /// Tells whether every process by which we hold an enrolled namespace still lives in it.
    pub(super) fn holds(&self) -> bool {
        self.namespaces.values().all(|n| !n.enrolled || n.holder.holds())
    }

    /// Tells whether a live namespace has this cookie.
    pub(super) fn knows(&self, cookie: u64) -> bool {
        self.namespaces.values().any(|n| n.seen.as_ref().is_some_and(|seen| seen.cookie == cookie))
    }

    /// Tells whether the namespace of this cookie is enrolled.
    pub(super) fn has_enrolled(&self, cookie: u64) -> bool {
        self.namespaces.values().any(|n| n.enrolled && n.seen.as_ref().is_some_and(|seen| seen.cookie == cookie))
    }

    /// Iterates over the namespaces that were looked into: their cookies, and their addresses, workloads' before others.
    pub(super) fn addresses(&self, wanted: &FxHashSet<IpAddr>) -> impl Iterator<Item = (u64, Vec<IpAddr>)> {
        self.namespaces.values().filter_map(|n| n.seen.as_ref()).map(|seen| {
            let mut addresses = seen.addresses.clone();
            addresses.sort_by_key(|address| !wanted.contains(address));
            (seen.cookie, addresses)
        })
    }

    /// Counts the workloads, given by their addresses, that no enrolled namespace holds.
    pub(super) fn missing<'a>(&self, workloads: impl Iterator<Item = &'a Box<[IpAddr]>>) -> usize {
        let enrolled = self.namespaces.values().filter(|n| n.enrolled).filter_map(|n| n.seen.as_ref());
        let held: FxHashSet<IpAddr> = enrolled.flat_map(|seen| seen.addresses.iter().copied()).collect();
        workloads.filter(|addresses| !addresses.iter().any(|address| held.contains(address))).count()
    }

    /// Looks at all processes, and into namespaces that are new or may have changed. A namespace whose last process has
    /// ended is forgotten, and taken out of the manager map.
    pub(super) fn look(
        &mut self,
        processes: &Processes,
        never: &[Inode],
        visit: impl FnOnce(Vec<(Inode, io::Result<OwnedFd>)>) -> Vec<io::Result<Seen>>,
        manager: &mut impl Manager,
        failures: &mut Failures,
    ) -> io::Result<()> {
        let found = processes.look()?;
        failures.denied = found.denied;
        let gone: Vec<_> = self.namespaces.extract_if(|inode, _| !found.namespaces.contains_key(inode)).collect();
        for (_, namespace) in gone {
            leave(namespace, manager, failures);
        }

        let now = Instant::now();
        let mut due = Vec::new();
        for (&inode, &pid) in found.namespaces.iter().filter(|(inode, _)| !never.contains(inode)) {
            match self.namespaces.get_mut(&inode) {
                Some(known) if known.holder.holds() => {
                    let wait = if now.duration_since(known.found) < YOUNG { Duration::ZERO } else { SELDOM };
                    if known.seen.is_none() || (!known.enrolled && now.duration_since(known.visited) >= wait) {
                        due.push(inode);
                    }
                }
                // The process is gone: the namespace may live on in others, or the inode be another namespace's by now.
                // Its cookie tells.
                known => {
                    let Ok(holder) = processes.holder(pid, inode) else { continue };
                    match known {
                        Some(known) => known.holder = holder,
                        None => {
                            let (found, visited) = (now, now);
                            let namespace =
                                Namespace { holder, seen: None, found, visited, enrolled: false, searched: None };
                            self.namespaces.insert(inode, namespace);
                        }
                    }
                    due.push(inode);
                }
            }
        }
        if !due.is_empty() {
            let opened = due.iter().map(|inode| (*inode, self.namespaces[inode].holder.open())).collect();
            for (inode, seen) in due.into_iter().zip(visit(opened)) {
                self.visited(inode, seen, manager, failures);
            }
        }
        Ok(())
    }

    fn visited(&mut self, inode: Inode, seen: io::Result<Seen>, manager: &mut impl Manager, failures: &mut Failures) {
        let Some(namespace) = self.namespaces.get_mut(&inode) else { return };
        namespace.visited = Instant::now();
        match seen {
            Ok(seen) => {
                let old = namespace.seen.replace(seen);
                if let Some(old) =
                    old.filter(|old| namespace.seen.as_ref().is_some_and(|seen| seen.cookie != old.cookie))
                {
                    namespace.searched = None;
                    if std::mem::take(&mut namespace.enrolled) {
                        written(manager.remove(old.cookie), failures);
                    }
                }
            }
            // Its last process has just ended.
            Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) => {
                failures.unvisited += 1;
                failures.first.get_or_insert_with(|| format!("network namespace {inode} cannot be entered: {error}"));
            }
        }
    }

    /// Enrols the namespaces that hold one of these addresses and takes the others out.
    pub(super) fn settle(&mut self, wanted: &FxHashSet<IpAddr>, manager: &mut impl Manager, failures: &mut Failures) {
        for namespace in self.namespaces.values_mut() {
            let Some(seen) = &namespace.seen else { continue };
            let is_wanted = seen.addresses.iter().any(|address| wanted.contains(address));
            match (is_wanted, namespace.enrolled) {
                (true, false) => namespace.enrolled = written(manager.enrol(seen.cookie), failures),
                (false, true) => namespace.enrolled = !written(manager.remove(seen.cookie), failures),
                _ => {}
            }
        }
    }

    /// Has those namespaces searched that are managed, by mesh state or as `managed` tells of a cookie, and have not been since telemetry
    /// was attached the `attached`th time. Returns what kept it from that.
    pub(super) fn search(
        &mut self,
        attached: u64,
        managed: impl Fn(u64) -> bool,
        adopt: impl Fn(io::Result<OwnedFd>) -> anyhow::Result<()>,
    ) -> Vec<anyhow::Error> {
        let mut failed = Vec::new();
        for (inode, namespace) in &mut self.namespaces {
            let Some(seen) = &namespace.seen else { continue };
            if !(namespace.enrolled || managed(seen.cookie)) {
                namespace.searched = None;
            } else if namespace.searched != Some(attached) {
                match adopt(namespace.holder.open()) {
                    Ok(()) => namespace.searched = Some(attached),
                    Err(error) => failed.push(error.context(format!("network namespace {inode} cannot be searched"))),
                }
            }
        }
        failed
    }
}

fn leave(namespace: Namespace, manager: &mut impl Manager, failures: &mut Failures) {
    if let Some(seen) = namespace.seen.filter(|_| namespace.enrolled) {
        written(manager.remove(seen.cookie), failures);
    }
}

fn written(result: anyhow::Result<()>, failures: &mut Failures) -> bool {
    if let Err(error) = &result {
        failures.unwritten += 1;
        failures.first.get_or_insert_with(|| format!("the map of managed namespaces cannot be written: {error:#}"));
    }
    result.is_ok()
}

#[cfg(test)]
mod tests;
