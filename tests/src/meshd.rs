//! The real `meshd`, running on a test's node.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    access_log::LogLine,
    artifacts,
    command::run,
    http::{self, Answer},
    mesh::{Mesh, NODE},
    netns::Namespace,
    retry::{DEADLINE, eventually},
    sandbox::Sandbox,
    scrape::Scrape,
};

/// Everything that telemetry has, with periods short enough to wait for.
pub const ALL: &[&str] = &[
    "--monitoring",
    "--workload-metrics",
    "--connection-metrics",
    "--access-log",
    "--report-interval=500ms",
    "--long-connection-threshold=1s",
];

/// A running `meshd`; ended by `Drop`, its log shown if the test fails.
#[derive(Debug)]
pub struct Meshd<'a> {
    sandbox: &'a Sandbox,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl<'a> Meshd<'a> {
    /// Starts `meshd run` with a mesh and further flags, and waits until it is ready.
    pub fn start(sandbox: &'a Sandbox, mesh: &Mesh, flags: &[&str]) -> Result<Self> {
        fs::write(mesh_file(sandbox), mesh.render()).context("writing the mesh file")?;
        let mut meshd = Self::spawn(sandbox, flags)?;
        meshd.ready()?;
        Ok(meshd)
    }

    /// Starts `meshd run` over the mesh file as it is, and waits for nothing.
    pub fn spawn(sandbox: &'a Sandbox, flags: &[&str]) -> Result<Self> {
        Self::spawn_with(sandbox, &[], flags)
    }

    /// Starts `meshd run` over the mesh file by way of another program, which changes what it may do or knows (`setpriv`, `env`).
    pub fn spawn_with(sandbox: &'a Sandbox, through: &[&str], flags: &[&str]) -> Result<Self> {
        let file = mesh_file(sandbox);
        let mesh = ["--mesh-config", file.to_str().context("a path of plain characters")?];
        Self::spawn_without_mesh(sandbox, through, &[&mesh, flags].concat())
    }

    /// Starts `meshd run` with nothing said about where the mesh state is.
    pub fn spawn_without_mesh(sandbox: &'a Sandbox, through: &[&str], flags: &[&str]) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let [stdout, stderr] = ["stdout", "stderr"].map(|name| sandbox.directory().join(format!("{name}-{number}")));
        let file = |path: &Path| fs::File::create(path).with_context(|| format!("making {}", path.display()));
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", sandbox.node().path().display())).args(through).arg(artifacts::meshd()?);
        command.args(["run", "--node-name", NODE]);
        if !flags.contains(&"--cgroup") {
            command.arg("--cgroup").arg(sandbox.cgroup());
        }
        command.args(flags).stdin(Stdio::null()).stdout(file(&stdout)?).stderr(file(&stderr)?);
        let child = command.spawn().context("starting meshd")?;
        Ok(Self { sandbox, child, stdout, stderr })
    }

    /// Waits until the ready port says so.
    pub fn ready(&mut self) -> Result<()> {
        let waited = eventually(DEADLINE, || match self.child.try_wait()? {
            Some(status) => Ok(Err(anyhow::anyhow!("meshd ended: {status}"))),
            None => {
                let status = self.get(15021, "/healthz/ready")?.status;
                ensure!(status == 200, "/healthz/ready answers {status}");
                Ok(Ok(()))
            }
        });
        waited
            .and_then(|ended| ended)
            .with_context(|| format!("waiting for meshd to be ready; it says\n{}", self.log()))
    }

    /// Returns its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gets a path from one of its ports.
    pub fn get(&self, port: u16, path: &str) -> Result<Answer> {
        http::get(self.namespace(), address(port), path)
    }

    /// Gets the metrics as text.
    pub fn metrics(&self) -> Result<String> {
        let answer = self.get(15020, "/metrics")?;
        ensure!(answer.status == 200, "/metrics answers {}", answer.status);
        Ok(answer.body)
    }

    /// Gets and reads the metrics.
    pub fn scrape(&self) -> Result<Scrape> {
        Scrape::parse(&self.metrics()?)
    }

    /// Scrapes until a check of it succeeds, and returns that scrape.
    pub fn eventually(&self, check: impl Fn(&Scrape) -> Result<()>) -> Result<Scrape> {
        let found = eventually(DEADLINE, || {
            let scrape = self.scrape()?;
            check(&scrape)?;
            Ok(scrape)
        });
        found.with_context(|| self.tells())
    }

    /// Posts to the admin port.
    pub fn post(&self, path: &str, body: &str) -> Result<Answer> {
        http::request(self.namespace(), address(15200), "POST", path, "Content-Type: application/json\r\n", body)
    }

    /// Returns the complete lines of the access log so far.
    pub fn access_log(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(&self.stdout).context("reading meshd's standard output")?;
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        Ok(complete.lines().map(str::to_owned).collect())
    }

    /// Waits for a text line with these values.
    pub fn logs(&self, fields: &[(&str, &str)]) -> Result<LogLine> {
        eventually(DEADLINE, || {
            let lines = self.access_log()?.iter().map(|l| LogLine::parse(l)).collect::<Result<Vec<_>>>()?;
            let text = lines.iter().map(|l| l.text.as_str()).collect::<Vec<_>>().join("\n");
            lines.into_iter().find(|l| l.has(fields)).with_context(|| format!("no line with {fields:?} in\n{text}"))
        })
        .with_context(|| self.tells())
    }

    /// Returns what it wrote to its own log.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_else(|error| error.to_string())
    }

    /// Waits until its own log says something.
    pub fn says(&self, text: &str) -> Result<()> {
        eventually(DEADLINE, || {
            let log = self.log();
            ensure!(log.contains(text), "no `{text}` in\n{log}");
            Ok(())
        })
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).context("a process id")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("sending {signal}"))
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().and_then(|()| self.child.wait()).map(drop).context("killing meshd")
    }

    /// Waits until it has ended by itself or by a signal.
    pub fn ended(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let ended = eventually(deadline, || self.child.try_wait()?.context("it still runs"));
        ended.with_context(|| format!("waiting for meshd to end; it says\n{}", self.log()))
    }

    /// Waits until it has refused to run, and returns the one line in which it says why.
    pub fn refusal(&mut self) -> Result<String> {
        let status = self.ended(DEADLINE)?;
        let log = self.log();
        ensure!(!status.success() && status.code().is_some(), "meshd ended with {status}:\n{log}");
        match log.lines().collect::<Vec<_>>().as_slice() {
            [line] => Ok((*line).to_owned()),
            _ => bail!("not one clear line but\n{log}"),
        }
    }

    /// What it says of itself, for the error of a test: its log, and those of its own metrics that are not zero.
    fn tells(&self) -> String {
        let metrics = self.metrics().unwrap_or_else(|error| format!("{error:#}"));
        let moved = |l: &&str| l.starts_with("meshd_") && !l.ends_with(" 0") && !l.contains("_bucket");
        let metrics = metrics.lines().filter(moved).collect::<Vec<_>>().join("\n  ");
        format!("meshd says\n{}and counts\n  {metrics}", self.log())
    }

    fn namespace(&self) -> &Namespace {
        self.sandbox.node()
    }
}

impl Drop for Meshd<'_> {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // An orderly end, so that every test drains; one that hangs is killed, and its own test finds that out.
            let ended = self.signal(Signal::SIGTERM).and_then(|()| self.ended(Duration::from_secs(10)));
            if ended.is_err() {
                drop(self.child.kill());
                drop(self.child.wait());
            }
        }
        if std::thread::panicking() {
            eprintln!("meshd said:\n{}", self.log());
        }
    }
}

/// Runs `meshd uninstall` over a test's cgroup and returns what it says.
pub fn uninstall(sandbox: &Sandbox) -> Result<String> {
    run(&format!("{} uninstall --cgroup {}", artifacts::meshd()?.display(), sandbox.cgroup().display()))
}

/// Returns the file that `meshd` of a test reads its mesh from.
pub fn mesh_file(sandbox: &Sandbox) -> PathBuf {
    Path::new(sandbox.directory()).join("mesh.yaml")
}

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
