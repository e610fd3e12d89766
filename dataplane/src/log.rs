//! The process's own log: standard error, text or JSON, levels that change at run time.

mod escape;

use std::{collections::BTreeMap, sync::Mutex};

use tracing_subscriber::{
    Layer, Registry, filter::LevelFilter, filter::Targets, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::cli::flags::Format;

/// Parts of the program whose level can be set alone, by the name of their module path.
const PARTS: [&str; 8] = [
    "cache",
    "telemetry",
    "xds",
    "dataplane::enrol",
    "dataplane::kernel",
    "dataplane::record",
    "dataplane::serve",
    "dataplane::sync",
];

/// The logger that stands for every part without a level of its own.
pub const DEFAULT: &str = "default";

/// The levels in force, by logger; setting one takes effect at once.
#[derive(Debug)]
pub struct Loggers {
    levels: Mutex<BTreeMap<&'static str, LevelFilter>>,
    filter: Option<reload::Handle<Targets, Registry>>,
}

/// Why a logger's level could not be shown or set.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LoggerError {
    /// No logger has this name.
    #[error("logger {0:?} does not exist")]
    UnknownName(String),
    /// No level has this name.
    #[error("level {0:?} does not exist: use off, error, warn, info, debug or trace")]
    UnknownLevel(String),
}

/// Starts the process's own log on standard error.
///
/// # Errors
/// A log was started before.
pub fn start(level: LevelFilter, format: Format) -> anyhow::Result<Loggers> {
    let (filter, handle) = reload::Layer::new(targets(&BTreeMap::from([(DEFAULT, level)])));
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(|| escape::Escaped(std::io::stderr()));
    let lines = match format {
        Format::Text => lines.boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).try_init()?;
    Ok(Loggers { levels: Mutex::new(BTreeMap::from([(DEFAULT, level)])), filter: Some(handle) })
}

impl Loggers {
    /// Makes loggers that stand for no log, for those who start none.
    pub fn detached(level: LevelFilter) -> Self {
        Self { levels: Mutex::new(BTreeMap::from([(DEFAULT, level)])), filter: None }
    }

    /// Returns the names of all loggers, the default one first.
    pub fn names(&self) -> Vec<&'static str> {
        std::iter::once(DEFAULT).chain(PARTS).collect()
    }

    /// Returns a logger's level in lower case.
    ///
    /// # Errors
    /// No logger has this name.
    pub fn level(&self, name: &str) -> Result<String, LoggerError> {
        let name = known(name)?;
        let levels = self.levels.lock().expect("no code panics while it holds the levels");
        let level = levels.get(name).or_else(|| levels.get(DEFAULT)).copied().unwrap_or(LevelFilter::INFO);
        Ok(level.to_string())
    }

    /// Sets a logger's level (`warning` is `warn`); it is in force when this returns.
    ///
    /// # Errors
    /// No logger or no level has this name.
    pub fn set(&self, name: &str, level: &str) -> Result<(), LoggerError> {
        let name = known(name)?;
        let wanted = if level.eq_ignore_ascii_case("warning") { "warn" } else { level };
        // A number is a level to LevelFilter, and nothing to the people who read this.
        let named = wanted.chars().all(|c| c.is_ascii_alphabetic()) && !wanted.is_empty();
        let parsed = wanted.parse::<LevelFilter>().ok().filter(|_| named);
        let parsed = parsed.ok_or_else(|| LoggerError::UnknownLevel(level.to_owned()))?;
        let mut levels = self.levels.lock().expect("no code panics while it holds the levels");
        levels.insert(name, parsed);
        if let Some(filter) = &self.filter {
            filter.reload(targets(&levels)).expect("the log lives as long as the process");
        }
        Ok(())
    }
}

fn known(name: &str) -> Result<&'static str, LoggerError> {
    let mut names = std::iter::once(DEFAULT).chain(PARTS);
    names.find(|n| *n == name).ok_or_else(|| LoggerError::UnknownName(name.to_owned()))
}

/// Libraries say only what is wrong until the default level asks for more than `info`.
fn targets(levels: &BTreeMap<&'static str, LevelFilter>) -> Targets {
    let default = levels.get(DEFAULT).copied().unwrap_or(LevelFilter::INFO);
    let libraries = if default > LevelFilter::INFO { LevelFilter::INFO } else { default.min(LevelFilter::WARN) };
    let ours = ["cache", "dataplane", "meshd", "telemetry", "xds"].map(|name| (name, default));
    let parts = levels.iter().filter(|(name, _)| **name != DEFAULT).map(|(name, level)| (*name, *level));
    Targets::new().with_default(libraries).with_targets(ours).with_targets(parts)
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::filter::LevelFilter;

    use super::{LoggerError, Loggers};

    #[test]
    fn a_level_that_was_set_is_shown_and_the_others_follow_the_default() {
        let loggers = Loggers::detached(LevelFilter::INFO);
        loggers.set("dataplane::enrol", "debug").unwrap();
        assert_eq!(loggers.level("dataplane::enrol").unwrap(), "debug");
        loggers.set("default", "WARNING").unwrap();
        assert_eq!(loggers.level("telemetry").unwrap(), "warn");
        assert_eq!(loggers.level("dataplane::enrol").unwrap(), "debug");
    }

    #[test]
    fn unknown_names_and_levels_change_nothing() {
        let loggers = Loggers::detached(LevelFilter::INFO);
        assert_eq!(loggers.set("nobody", "debug"), Err(LoggerError::UnknownName("nobody".into())));
        for level in ["loud", "3", ""] {
            assert_eq!(loggers.set("default", level), Err(LoggerError::UnknownLevel(level.into())));
        }
        assert_eq!(loggers.level("default").unwrap(), "info");
    }
}
