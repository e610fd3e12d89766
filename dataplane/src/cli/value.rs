//! How the values of flags are read.

use std::time::Duration;

use clap::ValueEnum;
use tracing_subscriber::filter::LevelFilter;

/// Reads a switch as Go's `strconv.ParseBool` does: `1 t T TRUE true True` and `0 f F FALSE false False`.
///
/// # Errors
/// Any other text, with the texts that are allowed.
pub fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("use true or false (also 1, t, T, TRUE, True, 0, f, F, FALSE, False)".into()),
    }
}

/// Reads a duration with its unit: `5s`, `500ms`, `1m30s`.
///
/// # Errors
/// A number without unit, an unknown unit, or no number.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; write it as 5s or 500ms"))
}

/// Levels of the process's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// What needs somebody now
    Error,
    /// What somebody should look at
    #[value(alias = "warning")]
    Warn,
    /// Changes of state
    Info,
    /// Conditions
    Debug,
    /// Every event
    Trace,
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}
