//! The programs under test, built once for all tests of a run.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context as _, Result, ensure};

static MESHD: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// Names the `meshd` to run, before any runs; who names none has it built.
pub fn use_meshd(path: PathBuf) {
    // The first to name one is right.
    drop(MESHD.set(Ok(path)));
}

/// Returns the `meshd` of this working tree, built with the profile of the tests; `TESTED_MESHD` names another one.
pub fn meshd() -> Result<&'static Path> {
    let built = MESHD.get_or_init(|| match env::var_os("TESTED_MESHD") {
        Some(path) => Ok(path.into()),
        None => build().map_err(|error| format!("{error:#}")),
    });
    built.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

/// Returns the `peer` that cargo built beside the tests.
pub fn peer() -> Result<PathBuf> {
    Ok(directory()?.join("peer"))
}

/// What `cargo test --workspace` builds too, `meshd` with the tests of its package: after that there is nothing left to do.
fn build() -> Result<PathBuf> {
    let directory = directory()?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--quiet", "--no-run", "--workspace"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if directory.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().context("running cargo to build meshd")?;
    ensure!(status.success(), "building meshd: {status}");
    Ok(directory.join("meshd"))
}

/// `target/<profile>`: cargo puts tests in its `deps` and programs into itself.
fn directory() -> Result<PathBuf> {
    let test = env::current_exe().context("finding the test itself")?;
    let directory = test.parent().and_then(Path::parent).context("a test two folders deep")?;
    Ok(directory.to_owned())
}
