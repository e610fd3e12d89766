//! The admin port: each switch on its own, at run time.

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::{Meshd, retry::eventually};

use crate::pair::{Pair, Truth, talk};

#[test]
fn each_switch_turns_on_and_off_by_itself() -> Result<()> {
    let mut pair = Pair::new("switches")?;
    let (sandbox, service) = (&pair.sandbox, pair.service());
    let meshd = Meshd::start(sandbox, &pair.mesh(), &["--monitoring"])?;
    let (client, server) = (&mut pair.client, &mut pair.server);
    let mut talk = |bytes| talk(client, server, &service, bytes);
    let sent = |name: &str, bytes| meshd.eventually(|s| s.shows(name, &[("reporter", "source")], bytes));
    let service_bytes = |bytes| sent("kmesh_tcp_sent_bytes_total", bytes);
    let workload_bytes = |bytes| sent("kmesh_tcp_workload_sent_bytes_total", bytes);

    // Only service metrics at first.
    talk(1)?;
    let scrape = service_bytes(1.0)?;
    assert_eq!(scrape.select("kmesh_tcp_workload_sent_bytes_total", &[]).count(), 0);
    assert_eq!(meshd.access_log()?.len(), 0);

    assert_eq!(meshd.post("/accesslog?enable=1", "")?.status, 200);
    talk(2)?;
    meshd.logs(&[("sent_bytes", "2"), ("direction", "OUTBOUND")])?;
    meshd.logs(&[("received_bytes", "2"), ("direction", "INBOUND")])?;
    assert_eq!(meshd.post("/accesslog?enable=F", "")?.status, 200);
    talk(4)?;
    service_bytes(7.0)?;
    assert_eq!(meshd.access_log()?.len(), 2);

    assert_eq!(meshd.post("/workload_metrics?enable=TRUE", "")?.status, 200);
    talk(8)?;
    workload_bytes(8.0)?;
    service_bytes(15.0)?;

    // Off as a whole, and on again: what the others were set to is kept.
    assert_eq!(meshd.post("/monitoring?enable=false", "")?.status, 200);
    talk(16)?;
    let off = meshd.post("/accesslog?enable=true", "")?;
    assert_eq!((off.status, off.body.trim()), (400, "Kmesh monitoring is disabled, cannot enable accesslog."));
    assert_eq!(meshd.post("/monitoring?enable=t", "")?.status, 200);
    talk(32)?;
    workload_bytes(40.0)?;
    service_bytes(47.0).map(drop)
}

#[test]
fn the_admin_port_tells_states_and_refuses_nonsense() -> Result<()> {
    let pair = Pair::new("admin")?;
    let meshd = Meshd::start(&pair.sandbox, &pair.mesh(), &["--monitoring", "--access-log"])?;
    let invalid = meshd.post("/accesslog?enable=perhaps", "")?;
    assert_eq!((invalid.status, invalid.body.trim()), (400, "invalid accesslog enable=perhaps"));
    for path in ["/monitoring", "/accesslog", "/workload_metrics", "/connection_metrics"] {
        assert_eq!(meshd.get(15200, path)?.status, 200, "{path}");
        let answer = tests::http::request(
            pair.sandbox.node(),
            (std::net::Ipv4Addr::LOCALHOST, 15200).into(),
            "PUT",
            path,
            "",
            "",
        )?;
        assert_eq!(answer.status, 405, "{path}");
    }
    let on = meshd.get(15200, "/accesslog")?.body;
    let off = meshd.get(15200, "/workload_metrics")?.body;
    ensure!(on != off && on.contains("true") && off.contains("false"), "`{on}` and `{off}`");

    let version: Value = serde_json::from_str(&meshd.get(15200, "/version")?.body)?;
    for field in ["gitVersion", "gitCommit", "gitTreeState", "buildDate", "compiler", "platform"] {
        assert!(version[field].is_string(), "{field} in {version:#}");
    }
    assert_eq!(meshd.get(15200, "/debug/ready")?.body.trim(), "OK");
    let dump: Value = serde_json::from_str(&meshd.get(15200, "/debug/config_dump/dual-engine")?.body)?;
    assert_eq!(dump["workloads"].as_array().map(Vec::len), Some(2), "{dump:#}");
    assert_eq!(dump["services"].as_array().map(Vec::len), Some(1), "{dump:#}");

    let loggers: Value = serde_json::from_str(&meshd.get(15200, "/debug/loggers")?.body)?;
    let name = loggers[0].as_str().unwrap_or_else(|| panic!("no logger in {loggers:#}"));
    let set = meshd.post("/debug/loggers", &format!("{{\"name\":\"{name}\",\"level\":\"debug\"}}"))?;
    assert_eq!((set.status, set.body.trim()), (200, "OK"));
    let level: Value = serde_json::from_str(&meshd.get(15200, &format!("/debug/loggers?name={name}"))?.body)?;
    assert_eq!(level["level"], "debug");
    Ok(())
}

#[test]
fn the_metrics_port_serves_metrics_and_nothing_else() -> Result<()> {
    let pair = Pair::new("ports")?;
    let meshd = Meshd::start(&pair.sandbox, &pair.mesh(), &["--monitoring"])?;
    for path in ["/metrics", "/status/metric", "/stats/prometheus"] {
        assert_eq!(meshd.get(15020, path)?.status, 200, "{path}");
    }
    for path in ["/", "/debug/connections", "/monitoring", "/accesslog?enable=true", "/debug/pprof/"] {
        assert_eq!(meshd.get(15020, path)?.status, 404, "{path}");
    }
    Ok(())
}

#[test]
fn flags_are_environment_variables_too() -> Result<()> {
    let mut pair = Pair::new("environment")?;
    let (sandbox, service) = (&pair.sandbox, pair.service());
    std::fs::write(tests::meshd::mesh_file(sandbox), pair.mesh().render())?;
    let environment = ["env", "MESHD_MONITORING=true", "MESHD_WORKLOAD_METRICS=1", "MESHD_REPORT_INTERVAL=200ms"];
    let mut meshd = Meshd::spawn_with(sandbox, &environment, &[])?;
    meshd.ready()?;
    let (client, server) = (&mut pair.client, &mut pair.server);
    client.open("a", &service, "l", server)?;
    client.send("a", 3, server)?;
    eventually(std::time::Duration::from_secs(3), || {
        Truth { opened: 1, closed: 0, there: 3, back: 0 }.is_shown(&meshd.scrape()?)
    })
}
