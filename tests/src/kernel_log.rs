//! What the kernel complains of meanwhile.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{errno::Errno, fcntl::OFlag};

/// What a line has with which the kernel says that it is not well.
const COMPLAINTS: [&str; 10] = [
    "WARNING:",
    "BUG:",
    "Oops",
    "general protection fault",
    "kernel panic",
    "refcount_t:",
    "UBSAN:",
    "rcu: INFO:",
    "blocked for more than",
    "soft lockup",
];

/// The kernel's log, from a moment on.
#[derive(Debug)]
pub struct KernelLog(File);

impl KernelLog {
    /// Begins to follow it. Where it cannot be read no one could tell that the kernel did not complain: that is an error.
    pub fn begin() -> Result<Self> {
        const CANNOT: &str = "/dev/kmsg cannot be read, so warnings of the kernel would not be seen";
        let mut options = OpenOptions::new();
        let mut file = options.read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open("/dev/kmsg").context(CANNOT)?;
        file.seek(SeekFrom::End(0)).context(CANNOT)?;
        Ok(Self(file))
    }

    /// Says that the kernel has not complained since the last look, else what it said, and what else it said then.
    pub fn is_quiet(&mut self) -> Result<()> {
        let mut complaints = Vec::new();
        // One record a read: `priority,number,time,flags;text`.
        let mut record = vec![0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]).into_owned();
                    if !complaints.is_empty() || COMPLAINTS.iter().any(|complaint| text.contains(complaint)) {
                        complaints.push(text);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.raw_os_error() == Some(Errno::EPIPE as i32) => {
                    bail!("the kernel has said more than its log holds since the last look")
                }
                Err(error) => return Err(error).context("reading /dev/kmsg"),
            }
        }
        ensure!(complaints.is_empty(), "the kernel says\n{}", complaints.concat());
        Ok(())
    }
}
