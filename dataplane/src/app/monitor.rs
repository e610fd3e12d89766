//! Telemetry in the kernel and its reader, together: what monitoring on and off mean.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{control::Programs, kernel::Kernel, record};

/// The kernel programs and the handle of the thread that reads what they write.
pub(super) struct Monitor {
    kernel: Mutex<Option<Kernel>>,
    record: record::Handle,
}

impl Monitor {
    pub(super) fn new(kernel: Kernel, record: record::Handle) -> Self {
        Self { kernel: Mutex::new(Some(kernel)), record }
    }

    /// Takes what there is a last time and leaves the programs attached.
    pub(super) async fn pause(self: Arc<Self>) -> anyhow::Result<()> {
        tokio::task::spawn_blocking(move || {
            self.record.look()?;
            self.record.end()
        })
        .await?
    }

    /// Ends the record thread.
    pub(super) fn rest(&self) {
        self.record.quit();
    }

    /// Lets go of the programs: they are taken out of the kernel or stay there, as the options say.
    pub(super) fn unload(&self) {
        drop(self.lock().take());
    }

    fn lock(&self) -> MutexGuard<'_, Option<Kernel>> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Programs for Monitor {
    fn prepare(&self) -> anyhow::Result<()> {
        self.record.begin()
    }

    fn attach(&self) -> anyhow::Result<()> {
        match self.lock().as_mut() {
            Some(kernel) => kernel.attach_telemetry().map(drop),
            None => anyhow::bail!("shutting down"),
        }
    }

    fn detach(&self) -> anyhow::Result<()> {
        self.record.look()?;
        self.lock().as_mut().map_or(Ok(()), Kernel::detach_telemetry)?;
        self.record.end()
    }
}
