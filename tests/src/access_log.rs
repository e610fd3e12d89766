//! Reads a line of the text access log.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

/// The fields of a text line in the order they must stand in; `error` may follow.
pub const FIELDS: [&str; 17] = [
    "src.addr",
    "src.workload",
    "src.namespace",
    "dst.addr",
    "dst.service",
    "dst.workload",
    "dst.namespace",
    "start_time",
    "direction",
    "state",
    "sent_bytes",
    "received_bytes",
    "packet_loss",
    "retransmissions",
    "srtt",
    "min_rtt",
    "duration",
];

/// One line of the access log.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// The line as written.
    pub text: String,
    fields: BTreeMap<String, String>,
}

impl LogLine {
    /// Parses a line, which must have exactly the fields of the format in their order.
    pub fn parse(text: &str) -> Result<Self> {
        let rest = text.strip_prefix("accesslog: ").context("not an access-log line")?;
        let (time, rest) = rest.split_once(" UTC ").context("no time")?;
        ensure!(is_time(time), "`{time}` is not a time with nine digits");
        let pairs: Vec<_> = rest.split(", ").map(|p| p.split_once('=').with_context(|| format!("in `{p}`"))).collect();
        let pairs: Vec<(&str, &str)> = pairs.into_iter().collect::<Result<_>>()?;
        let names: Vec<_> = pairs.iter().map(|p| p.0).collect();
        ensure!(names.len() >= FIELDS.len() && names[..FIELDS.len()] == FIELDS, "fields are {names:?}");
        ensure!(names.len() == FIELDS.len() || names[FIELDS.len()..] == ["error"], "fields are {names:?}");
        let fields = pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        Ok(Self { text: text.to_owned(), fields })
    }

    /// Returns a field; one that is not there is empty.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// Returns a field that is a number.
    pub fn number(&self, name: &str) -> u64 {
        self.field(name).parse().unwrap_or_else(|_| panic!("{name} is no number in `{}`", self.text))
    }

    /// Tells whether these fields have these values.
    pub fn has(&self, fields: &[(&str, &str)]) -> bool {
        fields.iter().all(|(k, v)| self.field(k) == *v)
    }
}

/// `2024-09-14 08:19:26.552709932 +0000`
fn is_time(text: &str) -> bool {
    let pattern = "dddd-dd-dd dd:dd:dd.ddddddddd +0000";
    text.len() == pattern.len()
        && text.chars().zip(pattern.chars()).all(|(c, p)| if p == 'd' { c.is_ascii_digit() } else { c == p })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "accesslog: 2024-09-14 08:19:26.552709932 +0000 UTC src.addr=10.244.0.17:51842, src.workload=a, \
        src.namespace=b, dst.addr=10.244.0.13:9080, dst.service=c, dst.workload=d, dst.namespace=e, \
        start_time=2024-09-14 08:19:26.549976030 +0000 UTC, direction=INBOUND, state=BPF_TCP_CLOSE, sent_bytes=5, \
        received_bytes=292, packet_loss=0, retransmissions=0, srtt=43us, min_rtt=36us, duration=2.733902ms";

    #[test]
    fn the_format_is_read() {
        let line = LogLine::parse(LINE).unwrap();
        assert_eq!((line.field("src.addr"), line.number("received_bytes")), ("10.244.0.17:51842", 292));
        assert!(line.has(&[("state", "BPF_TCP_CLOSE"), ("error", "")]));
        assert!(LogLine::parse(&format!("{LINE}, error=ECONNREFUSED")).unwrap().has(&[("error", "ECONNREFUSED")]));
    }

    #[test]
    fn another_order_a_missing_or_a_further_field_is_an_error() {
        assert!(LogLine::parse(&LINE.replace("src.workload=a, ", "")).is_err());
        assert!(LogLine::parse(&LINE.replace("srtt=43us, min_rtt=36us", "min_rtt=36us, srtt=43us")).is_err());
        assert!(LogLine::parse(&format!("{LINE}, x=1")).is_err());
        assert!(LogLine::parse(&LINE.replacen(".552709932", ".55", 1)).is_err());
    }
}
