//! Says what a refusal of the kernel means and what to do about it.

use std::{fmt::Write as _, io};

use anyhow::{Error, anyhow};
use aya::programs::ProgramError;

use crate::rights;

/// The oldest kernel that the programs are known to load on.
pub(super) const OLDEST: (u32, u32) = (6, 1);

/// Makes one clear line of why something could not be done with the kernel.
pub(super) fn load(error: Error, what: &str) -> Error {
    let errno = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).and_then(io::Error::raw_os_error);
    let verdict = error.chain().find_map(|cause| match cause.downcast_ref::<ProgramError>() {
        Some(ProgramError::LoadError { verifier_log, .. }) => Some(last_words(&verifier_log.to_string())),
        _ => None,
    });
    let (release, version) = kernel_version();
    let reason = match errno {
        Some(libc::EPERM | libc::EACCES) if verdict.as_deref().is_none_or(str::is_empty) => {
            if rights::missing().is_ok_and(|missing| missing.is_empty()) {
                "this kernel permits it to nobody".to_owned()
            } else {
                "the kernel does not permit it; run as root, or with CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN"
                    .to_owned()
            }
        }
        Some(libc::ENOMEM) => {
            "the kernel has no memory for it, or the limit of locked memory is too low (ulimit -l)".to_owned()
        }
        _ => {
            let mut reason =
                errno.map_or_else(|| format!("{error:#}"), |errno| io::Error::from_raw_os_error(errno).to_string());
            if let Some(words) = verdict.filter(|words| !words.is_empty()) {
                _ = write!(reason, ": {words}");
            }
            if version.is_some_and(|version| version < OLDEST) {
                _ = write!(reason, "; Linux {release} is older than {}.{}, the oldest known to do", OLDEST.0, OLDEST.1);
            }
            reason
        }
    };
    anyhow!("cannot {what}: {reason}")
}

/// What the verifier said last, without its statistics.
fn last_words(log: &str) -> String {
    let statistics = ["processed ", "verification time", "stack depth", "max_states", "insns_processed"];
    log.lines()
        .rfind(|line| !line.is_empty() && !statistics.iter().any(|begin| line.starts_with(begin)))
        .unwrap_or("")
        .to_owned()
}

/// The running kernel's release, and its first two numbers.
pub(super) fn kernel_version() -> (String, Option<(u32, u32)>) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let version = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    };
    (release, version)
}
