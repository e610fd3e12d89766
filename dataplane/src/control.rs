//! What turning a switch on or off entails.

use std::sync::Arc;

use telemetry::{Switch, Switches};
use tokio::sync::Mutex;

use crate::kernel::Chosen;

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
    /// Held while a switch changes.
    chosen: Mutex<Option<Choices>>,
}

/// What was set at run time, and what the flags say.
#[derive(Debug)]
pub struct Choices {
    chosen: Chosen,
    flags: [(Switch, bool); 4],
}

impl Choices {
    /// Takes what was set at run time before, and what the flags say.
    pub fn new(chosen: Chosen, flags: [(Switch, bool); 4]) -> Self {
        Self { chosen, flags }
    }

    /// Returns what each switch is to be: what was set at run time beats the flag until the flag itself changes, and is forgotten then.
    pub fn wanted(&mut self) -> [(Switch, bool); 4] {
        let Self { chosen, flags } = self;
        flags.map(|(switch, flag)| {
            let wanted = chosen.wanted(number(switch), flag);
            match wanted == flag {
                true => saved(switch, chosen.forget(number(switch))),
                false => tracing::info!(switch = label(switch), on = wanted, flag, "switch as it was set at run time"),
            }
            (switch, wanted)
        })
    }

    fn remember(&mut self, switch: Switch, on: bool) {
        let flag = self.flags.iter().any(|(of, flag)| *of == switch && *flag);
        saved(switch, self.chosen.remember(number(switch), on, flag));
    }
}

fn saved(switch: Switch, saved: anyhow::Result<()>) {
    if let Err(error) = saved {
        tracing::warn!(switch = label(switch), error = format!("{error:#}"), "a restart will not know this switch");
    }
}

/// The number under which a switch is saved.
const fn number(switch: Switch) -> u32 {
    match switch {
        Switch::Monitoring => 0,
        Switch::AccessLog => 1,
        Switch::WorkloadMetrics => 2,
        Switch::ConnectionMetrics => 3,
    }
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
        Self { switches, programs, chosen: Mutex::new(None) }
    }

    /// Has what is set at run time from now on survive a restart.
    pub fn remembering(self, choices: Choices) -> Self {
        Self { chosen: Mutex::new(Some(choices)), ..self }
    }

    /// Sets a switch as [`Control::set`] does, and remembers that.
    ///
    /// # Errors
    /// As [`Control::set`].
    pub async fn choose(&self, switch: Switch, on: bool) -> Result<(), Refused> {
        let mut chosen = self.chosen.lock().await;
        self.turn(switch, on).await?;
        if let Some(choices) = &mut *chosen {
            choices.remember(switch, on);
        }
        Ok(())
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
        let _one_at_a_time = self.chosen.lock().await;
        self.turn(switch, on).await
    }

    async fn turn(&self, switch: Switch, on: bool) -> Result<(), Refused> {
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

    /// Goes on with monitoring that a process before has left attached: the switches are set as they are to be, and what waits to be read
    /// counts. If monitoring is off, it is turned off after that.
    ///
    /// # Errors
    /// The kernel refused; monitoring is off then.
    pub async fn resume(&self) -> anyhow::Result<()> {
        let _one_at_a_time = self.chosen.lock().await;
        let wanted = self.switches.set(Switch::Monitoring, true);
        let resumed = async {
            self.blocking(|programs| programs.prepare()).await?;
            self.blocking(|programs| programs.attach()).await?;
            if !wanted {
                self.blocking(|programs| programs.detach()).await?;
            }
            anyhow::Ok(wanted)
        };
        let resumed = resumed.await;
        if !matches!(resumed, Ok(true)) {
            self.switches.set(Switch::Monitoring, false);
        }
        resumed.map(drop)
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
