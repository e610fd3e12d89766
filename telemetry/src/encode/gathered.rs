//! Metrics of a `prometheus` registry, in both formats.

use std::io;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::{Encoder, Format, Kind};
use crate::labels::Render;

impl Encoder<'_> {
    /// Writes what a registry gathered: counters, gauges and histograms, which is all that is registered.
    pub(crate) fn gathered(&mut self, families: &[MetricFamily]) -> io::Result<()> {
        for family in families {
            let kind = match family.get_field_type() {
                MetricType::COUNTER => Kind::Counter,
                MetricType::GAUGE => Kind::Gauge,
                MetricType::HISTOGRAM => Kind::Histogram,
                MetricType::SUMMARY | MetricType::UNTYPED => continue,
            };
            let name = family.name();
            let base = if kind == Kind::Counter { name.strip_suffix("_total").unwrap_or(name) } else { name };
            self.head(base, family.help(), "", kind)?;
            for metric in family.get_metric() {
                match kind {
                    Kind::Counter => self.line(base, "_total", metric, None, metric.get_counter().get_value())?,
                    Kind::Gauge => self.line(base, "", metric, None, metric.get_gauge().get_value())?,
                    Kind::Histogram => self.histogram(base, metric)?,
                }
            }
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, metric: &Metric) -> io::Result<()> {
        let histogram = metric.get_histogram();
        for bucket in histogram.get_bucket() {
            let bound = self.number(bucket.upper_bound());
            self.line(name, "_bucket", metric, Some(&bound), bucket.cumulative_count() as f64)?;
        }
        let count = histogram.get_sample_count() as f64;
        self.line(name, "_bucket", metric, Some("+Inf"), count)?;
        self.line(name, "_sum", metric, None, histogram.get_sample_sum())?;
        self.line(name, "_count", metric, None, count)
    }

    fn line(&mut self, name: &str, suffix: &str, metric: &Metric, bound: Option<&str>, value: f64) -> io::Result<()> {
        self.out.put_all(&[name, suffix])?;
        let labels = rendered(metric.get_label(), bound);
        if !labels.is_empty() {
            self.out.put_all(&["{", labels.trim_end_matches(','), "}"])?;
        }
        let value = value.to_string();
        self.out.put_all(&[" ", &value, "\n"])
    }

    /// A bucket's bound: OpenMetrics writes whole numbers with a fraction.
    fn number(&self, bound: f64) -> String {
        match self.format {
            Format::OpenMetrics => format!("{bound:?}"),
            Format::Text => bound.to_string(),
        }
    }
}

fn rendered(labels: &[LabelPair], bound: Option<&str>) -> String {
    let mut text = String::new();
    for pair in labels {
        text.label("", pair.name(), pair.value());
    }
    if let Some(bound) = bound {
        text.label("", "le", bound);
    }
    text
}
