//! Running a program to its end.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

/// Runs a command line of words without blanks and returns its standard output; a failure carries the standard error.
pub fn run(line: &str) -> Result<String> {
    run_with(line, "")
}

/// Runs a command line with a text as its standard input.
pub fn run_with(line: &str, input: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().context("an empty command line")?);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().with_context(|| format!("starting `{line}`; ./setup.sh installs what tests need"))?;
    let mut stdin = child.stdin.take().expect("standard input is piped");
    let text = input.to_owned();
    // From a thread of its own, so that a long input and a long output do not wait for each other. A program may end unread.
    let writer = std::thread::spawn(move || drop(stdin.write_all(text.as_bytes())));
    let output = child.wait_with_output().with_context(|| format!("waiting for `{line}`"))?;
    writer.join().expect("the writer does not panic");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "`{line}`: {}: {}{}", output.status, err.trim(), out.trim());
    Ok(out.into_owned())
}
