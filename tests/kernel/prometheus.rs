//! A real Prometheus takes what `meshd` serves.

use std::{
    fs,
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    Meshd, Sandbox,
    command::run_with,
    http,
    meshd::ALL,
    retry::{DEADLINE, eventually},
};

use crate::pair::{Pair, Truth};

#[test]
fn a_prometheus_server_scrapes_and_answers_promql() -> Result<()> {
    let mut pair = Pair::new("prometheus")?;
    let (sandbox, service) = (&pair.sandbox, pair.service());
    let meshd = Meshd::start(sandbox, &pair.mesh(), ALL)?;
    let prometheus = Prometheus::start(sandbox)?;
    let (client, server) = (&mut pair.client, &mut pair.server);

    client.open("a", &service, "l", server)?;
    client.send("a", 1_000, server)?;
    let sent = "sum by (destination_service_name) (kmesh_tcp_sent_bytes_total{reporter=\"source\"})";
    prometheus.answers(sent, "1000")?;
    client.send("a", 500, server)?;
    client.close("a", server)?;
    prometheus.answers(sent, "1500")?;
    prometheus.answers("sum(kmesh_tcp_connections_closed_total)", "2")?;
    prometheus.answers("increase(kmesh_tcp_sent_bytes_total{reporter=\"source\"}[1m]) > bool 0", "1")?;
    prometheus.answers("count(kmesh_tcp_connection_sent_bytes_total{source_workload=\"client\"})", "2")?;
    prometheus.answers("count(up == 1)", "3")?;

    // OpenMetrics, which Prometheus asks for, names a counter without its `_total`.
    let metadata = prometheus.get("/api/v1/metadata?metric=kmesh_tcp_sent_bytes")?;
    assert!(metadata.to_string().contains("\"type\":\"counter\""), "{metadata}");
    meshd.eventually(|s| Truth { opened: 1, closed: 1, there: 1_500, back: 0 }.is_shown(s)).map(drop)
}

#[test]
fn promtool_finds_nothing_to_complain_about() -> Result<()> {
    let mut pair = Pair::new("promtool")?;
    let (sandbox, service) = (&pair.sandbox, pair.service());
    let meshd = Meshd::start(sandbox, &pair.mesh(), ALL)?;
    let (client, server) = (&mut pair.client, &mut pair.server);
    client.ask_to_fail(format_args!("connect b {}:9", pair.server_pod.v4))?;
    client.open("a", &service, "l", server)?;
    client.send("a", 1, server)?;
    // Every family has series.
    meshd.eventually(|s| s.only("kmesh_tcp_connection_retrans_total", &[("reporter", "source")]).map(drop))?;
    let complaints = run_with("promtool check metrics", &meshd.metrics()?)?;
    assert_eq!(complaints, "");
    Ok(())
}

/// A Prometheus on the node, scraping each of the three paths of the metrics port every second.
struct Prometheus<'a> {
    sandbox: &'a Sandbox,
    child: Child,
}

impl<'a> Prometheus<'a> {
    fn start(sandbox: &'a Sandbox) -> Result<Self> {
        let directory = sandbox.directory();
        // Of the second and third only `up` is kept: their samples would be the same ones again.
        let nothing = ", metric_relabel_configs: [{action: drop}]";
        let job = |name, path, keep| {
            let target = "static_configs: [{targets: ['127.0.0.1:15020']}]";
            format!("- {{job_name: {name}, metrics_path: {path}, {target}{keep}}}\n")
        };
        let jobs = [
            job("meshd", "/metrics", ""),
            job("kmesh", "/status/metric", nothing),
            job("istio", "/stats/prometheus", nothing),
        ]
        .concat();
        let configuration = directory.join("prometheus.yml");
        fs::write(
            &configuration,
            format!("global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n{jobs}"),
        )?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", sandbox.node().path().display())).arg("prometheus");
        command.arg(format!("--config.file={}", configuration.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.join("tsdb").display()));
        command.arg("--web.listen-address=127.0.0.1:9090").stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { sandbox, child: command.spawn().context("starting prometheus")? })
    }

    fn get(&self, path: &str) -> Result<Value> {
        let answer = http::get(self.sandbox.node(), (Ipv4Addr::LOCALHOST, 9090).into(), path)?;
        serde_json::from_str(&answer.body).with_context(|| format!("prometheus says {}", answer.body))
    }

    /// Waits until a query's answer is one sample of this value.
    fn answers(&self, query: &str, value: &str) -> Result<()> {
        let encoded: String = query.bytes().map(|b| format!("%{b:02x}")).collect();
        eventually(DEADLINE, || {
            let answer = self.get(&format!("/api/v1/query?query={encoded}"))?;
            let result = answer["data"]["result"].as_array().context("no result")?;
            let [only] = result.as_slice() else { anyhow::bail!("{query}: {answer:#}") };
            ensure!(only["value"][1] == value, "{query}: {answer:#}");
            Ok(())
        })
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
