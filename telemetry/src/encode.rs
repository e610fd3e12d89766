//! The two text formats: Prometheus 0.0.4 and OpenMetrics 1.0.

mod buffer;
mod gathered;

use std::io::{self, Write};

use crate::{
    families::{Metric, Pair, Single},
    labels::Reporter,
    series::Row,
};
use buffer::Buffer;

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text, version 0.0.4.
    Text,
    /// OpenMetrics text, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Returns the value of the `Content-Type` header.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a metric is, as `TYPE` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Label sets that know how to write themselves.
pub(crate) trait WriteLabels {
    /// Writes the labels after `reporter` and before `request_protocol`, each with a comma after it.
    fn write(&self, out: &mut Buffer<'_>) -> io::Result<()>;
}

impl WriteLabels for Pair {
    #[inline]
    fn write(&self, out: &mut Buffer<'_>) -> io::Result<()> {
        let Self { source, middle, destination } = self;
        out.put(source.text())?;
        out.put(middle.text())?;
        out.put(destination.text())
    }
}

impl WriteLabels for Single {
    fn write(&self, out: &mut Buffer<'_>) -> io::Result<()> {
        let Self { own, ends } = self;
        out.put(&own.start)?;
        out.put(ends.source.text())?;
        out.put(&own.addresses)?;
        out.put(ends.pod.text())?;
        out.put(ends.service.text())?;
        out.put(ends.destination.text())
    }
}

/// Writes metrics in one format, through a buffer of 64 KiB.
pub(crate) struct Encoder<'a> {
    format: Format,
    out: Buffer<'a>,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(format: Format, out: &'a mut dyn Write) -> Self {
        Self { format, out: Buffer::new(out) }
    }

    /// Writes the metrics of a family; `rows` gives the family's rows, once for each metric.
    pub(crate) fn family<'r, L, const N: usize, R>(
        &mut self,
        metrics: &[Metric],
        rows: impl Fn() -> R,
    ) -> io::Result<()>
    where
        L: WriteLabels + 'r,
        R: Iterator<Item = &'r Row<L, N>>,
    {
        for metric in metrics {
            self.head(metric.name, metric.help, metric.unit, Kind::Counter)?;
            let begin =
                Reporter::ALL.map(|reporter| format!("{}_total{{reporter=\"{}\",", metric.name, reporter.value()));
            for row in rows() {
                let Some(value) = row.value(metric.slot) else { continue };
                self.out.put(&begin[row.reporter as usize])?;
                row.labels.write(&mut self.out)?;
                self.out.put(row.flag.suffix())?;
                self.out.put("} ")?;
                self.out.put_number(value)?;
                self.out.put("\n")?;
            }
        }
        Ok(())
    }

    /// Writes `HELP`, `TYPE` and, where OpenMetrics has it, `UNIT`; `name` is without `_total`.
    pub(crate) fn head(&mut self, name: &str, help: &str, unit: &str, kind: Kind) -> io::Result<()> {
        let suffix = if self.format == Format::Text && kind == Kind::Counter { "_total" } else { "" };
        self.out.put_all(&["# HELP ", name, suffix, " "])?;
        self.help(help)?;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.out.put_all(&["\n# TYPE ", name, suffix, " ", kind, "\n"])?;
        if self.format == Format::OpenMetrics && !unit.is_empty() {
            self.out.put_all(&["# UNIT ", name, " ", unit, "\n"])?;
        }
        Ok(())
    }

    /// Writes a sample of one label, whose value is our own and needs no escape.
    pub(crate) fn sample(&mut self, name: &str, label: &str, of: &str, value: u64) -> io::Result<()> {
        self.out.put_all(&[name, "{", label, "=\"", of, "\"} "])?;
        self.out.put_number(value)?;
        self.out.put("\n")
    }

    /// Writes what is left, and OpenMetrics' end.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        if self.format == Format::OpenMetrics {
            self.out.put("# EOF\n")?;
        }
        self.out.flush()
    }

    /// Help text: `\` and newline escaped in both formats, `"` in OpenMetrics.
    fn help(&mut self, help: &str) -> io::Result<()> {
        for piece in help.split_inclusive(['\\', '\n', '"']) {
            let (plain, escaped) = match piece.as_bytes().last() {
                Some(b'\\') => (&piece[..piece.len() - 1], "\\\\"),
                Some(b'\n') => (&piece[..piece.len() - 1], "\\n"),
                Some(b'"') if self.format == Format::OpenMetrics => (&piece[..piece.len() - 1], "\\\""),
                _ => (piece, ""),
            };
            self.out.put_all(&[plain, escaped])?;
        }
        Ok(())
    }
}
