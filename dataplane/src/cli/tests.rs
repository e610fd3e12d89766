use std::time::Duration;

use clap::{CommandFactory, Parser};

use super::{Cli, Command, Manage, Run, value::go_bool};

fn run(flags: &[&str]) -> Result<Run, String> {
    let args = ["meshd", "run"].iter().chain(flags);
    match Cli::try_parse_from(args).map_err(|e| e.to_string())?.command {
        Command::Run(run) => run.check().map(|()| *run),
        other => panic!("parsed as {other:?}"),
    }
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn defaults_are_those_of_the_contract() {
    let run = run(&["--mesh-config", "mesh.yaml"]).unwrap();
    assert_eq!(run.metrics_address.to_string(), "[::]:15020");
    assert_eq!(run.ready_address.to_string(), "[::]:15021");
    assert_eq!(run.admin_address.to_string(), "127.0.0.1:15200");
    assert_eq!((run.report_interval, run.long_connection_threshold), (Duration::from_secs(5), Duration::from_secs(5)));
    assert_eq!((run.max_series, run.cluster_id.as_str(), run.network.as_str()), (100_000, "Kubernetes", ""));
    assert_eq!(run.manage, Manage::Mesh);
    assert!(!run.monitoring && !run.access_log && !run.workload_metrics && !run.connection_metrics);
}

#[test]
fn switches_stand_alone_or_take_a_value_as_go_flags_do() {
    let on = |flag: &str| run(&["--mesh-config", "m", flag]).map(|r| r.monitoring);
    assert_eq!(on("--monitoring"), Ok(true));
    for value in ["1", "t", "T", "TRUE", "true", "True"] {
        assert_eq!(on(&format!("--monitoring={value}")), Ok(true));
    }
    for value in ["0", "f", "F", "FALSE", "false", "False"] {
        assert_eq!(on(&format!("--monitoring={value}")), Ok(false));
    }
    for value in ["yes", "on", "2", "", "tRUE"] {
        assert!(on(&format!("--monitoring={value}")).is_err(), "{value:?} was taken");
        assert!(go_bool(value).is_err());
    }
}

#[test]
fn a_switch_does_not_swallow_the_next_argument() {
    assert!(run(&["--monitoring", "--access-log", "--mesh-config", "m"]).unwrap().access_log);
    assert!(run(&["--mesh-config", "m", "--monitoring", "false"]).is_err());
}

#[test]
fn a_finer_switch_without_monitoring_is_refused_by_name() {
    for flag in ["--access-log", "--workload-metrics", "--connection-metrics"] {
        assert_eq!(run(&["--mesh-config", "m", flag]).unwrap_err(), format!("{flag} needs --monitoring"));
        run(&["--mesh-config", "m", "--monitoring", flag]).unwrap();
        run(&["--mesh-config", "m", &format!("{flag}=false")]).unwrap();
    }
}

#[test]
fn exactly_one_source_of_mesh_state_unless_everything_is_managed() {
    assert!(run(&[]).unwrap_err().contains("--mesh-config or --xds-address"));
    assert!(run(&["--manage", "signal"]).is_err());
    assert!(run(&["--mesh-config", "m", "--xds-address", "a:1"]).unwrap_err().contains("exclude"));
    assert!(run(&["--mesh-config", "m", "--xds-address", "a:1", "--manage", "all"]).is_err());
    run(&["--manage", "all"]).unwrap();
    run(&["--xds-address", "http://istiod:15010"]).unwrap();
}

#[test]
fn periods_have_units_and_bounds() {
    let interval = |text: &str| run(&["--mesh-config", "m", "--report-interval", text]).map(|r| r.report_interval);
    assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(interval("1m30s"), Ok(Duration::from_secs(90)));
    assert!(interval("5").unwrap_err().contains("5s or 500ms"));
    for outside in ["0s", "99ms", "2h"] {
        assert!(interval(outside).unwrap_err().contains("--report-interval"), "{outside} was taken");
    }
    assert!(run(&["--mesh-config", "m", "--long-connection-threshold", "0s"]).is_ok());
}

#[test]
fn sizes_of_nothing_are_refused() {
    for flag in ["--max-series", "--max-connections", "--max-services", "--max-endpoints"] {
        assert!(run(&["--mesh-config", "m", flag, "0"]).unwrap_err().contains(flag));
    }
}

#[test]
fn the_reference_s_name_of_the_cgroup_flag_works() {
    assert_eq!(run(&["--mesh-config", "m", "--cgroup2-path", "/x"]).unwrap().cgroup, Some("/x".into()));
}
