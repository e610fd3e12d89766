//! The command line of `meshd`.

pub mod dump;
pub mod explain;
pub mod flags;
pub mod value;

use clap::{Parser, Subcommand};

pub use dump::Dump;
pub use explain::Explain;
pub use flags::{Format, Manage, Metadata, OnExit, Progress, Run};

/// A service mesh's data plane for one node: steers TCP connections in the kernel and observes them there.
#[derive(Debug, Parser)]
#[command(name = "meshd", max_term_width = 110, disable_version_flag = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the data plane until SIGTERM or ^C
    Run(Box<Run>),
    /// Tell what this kernel and these rights allow, what is missing and what that costs
    Doctor(Doctor),
    /// Print the workloads or services that the running daemon knows
    Dump(Dump),
    /// Tell which way a connection would go, and why
    Explain(Explain),
    /// Take everything out of the kernel that a meshd has left attached to a cgroup
    Uninstall(Uninstall),
    /// Print the version
    Version(Version),
}

/// Flags of `meshd uninstall`.
#[derive(Debug, clap::Args)]
pub struct Uninstall {
    /// The cgroup v2 directory that programs are attached to [default: the cgroup v2 root, found]
    #[arg(long, alias = "cgroup2-path", value_name = "PATH", env = "MESHD_CGROUP")]
    pub cgroup: Option<std::path::PathBuf>,
    /// Where programs and maps are pinned
    #[arg(long, alias = "bpf-fs-path", value_name = "PATH", env = "MESHD_BPF_FS", default_value = "/sys/fs/bpf")]
    pub bpf_fs: std::path::PathBuf,
    /// Where the host's processes are seen
    #[arg(long, value_name = "PATH", env = "MESHD_PROC", default_value = "/proc")]
    pub proc: std::path::PathBuf,
}

/// Flags of `meshd doctor`.
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// The cgroup v2 directory that programs would attach to [default: the cgroup v2 root, found]
    #[arg(long, alias = "cgroup2-path", value_name = "PATH", env = "MESHD_CGROUP")]
    pub cgroup: Option<std::path::PathBuf>,
    /// Where the host's processes are seen
    #[arg(long, value_name = "PATH", env = "MESHD_PROC", default_value = "/proc")]
    pub proc: std::path::PathBuf,
    /// Where a daemon that runs serves switches and debug output
    #[arg(long, value_name = "ADDR", env = "MESHD_ADMIN_ADDRESS", default_value = "127.0.0.1:15200")]
    pub admin_address: std::net::SocketAddr,
}

/// Flags of `meshd version`.
#[derive(Debug, clap::Args)]
pub struct Version {
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Has an environment variable that is set to nothing count as not set, as deployments leave them.
pub fn without_empty_variables(mut command: clap::Command) -> clap::Command {
    let is_empty = |arg: &clap::Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    for name in ["run", "doctor", "dump", "explain", "uninstall"] {
        command = command
            .mut_subcommand(name, |sub| sub.mut_args(|arg| if is_empty(&arg) { arg.env(None::<&str>) } else { arg }));
    }
    command
}

#[cfg(test)]
mod tests;
