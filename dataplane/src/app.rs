//! The map of the program: its parts, built in the order in which data flows.

mod drain;
mod monitor;

use std::{fs::File, os::fd::AsFd, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use cache::{Cache, Node};
use telemetry::{AccessLog, Clock, NodeAddresses, Saved, Switch, Switches};
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use crate::{
    accelerate::Accelerate,
    cli::{Manage, Metadata, OnExit, Run},
    control::{Choices, Control},
    enrol::Enroller,
    health::Readiness,
    kernel::{self, Kernel, Pins},
    log::Loggers,
    memory, mesh, node,
    ports::Ports,
    record::{self, Queries},
    rights,
    serve::{self, admin::Admin},
    sync::Sync,
    tasks::Tasks,
};
use monitor::Monitor;

/// How long the mesh state may take before records that wait since a daemon before are read without it.
const NAMES: Duration = Duration::from_secs(5);

/// Runs the data plane until SIGTERM or ^C, then drains it.
///
/// # Errors
/// What kept it from starting, or what ended too early.
pub fn run(flags: &Run, loggers: Loggers) -> anyhow::Result<()> {
    memory::many_files();
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_keep_alive(Duration::from_secs(1))
        .thread_stack_size(512 << 10)
        .thread_name("meshd")
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let signals = drain::Signals::listen()?;
        let (tasks, ended) = Tasks::new();
        match App::start(flags, loggers, tasks.clone()).await {
            Ok(app) => app.wait(signals, ended).await,
            Err(error) => {
                drain::within("what was started", drain::LAST_REQUESTS, tasks.finish()).await;
                Err(error)
            }
        }
    })
}

/// Everything that runs.
struct App {
    tasks: Tasks,
    control: Arc<Control>,
    monitor: Arc<Monitor>,
    readiness: Arc<Readiness>,
    /// What is removed at the end, if anything is.
    pins: Option<Pins>,
    proc: PathBuf,
}

impl App {
    async fn start(flags: &Run, loggers: Loggers, tasks: Tasks) -> anyhow::Result<Self> {
        // What cannot serve, or has no rights, must not touch anything.
        let ports = Ports::bind(flags)?;
        let options = options(flags)?;
        let pins = Kernel::check(&options)?;
        if let Err(error) = rights::confine() {
            tracing::warn!(error = format!("{error:#}"), "this process is left able to write files and run programs");
        }
        let readiness = Arc::new(Readiness::default());

        // The mesh: from a file or istiod into the cache.
        let node = Node { name: node::name(flags)?.into(), network: flags.network.as_str().into() };
        let cache = Arc::new(Cache::new(node));
        let mesh = mesh::open(flags, &cache)?;

        // The kernel: steering as a daemon before left it, or with empty maps, which steer nothing.
        let mut kernel = Kernel::load_into(&options, pins.clone())?;
        let left = kernel.telemetry_left();
        let mut choices = Choices::new(kernel.chosen()?, switches_of(flags));
        let wanted = choices.wanted();

        // Telemetry: names from the cache, series for the metrics port, lines for standard output, numbers as they were saved.
        let switches = Arc::new(Switches::default());
        let (addresses, clock) = (Arc::new(NodeAddresses::default()), Arc::new(Clock::measure()));
        let (recorder, exposition) = {
            let config = telemetry_config(flags);
            let stdout = std::io::stdout().as_fd().try_clone_to_owned().context("cannot write to standard output")?;
            let log = AccessLog::new(&config, File::from(stdout)).context("cannot start the access log")?;
            let saved = saved(&kernel)?.watched(left).replaced(kernel.replaced());
            telemetry::resume(config, cache.clone(), switches.clone(), addresses.clone(), clock.clone(), log, saved)
        };
        let registry = exposition.registry();
        let mesh = mesh.follow(&tasks, cache.clone(), registry)?;
        let (thread, record) = record::new(recorder, kernel.take_source(), flags.report_interval);

        // The mesh in the kernel: services first, then whose namespaces are managed.
        let cluster = flags.cluster_id.as_str().into();
        let sync = Sync::new(cache.clone(), &kernel, cluster, mesh.control_plane(), registry)?;
        let explainer = sync.explainer();
        let enroller = Enroller::new(cache.clone(), &kernel, &flags.proc, flags.manage, addresses.clone(), registry)?;

        let sees_messages = flags.accelerate || flags.waypoint_metadata != Metadata::None;
        let accelerate = sees_messages.then(|| Accelerate::new(kernel.accelerator(), registry)).transpose()?;

        // Everything is there: let it run, the reader of records before those who make them.
        let queries = Queries::new(&record);
        let monitor = Arc::new(Monitor::new(kernel, record));
        let [(_, monitoring), finer @ ..] = wanted;
        for (switch, on) in finer {
            switches.set(switch, on);
        }
        switches.set(Switch::Monitoring, left && monitoring);
        let control = Arc::new(Control::new(switches, monitor.clone()).remembering(choices));
        tasks.thread("record", move |_| thread.run())?;
        node::follow(&tasks, addresses, clock);
        if !left {
            control.set(Switch::Monitoring, monitoring).await?;
        }
        let (programmed, looked) = (CancellationToken::new(), CancellationToken::new());
        tasks.task("sync", sync.run(programmed.clone(), readiness.clone(), tasks.stop().clone()));
        let (runtime, ready, first) = (Handle::current(), readiness.clone(), looked.clone());
        tasks.thread("enrol", move |stop| enroller.run(&runtime, &programmed, &first, &ready, &stop))?;
        if let Some(accelerate) = accelerate {
            let runtime = Handle::current();
            tasks.thread("accelerate", move |stop| accelerate.run(&runtime, &stop))?;
        }
        if left {
            // What waits to be read is named by the mesh as it is, and by the addresses of its pods.
            let known = tokio::time::timeout(NAMES, looked.cancelled()).await;
            if known.is_err() {
                tracing::warn!("no mesh state yet: what happened since the last daemon is counted without names");
            }
            control.resume().await?;
        }

        // The ports answer last, when there is something to say.
        let admin = Admin { control: control.clone(), loggers: Arc::new(loggers), cache, mesh, queries, explainer };
        let [at_metrics, at_ready, at_admin] = serve::http::displaced(exposition.registry())?;
        let serve = |name, listener, router, displaced| {
            let limits = serve::http::Limits::default();
            tasks.task(name, serve::http::serve(listener, router, limits, displaced, tasks.stop().clone()));
        };
        serve("metrics port", ports.metrics, serve::metrics::router(exposition), at_metrics);
        serve("ready port", ports.ready, serve::ready::router(readiness.clone()), at_ready);
        serve("admin port", ports.admin, serve::admin::router(admin), at_admin);
        memory::give_back();
        let pins = (flags.on_exit == OnExit::Detach).then_some(pins);
        Ok(Self { tasks, control, monitor, readiness, pins, proc: flags.proc.clone() })
    }
}

/// Opens saved counters; those of another version are forgotten.
fn saved(kernel: &Kernel) -> anyhow::Result<Saved> {
    Saved::open(Box::new(kernel.counters()?)).or_else(|error| {
        tracing::warn!("{error}: counters begin again");
        Saved::open(Box::new(kernel.forget_counters()?)).context("cannot save counters")
    })
}

/// What the flags set the switches to, monitoring first.
fn switches_of(flags: &Run) -> [(Switch, bool); 4] {
    [
        (Switch::Monitoring, flags.monitoring),
        (Switch::AccessLog, flags.access_log),
        (Switch::WorkloadMetrics, flags.workload_metrics),
        (Switch::ConnectionMetrics, flags.connection_metrics),
    ]
}

fn options(flags: &Run) -> anyhow::Result<kernel::Options> {
    let cgroup = flags.cgroup.clone().map_or_else(|| kernel::find_cgroup_root(&flags.proc), Ok)?;
    Ok(kernel::Options {
        cgroup,
        bpf_fs: flags.bpf_fs.clone(),
        keep: flags.on_exit == OnExit::Keep,
        proc: flags.proc.clone(),
        walk_namespaces: false,
        progress: flags.progress.into(),
        report_interval: flags.report_interval,
        manage_all: flags.manage == Manage::All,
        adopt_history: flags.adopt_history,
        accelerate: flags.accelerate.then_some(flags.accelerate_after),
        waypoint_metadata: flags.waypoint_metadata.into(),
        max_connections: flags.max_connections,
        max_services: flags.max_services,
        max_endpoints: flags.max_endpoints,
        ring_slots: flags.ring_slots,
    })
}

fn telemetry_config(flags: &Run) -> telemetry::Config {
    telemetry::Config {
        report_interval: flags.report_interval,
        long_threshold: flags.long_connection_threshold,
        max_series: flags.max_series as usize,
        max_connections: flags.max_connections as usize,
        include_node_traffic: flags.include_node_traffic,
        adopt_history: flags.adopt_history,
        cluster_id: flags.cluster_id.as_str().into(),
        log_format: flags.access_log_format.into(),
    }
}
