//! `meshd`: parse, build, wait.

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use dataplane::{
    app,
    cli::{Cli, Command, Run, without_empty_variables},
    doctor, dump, explain, log, memory, rights, uninstall, version,
};

/// Exit code of a command line that makes no sense, as clap has it.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let matches = without_empty_variables(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match cli.command {
        Command::Run(flags) => run(&flags),
        Command::Doctor(flags) => doctor::run(&flags),
        Command::Dump(flags) => dump::run(&flags),
        Command::Explain(flags) => explain::run(&flags),
        Command::Uninstall(flags) => uninstall::run(&flags),
        Command::Version(flags) => version::run(&flags),
    }
}

fn run(flags: &Run) -> ExitCode {
    if let Err(text) = flags.check() {
        eprintln!("error: {text}");
        return ExitCode::from(USAGE);
    }
    memory::small_heaps();
    let result = log::start(flags.log_level.into(), flags.log_format).and_then(|loggers| {
        rights::reduce()?;
        app::run(flags, loggers)
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
