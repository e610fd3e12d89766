//! Whether this node's pods can rely on us yet, and if not, why.

use std::{collections::BTreeMap, sync::Mutex};

/// What has to be so before we are ready; each comes true once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The first full state of the mesh is applied.
    State,
    /// It is programmed into the kernel's maps.
    Maps,
    /// Every workload of this node whose network namespace exists is enrolled.
    Enrolled,
}

/// What is still missing, by condition.
#[derive(Debug)]
pub struct Readiness {
    missing: Mutex<Missing>,
}

#[derive(Debug)]
struct Missing {
    conditions: BTreeMap<Condition, String>,
    draining: bool,
}

impl Default for Readiness {
    fn default() -> Self {
        let conditions = BTreeMap::from([
            (Condition::State, "the first full mesh state has not come yet".to_owned()),
            (Condition::Maps, "the mesh state is not in the kernel's maps yet".to_owned()),
            (Condition::Enrolled, "the workloads of this node are not enrolled yet".to_owned()),
        ]);
        Self { missing: Mutex::new(Missing { conditions, draining: false }) }
    }
}

impl Readiness {
    /// Says that a condition has come true; it stays so.
    pub fn met(&self, condition: Condition) {
        let mut missing = self.missing.lock().expect("no code panics while it holds this");
        if missing.conditions.remove(&condition).is_some() && missing.conditions.is_empty() {
            tracing::info!("ready");
        }
    }

    /// Says why a condition has not come true yet; nothing if it has.
    pub fn waiting(&self, condition: Condition, reason: String) {
        let mut missing = self.missing.lock().expect("no code panics while it holds this");
        if let Some(old) = missing.conditions.get_mut(&condition) {
            *old = reason;
        }
    }

    /// Says that we are about to leave: never ready again.
    pub fn drain(&self) {
        self.missing.lock().expect("no code panics while it holds this").draining = true;
    }

    /// Returns what is missing, one line each; ready is `Ok`.
    ///
    /// # Errors
    /// The lines.
    pub fn check(&self) -> Result<(), String> {
        let missing = self.missing.lock().expect("no code panics while it holds this");
        let draining = missing.draining.then_some("shutting down");
        let lines: Vec<_> = missing.conditions.values().map(String::as_str).chain(draining).collect();
        if lines.is_empty() { Ok(()) } else { Err(lines.join("\n")) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Condition, Readiness};

    #[test]
    fn ready_needs_every_condition_and_keeps_them() {
        let readiness = Readiness::default();
        readiness.met(Condition::State);
        readiness.met(Condition::Enrolled);
        readiness.waiting(Condition::Maps, "two services wait".into());
        assert_eq!(readiness.check(), Err("two services wait".into()));
        readiness.met(Condition::Maps);
        readiness.waiting(Condition::Maps, "late".into());
        assert_eq!(readiness.check(), Ok(()));
        readiness.drain();
        assert_eq!(readiness.check(), Err("shutting down".into()));
    }
}
