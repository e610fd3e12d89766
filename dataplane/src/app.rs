//! The map of the program: its parts, built in the order in which data flows.

mod drain;
mod monitor;

use std::{fs::File, os::fd::AsFd, sync::Arc, time::Duration};

use anyhow::Context;
use cache::{Cache, Node};
use telemetry::{AccessLog, Clock, NodeAddresses, Switch, Switches};
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::{Manage, Run},
    control::Control,
    enrol::Enroller,
    health::{Condition, Readiness},
    kernel::{self, Kernel},
    log::Loggers,
    memory, mesh, node,
    ports::Ports,
    record::{self, Queries},
    serve::{self, admin::Admin},
    sync::Sync,
    tasks::Tasks,
};
use monitor::Monitor;

/// Runs the data plane until SIGTERM or ^C, then drains it.
///
/// # Errors
/// What kept it from starting, or what ended too early; nothing is left attached then.
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
}

impl App {
    async fn start(flags: &Run, loggers: Loggers, tasks: Tasks) -> anyhow::Result<Self> {
        // What cannot serve, or has no rights, must not touch anything.
        let ports = Ports::bind(flags)?;
        let options = options(flags)?;
        Kernel::check(&options)?;
        let readiness = Arc::new(Readiness::default());

        // The mesh: from a file or istiod into the cache.
        let node = Node { name: node::name(flags)?.into(), network: flags.network.as_str().into() };
        let cache = Arc::new(Cache::new(node));
        let mesh = mesh::open(flags, &cache)?;

        // Telemetry: names from the cache, series for the metrics port, lines for standard output.
        let switches = Arc::new(Switches::default());
        let (addresses, clock) = (Arc::new(NodeAddresses::default()), Arc::new(Clock::measure()));
        let (recorder, exposition) = {
            let config = telemetry_config(flags);
            let stdout = std::io::stdout().as_fd().try_clone_to_owned().context("cannot write to standard output")?;
            let log = AccessLog::new(&config, File::from(stdout)).context("cannot start the access log")?;
            telemetry::new(config, cache.clone(), switches.clone(), addresses.clone(), clock.clone(), log)
        };
        let registry = exposition.registry();
        let status = mesh.follow(&tasks, cache.clone(), registry)?;

        // The kernel, and who reads its records. Steering is attached with empty maps, which steer nothing.
        let mut kernel = Kernel::load(&options)?;
        let source = kernel.take_source();
        let (thread, record) = record::new(recorder, source, flags.report_interval);

        // The mesh in the kernel: services first, then whose namespaces are managed.
        let sync = Sync::new(cache.clone(), kernel.steering(), status, registry)?;
        let enroller = match flags.manage {
            Manage::All => None,
            by => {
                let by_mesh = by == Manage::Mesh;
                let (cache, node) = (cache.clone(), addresses.clone());
                Some(Enroller::new(cache, kernel.manager(), &flags.proc, by_mesh, node, registry)?)
            }
        };

        // Everything is there: let it run, the reader of records before those who make them.
        let queries = Queries::new(&record);
        let monitor = Arc::new(Monitor::new(kernel, record));
        let control = Arc::new(Control::new(switches, monitor.clone()));
        tasks.thread("record", move |_| thread.run())?;
        node::follow(&tasks, addresses, clock);
        turn_on(flags, &control).await?;
        let programmed = CancellationToken::new();
        tasks.task("sync", sync.run(programmed.clone(), readiness.clone(), tasks.stop().clone()));
        match enroller {
            Some(enroller) => {
                let (runtime, readiness) = (Handle::current(), readiness.clone());
                tasks.thread("enrol", move |stop| enroller.run(&runtime, &programmed, &readiness, &stop))?;
            }
            None => readiness.met(Condition::Enrolled),
        }

        // The ports answer last, when there is something to say.
        let admin = Admin { control: control.clone(), loggers: Arc::new(loggers), cache, queries };
        let serve =
            |name, listener, router| tasks.task(name, serve::http::serve(listener, router, tasks.stop().clone()));
        serve("metrics port", ports.metrics, serve::metrics::router(exposition));
        serve("ready port", ports.ready, serve::ready::router(readiness.clone()));
        serve("admin port", ports.admin, serve::admin::router(admin));
        memory::give_back();
        Ok(Self { tasks, control, monitor, readiness })
    }
}

/// Sets the switches as the flags say.
async fn turn_on(flags: &Run, control: &Control) -> anyhow::Result<()> {
    let wanted = [
        (Switch::Monitoring, flags.monitoring),
        (Switch::AccessLog, flags.access_log),
        (Switch::WorkloadMetrics, flags.workload_metrics),
        (Switch::ConnectionMetrics, flags.connection_metrics),
    ];
    for (switch, _) in wanted.into_iter().filter(|(_, on)| *on) {
        control.set(switch, true).await?;
    }
    Ok(())
}

fn options(flags: &Run) -> anyhow::Result<kernel::Options> {
    let cgroup = flags.cgroup.clone().map_or_else(|| kernel::find_cgroup_root(&flags.proc), Ok)?;
    Ok(kernel::Options {
        cgroup,
        proc: flags.proc.clone(),
        progress: flags.progress.into(),
        report_interval: flags.report_interval,
        manage_all: flags.manage == Manage::All,
        max_connections: flags.max_connections,
        max_services: flags.max_services,
        max_endpoints: flags.max_endpoints,
        ring_bytes: abi::maps::RING_BYTES,
    })
}

fn telemetry_config(flags: &Run) -> telemetry::Config {
    telemetry::Config {
        report_interval: flags.report_interval,
        long_threshold: flags.long_connection_threshold,
        max_series: flags.max_series as usize,
        max_connections: flags.max_connections as usize,
        include_node_traffic: flags.include_node_traffic,
        cluster_id: flags.cluster_id.as_str().into(),
        log_format: flags.access_log_format.into(),
    }
}
