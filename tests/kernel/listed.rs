//! The list of `meshd`'s own metrics in the documentation is what a scrape shows.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use tests::{
    Meshd, Scrape,
    command::run,
    meshd::ALL,
    retry::{DEADLINE, eventually},
};

use crate::pair::Pair;

const LIST: &str = include_str!("../../docs/operating.md");
const ALERTS: &str = include_str!("../../docs/alerts.yaml");

/// The rows that the list should have for a scrape, by name.
fn rows(text: &str) -> Result<BTreeMap<String, String>> {
    let scrape = Scrape::parse(text)?;
    let mut rows = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# HELP meshd_")) {
        let (rest, help) = line.split_once(' ').context("a HELP without text")?;
        let name = format!("meshd_{rest}");
        let kind = scrape.kind(&name).with_context(|| format!("{name} has no TYPE"))?;
        let suffixes = ["", "_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}"));
        let samples = scrape.samples().iter().filter(|sample| suffixes.contains(&sample.name));
        let labels: BTreeSet<_> =
            samples.flat_map(|sample| sample.labels.keys()).filter(|label| *label != "le").collect();
        let labels: Vec<_> = labels.into_iter().map(|label| format!("`{label}`")).collect();
        rows.insert(name.clone(), format!("| `{name}` | {kind} | {} | {help} |", labels.join(" ")));
    }
    Ok(rows)
}

/// A scrape once the kernel's maps have been looked at.
fn whole(meshd: &Meshd<'_>) -> Result<String> {
    eventually(DEADLINE, || {
        let text = meshd.metrics()?;
        ensure!(text.contains("\nmeshd_telemetry_map_entries{"), "no map was looked at");
        Ok(text)
    })
    .with_context(|| meshd.log())
}

#[test]
fn every_metric_of_the_process_is_in_the_list_and_no_other() -> Result<()> {
    let pair = Pair::new("listed")?;
    let meshd = Meshd::start(&pair.sandbox, &pair.mesh(), &[ALL, &["--accelerate"]].concat())?;
    let of_file = whole(&meshd)?;
    drop(meshd);
    // Nobody is there: its metrics are.
    let nobody = [ALL, &["--xds-address=http://127.0.0.1:1"]].concat();
    let of_istiod = whole(&Meshd::spawn_without_mesh(&pair.sandbox, &[], &nobody)?)?;

    let mut wanted = rows(&of_file)?;
    wanted.extend(rows(&of_istiod)?);
    let wanted: Vec<_> = wanted.into_values().collect();
    let listed: Vec<_> = LIST.lines().filter(|line| line.starts_with("| `meshd_")).collect();
    assert!(listed == wanted, "docs/operating.md should list\n{}", wanted.join("\n"));
    Ok(())
}

#[test]
fn alerts_are_about_metrics_that_are_there() {
    let metrics: BTreeSet<_> = LIST.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let rules: Vec<_> = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    assert!(rules.len() >= 10, "{rules:?}");
    for rule in rules {
        let words = rule.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let own: Vec<_> =
            words.filter(|word| word.starts_with("meshd_")).map(|word| word.trim_end_matches("_bucket")).collect();
        assert!(!own.is_empty() && own.iter().all(|word| metrics.contains(word)), "{rule}");
    }
}

#[test]
fn alerts_are_rules_that_prometheus_takes() -> Result<()> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/alerts.yaml");
    let said = run(&format!("promtool check rules {file}"))?;
    let alerts = ALERTS.lines().filter(|line| line.contains("- alert: ")).count();
    ensure!(said.contains(&format!("SUCCESS: {alerts} rules found")), "{said}");
    // Each says what is wrong and what to do.
    for part in ["summary: ", "remedy: ", "severity: "] {
        assert_eq!(ALERTS.matches(part).count(), alerts, "{part}");
    }
    Ok(())
}
