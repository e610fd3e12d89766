//! Reads the text exposition format, to say what a scrape shows.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context as _, Result, ensure};

/// One line of a scrape.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Metric name.
    pub name: String,
    /// Labels, unescaped.
    pub labels: BTreeMap<String, String>,
    /// Value; whole numbers up to 2^53 are exact.
    pub value: f64,
}

/// A whole scrape.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    samples: Vec<Sample>,
    types: BTreeMap<String, String>,
}

/// Label names and the values they must have.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Scrape {
    /// Parses the text format.
    pub fn parse(text: &str) -> Result<Self> {
        let mut scrape = Self::default();
        for line in text.lines().filter(|l| !l.is_empty()) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').with_context(|| format!("in `{line}`"))?;
                scrape.types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                scrape.samples.push(sample(line).with_context(|| format!("in `{line}`"))?);
            }
        }
        Ok(scrape)
    }

    /// Returns the series of a metric that have these labels.
    pub fn select<'a>(&'a self, name: &'a str, labels: Labels<'a>) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |s| {
            s.name == name && labels.iter().all(|(k, v)| s.labels.get(*k).is_some_and(|found| found == v))
        })
    }

    /// Adds up the series of a metric that have these labels; none is 0.
    pub fn total(&self, name: &str, labels: Labels<'_>) -> f64 {
        self.select(name, labels).fold(0.0, |sum, s| sum + s.value)
    }

    /// Says whether a metric's series with these labels add up to a value, else what there is.
    pub fn shows(&self, name: &str, labels: Labels<'_>, value: f64) -> Result<()> {
        let total = self.total(name, labels);
        ensure!(total == value, "{name}{labels:?} is {total}, not {value}; there is\n{}", self.of(name));
        Ok(())
    }

    /// Says whether every counter of telemetry that an earlier scrape had is still there, and none has fallen; those whose names begin
    /// with one of `but` are not looked at.
    pub fn goes_on_from(&self, before: &Self, but: &[&str]) -> Result<()> {
        const OURS: [&str; 3] = ["kmesh_", "meshd_telemetry_", "meshd_connections_"];
        let begins = |name: &str, with: &[&str]| with.iter().any(|prefix| name.starts_with(prefix));
        let is_meant = |name: &str| name.ends_with("_total") && begins(name, &OURS) && !begins(name, but);
        for old in before.samples.iter().filter(|s| is_meant(&s.name)) {
            let new = self.samples.iter().find(|s| s.name == old.name && s.labels == old.labels);
            let new = new.with_context(|| format!("{}{:?} is gone", old.name, old.labels))?;
            ensure!(new.value >= old.value, "{}{:?} fell from {} to {}", old.name, old.labels, old.value, new.value);
        }
        Ok(())
    }

    /// Returns the one series of a metric that has these labels.
    pub fn only<'a>(&'a self, name: &'a str, labels: Labels<'a>) -> Result<&'a Sample> {
        let mut found = self.select(name, labels);
        let first = found.next().with_context(|| format!("no {name}{labels:?}; there is\n{}", self.of(name)))?;
        ensure!(found.next().is_none(), "more than one {name}{labels:?}:\n{}", self.of(name));
        Ok(first)
    }

    /// Returns the TYPE of a metric.
    pub fn kind(&self, name: &str) -> Option<&str> {
        self.types.get(name).map(String::as_str)
    }

    /// Returns every sample.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Shows every series of a metric, for an error; of a metric without any, what else there is.
    fn of(&self, name: &str) -> String {
        let mut text = String::new();
        for sample in self.samples.iter().filter(|s| s.name == name) {
            // Writing to a string does not fail.
            let _ = writeln!(text, "  {} {:?}", sample.value, sample.labels);
        }
        if text.is_empty() {
            text = format!("  no series, but types {:?}", self.types.keys());
        }
        text
    }
}

fn sample(line: &str) -> Result<Sample> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (key, after) = rest.split_once("=\"").context("a label without value")?;
            let (value, after) = quoted(after)?;
            ensure!(labels.insert(key.to_owned(), value).is_none(), "the label {key} stands twice");
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.split_whitespace().next().context("no value")?;
    Ok(Sample { name: name.to_owned(), labels, value: value.parse().context("not a number")? })
}

/// Reads up to the closing quote; returns the text unescaped, and what follows.
fn quoted(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match characters.next().context("ends in an escape")?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    anyhow::bail!("an open quote")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_labels_are_read_back() {
        let scrape = Scrape::parse("# TYPE a counter\na{x=\"q\\\"\\\\\\n}\",y=\"\"} 12 5\nb 3\n").unwrap();
        let a = scrape.only("a", &[("y", "")]).unwrap();
        assert_eq!(a.labels["x"], "q\"\\\n}");
        assert_eq!((a.value, scrape.total("b", &[])), (12.0, 3.0));
        assert_eq!(scrape.kind("a"), Some("counter"));
        assert!(scrape.shows("a", &[], 11.0).is_err() && scrape.only("c", &[]).is_err());
    }

    #[test]
    fn a_line_that_is_no_sample_is_an_error() {
        for line in ["a", "a{x=\"1} 2", "a{x} 2", "a{x=\"1\",x=\"1\"} 2", "a{x=\"1\"} two"] {
            assert!(Scrape::parse(line).is_err(), "{line}");
        }
    }
}
