//! `meshd`: parse, build, wait.

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, error::ErrorKind};
use dataplane::{
    app,
    cli::{Cli, Command, Run, without_empty_variables},
    doctor, log, memory, version,
};

fn main() -> ExitCode {
    let matches = without_empty_variables(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match cli.command {
        Command::Run(flags) => run(&flags),
        Command::Doctor(flags) => doctor::run(&flags),
        Command::Version(flags) => version::run(&flags),
    }
}

fn run(flags: &Run) -> ExitCode {
    if let Err(text) = flags.check() {
        Cli::command().error(ErrorKind::ArgumentConflict, text).exit();
    }
    memory::few_arenas();
    let result = log::start(flags.log_level.into(), flags.log_format).and_then(|loggers| app::run(flags, loggers));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
