//! What turning a switch on or off entails.

use std::sync::Arc;

use telemetry::{Switch, Switches};
use tokio::sync::Mutex;

/// What the first switch moves; each step may block.
pub trait Programs: Send + Sync {
    /// Gets ready to take records, while monitoring still is off.
    ///
    /// # Errors
    /// Monitoring stays off.
    fn prepare(&self) -> anyhow::Result<()>;
    /// Loads the telemetry programs if that has not been done, and attaches them.
    ///
    /// # Errors
    /// Monitoring goes off again.
    fn attach(&self) -> anyhow::Result<()>;
    /// Detaches them and takes what they left.
    ///
    /// # Errors
    /// Monitoring stays on.
    fn detach(&self) -> anyhow::Result<()>;
}

/// The switches, and the kernel behind the first of them.
pub struct Control {
    switches: Arc<Switches>,
    programs: Arc<dyn Programs>,
    changing: Mutex<()>,
}

/// Why a switch stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A finer switch while monitoring is off.
    #[error("Kmesh monitoring is disabled, cannot enable {0}.")]
    MonitoringOff(&'static str),
    /// The programs could not be attached or detached.
    #[error(transparent)]
    Kernel(#[from] anyhow::Error),
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("switches", &self.switches).finish_non_exhaustive()
    }
}

impl Control {
    /// Makes the control of these switches; none is set here.
    pub fn new(switches: Arc<Switches>, programs: Arc<dyn Programs>) -> Self {
        Self { switches, programs, changing: Mutex::new(()) }
    }

    /// Returns what a switch is set to.
    pub fn get(&self, switch: Switch) -> bool {
        self.switches.get(switch)
    }

    /// Sets a switch. Monitoring turned on attaches the telemetry programs first, turned off detaches them after; the
    /// finer three keep what they were set to.
    ///
    /// # Errors
    /// A finer switch is turned on while monitoring is off, or the kernel refused; the switch stays as it was.
    pub async fn set(&self, switch: Switch, on: bool) -> Result<(), Refused> {
        let _one_at_a_time = self.changing.lock().await;
        if switch != Switch::Monitoring && on && !self.switches.get(Switch::Monitoring) {
            return Err(Refused::MonitoringOff(label(switch)));
        }
        if self.switches.get(switch) == on {
            return Ok(());
        }
        match (switch, on) {
            (Switch::Monitoring, true) => self.monitor().await?,
            (Switch::Monitoring, false) => {
                self.blocking(|programs| programs.detach()).await?;
                self.switches.set(switch, false);
            }
            (_, on) => drop(self.switches.set(switch, on)),
        }
        tracing::info!(switch = label(switch), on, "switch set");
        Ok(())
    }

    /// Monitoring is on before the first record can come.
    async fn monitor(&self) -> anyhow::Result<()> {
        self.blocking(|programs| programs.prepare()).await?;
        self.switches.set(Switch::Monitoring, true);
        let attached = self.blocking(|programs| programs.attach()).await;
        if attached.is_err() {
            self.switches.set(Switch::Monitoring, false);
        }
        attached
    }

    async fn blocking(
        &self,
        step: impl FnOnce(&dyn Programs) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let programs = self.programs.clone();
        tokio::task::spawn_blocking(move || step(&*programs)).await?
    }
}

fn label(switch: Switch) -> &'static str {
    match switch {
        Switch::Monitoring => "monitoring",
        Switch::AccessLog => "accesslog",
        Switch::WorkloadMetrics => "workload metrics",
        Switch::ConnectionMetrics => "connection metrics",
    }
}
