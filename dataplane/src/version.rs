//! What was built, and how.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde::Serialize;

use crate::cli;

/// The fields that `kmeshctl version` reads.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// Version of the release.
    pub git_version: &'static str,
    /// Commit it was built from, or `unknown` where the sources came without history.
    pub git_commit: &'static str,
    /// `clean`, `dirty` or `unknown`.
    pub git_tree_state: &'static str,
    /// When that commit was made, so that equal sources give equal programs; RFC 3339, or `unknown`.
    pub build_date: &'static str,
    /// The compiler.
    pub compiler: &'static str,
    /// Operating system and architecture.
    pub platform: String,
}

/// Returns the version of this program; what the build was not told (`MESHD_GIT_COMMIT` and so on) is `unknown`.
pub fn version() -> Version {
    Version {
        git_version: concat!("v", env!("CARGO_PKG_VERSION")),
        git_commit: told(option_env!("MESHD_GIT_COMMIT")),
        git_tree_state: told(option_env!("MESHD_GIT_TREE_STATE")),
        build_date: told(option_env!("MESHD_BUILD_DATE")),
        compiler: "rustc",
        platform: format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    }
}

fn told(by_the_build: Option<&'static str>) -> &'static str {
    by_the_build.filter(|text| !text.is_empty()).unwrap_or("unknown")
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { git_version, git_commit, git_tree_state, build_date, compiler, platform } = self;
        writeln!(f, "meshd {git_version} ({platform})")?;
        writeln!(f, "commit   {git_commit} ({git_tree_state})")?;
        writeln!(f, "built    {build_date}")?;
        write!(f, "compiler {compiler}")
    }
}

/// Prints the version.
pub fn run(flags: &cli::Version) -> ExitCode {
    let version = version();
    let text = if flags.json { serde_json::to_string(&version).unwrap_or_default() } else { version.to_string() };
    // Who closed our output does not want it.
    let printed: io::Result<()> = writeln!(io::stdout(), "{text}");
    if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
