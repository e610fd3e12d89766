//! When the namespaces of pods are searched for connections that are older than telemetry, or than their enrolment.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use rustc_hash::FxHashSet;

use super::{LOOK, roster::Roster};
use crate::kernel::{Adopter, Manager};

/// How rarely at last a namespace is looked for that no process shows, or that could not be searched.
const SELDOM: Duration = Duration::from_secs(60);

/// Searches each managed namespace once: what is opened there later is seen anyway. Telemetry that is attached anew begins anew.
#[derive(Debug)]
pub(super) struct Adoption {
    adopter: Adopter,
    /// Every namespace is managed.
    all: bool,
    /// How many times telemetry had been attached when namespaces were last searched.
    attached: Option<u64>,
    /// The namespaces that the CNI signal enrolled.
    signalled: FxHashSet<u64>,
    again: Option<Again>,
}

/// A search that is to be made again.
#[derive(Clone, Copy, Debug)]
struct Again {
    at: Instant,
    wait: Duration,
}

impl Adoption {
    pub(super) fn new(adopter: Adopter, all: bool) -> Self {
        Self { adopter, all, attached: None, signalled: FxHashSet::default(), again: None }
    }

    /// Tells whether a search is due: telemetry was attached, the CNI signal enrolled a namespace, or something is left from before.
    pub(super) fn due(&mut self, manager: &Manager) -> anyhow::Result<bool> {
        let Some(attached) = self.adopter.attached() else { return Ok(false) };
        let signalled: FxHashSet<_> = manager.signalled()?.into_iter().collect();
        let changed = signalled != self.signalled;
        self.signalled = signalled;
        Ok(changed || self.attached != Some(attached) || self.again.is_some_and(|again| Instant::now() >= again.at))
    }

    /// Searches what is managed and was not searched; returns what kept it from that.
    pub(super) fn search(&mut self, roster: &mut Roster) -> Vec<anyhow::Error> {
        let Some(attached) = self.adopter.attached() else { return Vec::new() };
        let adopt = |opened: io::Result<OwnedFd>| self.adopter.adopt(opened?.as_fd());
        let failed = roster.search(attached, |cookie| self.all || self.signalled.contains(&cookie), adopt);
        self.attached = Some(attached);
        let found = self.signalled.iter().all(|cookie| roster.knows(*cookie));
        let wait = self.again.map_or(LOOK, |again| (again.wait * 2).min(SELDOM));
        self.again = (!found || !failed.is_empty()).then(|| Again { at: Instant::now() + wait, wait });
        failed
    }
}
