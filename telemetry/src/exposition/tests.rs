use std::{
    io::{self, Read, Write},
    process::{Command, Stdio},
};

use flate2::read::GzDecoder;

use super::{Encoding, Negotiated};
use crate::{
    ConnectionLabels, Flag, Format, Reporter, Traffic,
    families::{
        CONNECTION, SERVICE, WORKLOAD,
        fixture::{Fixture, pod},
    },
};

/// A mesh in which something of everything happened, with names that want escapes.
fn busy() -> Fixture {
    let mut fixture = Fixture::new(100);
    let hostile = fixture.workload(pod("ns\"\n", "quote\"back\\slash"));
    let plain = fixture.ends("client", "server");
    let odd = fixture.families.ends(Some(&hostile), Some(&hostile), "10.0.0.1".parse().expect("an address"), None);
    for (ends, reporter) in [(&plain, Reporter::Source), (&odd, Reporter::Destination)] {
        let families = &mut fixture.families;
        families.service(ends, reporter, Flag::None, 0).opened(0);
        families.service(ends, reporter, Flag::NoHealthyEndpoint, 0).failed(0);
        families.service(ends, reporter, Flag::Reset, 0).closed(0);
        families.workload(ends, reporter, Flag::None, 0).opened(0);
        families.workload(ends, reporter, Flag::ConnectTimeout, 0).failed(0);
        let labels = ConnectionLabels {
            start_time: "2024-09-14 08:19:26.549976030 +0000 UTC",
            source_address: "10.0.0.1:1".parse().expect("an address"),
            destination_address: "10.0.0.2:2".parse().expect("an address"),
        };
        let traffic = Traffic { sent: 1, received: u64::MAX >> 12, retransmits: 0, lost: 0 };
        families.connection(ends, reporter, labels, 0).moved(&traffic, 0);
    }
    fixture
}

#[test]
fn promtool_finds_nothing_to_say() {
    let text = busy().scrape(Format::Text);
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool comes with prometheus, which setup.sh installs");
    promtool.stdin.take().expect("stdin is a pipe").write_all(text.as_bytes()).expect("promtool reads");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn every_metric_has_help_and_type_without_series() {
    let (text, open) = (Fixture::new(1).scrape(Format::Text), Fixture::new(1).scrape(Format::OpenMetrics));
    for metric in SERVICE.iter().chain(WORKLOAD).chain(CONNECTION) {
        let (name, help) = (metric.name, metric.help);
        assert!(text.contains(&format!("# HELP {name}_total {help}\n# TYPE {name}_total counter\n")), "{name}");
        assert!(open.contains(&format!("# HELP {name} {help}\n# TYPE {name} counter\n")), "{name}");
        assert!(metric.unit.is_empty() || open.contains(&format!("# UNIT {name} {}\n", metric.unit)), "{name}");
    }
    assert!(!text.contains("# EOF") && !text.contains("# UNIT"));
    assert!(open.ends_with("\n# EOF\n") && open.matches("# EOF").count() == 1);
}

#[test]
fn both_formats_have_the_same_samples() {
    let mut fixture = busy();
    let samples = |text: String| {
        let timeless =
            |line: &&str| !line.starts_with('#') && !line.contains("scrape_duration") && !line.contains("_lag_");
        text.lines().filter(timeless).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(samples(fixture.scrape(Format::Text)), samples(fixture.scrape(Format::OpenMetrics)));
}

#[test]
fn a_metric_stands_in_one_piece() {
    let text = busy().scrape(Format::OpenMetrics);
    let mut seen = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().expect("a line has a name");
        if seen.last() != Some(&name) {
            let histogram = ["_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end));
            assert!(histogram || !seen.contains(&name), "{name} stands in two places");
            seen.push(name);
        }
    }
}

#[test]
fn gzip_holds_what_identity_holds() {
    let mut fixture = busy();
    let text = fixture.scrape(Format::Text);
    let mut packed = Vec::new();
    let asked = Negotiated { format: Format::Text, encoding: Encoding::Gzip };
    fixture.exposition.scrape(asked, &mut packed).expect("a vector takes everything");
    let mut unpacked = String::new();
    GzDecoder::new(&packed[..]).read_to_string(&mut unpacked).expect("it is gzip");
    let families = |text: &str| text[..text.find("meshd_telemetry_lag").expect("it is there")].to_owned();
    assert_eq!(families(&text), families(&unpacked));
}

/// Takes so many bytes and no more.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let taken = bytes.len().min(self.0);
        assert!(bytes.len() <= 64 * 1024);
        self.0 -= taken;
        Ok(taken)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_client_that_leaves_ends_the_scrape() {
    let mut fixture = busy();
    let whole = fixture.scrape(Format::Text).len();
    assert!(fixture.exposition.encode(Format::Text, &mut Full(whole / 2)).is_err());
    assert!(fixture.exposition.encode(Format::Text, &mut Full(usize::MAX)).is_ok());
}
