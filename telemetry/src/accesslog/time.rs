//! Wall times as text. The part up to the second is kept, since most lines of a batch share it.

use jiff::Timestamp;

/// The two ways to write a time; both have nine digits of a second and are UTC.
#[derive(Clone, Copy, Debug)]
enum Style {
    /// `2024-09-14 08:19:26.552709932 +0000 UTC`
    Text,
    /// `2024-09-14T08:19:26.552709932Z`
    Rfc3339,
}

/// Writes times, remembering the last second written.
#[derive(Debug)]
pub(super) struct Times {
    style: Style,
    second: u64,
    date: Vec<u8>,
}

impl Times {
    pub(super) fn text() -> Self {
        Self { style: Style::Text, second: u64::MAX, date: Vec::new() }
    }

    pub(super) fn rfc3339() -> Self {
        Self { style: Style::Rfc3339, second: u64::MAX, date: Vec::new() }
    }

    /// Appends a time, ns since the Unix epoch.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, wall_ns: u64) {
        let (second, mut rest) = (wall_ns / 1_000_000_000, wall_ns % 1_000_000_000);
        if second != self.second {
            self.second = second;
            self.date = date(self.style, second).into_bytes();
        }
        out.extend_from_slice(&self.date);
        let mut digits = *b".000000000";
        for digit in digits[1..].iter_mut().rev() {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
        out.extend_from_slice(&digits);
        out.extend_from_slice(match self.style {
            Style::Text => b" +0000 UTC",
            Style::Rfc3339 => b"Z",
        });
    }
}

fn date(style: Style, second: u64) -> String {
    let format = match style {
        Style::Text => "%Y-%m-%d %H:%M:%S",
        Style::Rfc3339 => "%Y-%m-%dT%H:%M:%S",
    };
    // 64 bits of ns reach to the year 2554, well within a timestamp.
    let at = Timestamp::from_second(second as i64).expect("a timestamp holds every second of 64 bits of ns");
    at.strftime(format).to_string()
}

fn once(mut times: Times, wall_ns: u64) -> String {
    let mut out = Vec::with_capacity(48);
    times.write(&mut out, wall_ns);
    String::from_utf8(out).expect("times are ASCII")
}

/// Returns a time as text lines show it, `2024-09-14 08:19:26.552709932 +0000 UTC`, of ns since the Unix epoch.
pub fn text(wall_ns: u64) -> String {
    once(Times::text(), wall_ns)
}

/// Returns a time in RFC 3339 with nanoseconds, `2024-09-14T08:19:26.552709932Z`, of ns since the Unix epoch.
pub fn rfc3339(wall_ns: u64) -> String {
    once(Times::rfc3339(), wall_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_nine_digits_and_are_utc() {
        assert_eq!(text(1_726_301_966_552_709_932), "2024-09-14 08:19:26.552709932 +0000 UTC");
        assert_eq!(rfc3339(1_726_301_966_000_000_007), "2024-09-14T08:19:26.000000007Z");
        assert_eq!(text(0), "1970-01-01 00:00:00.000000000 +0000 UTC");
        assert_eq!(&text(u64::MAX)[..4], "2554");
    }

    #[test]
    fn the_kept_second_is_left_when_time_moves_on_or_back() {
        let mut times = Times::text();
        let mut out = Vec::new();
        for ns in [999_999_999, 1_000_000_000, 999_999_999] {
            times.write(&mut out, ns);
            out.push(b'\n');
        }
        let lines = String::from_utf8(out).unwrap();
        let seconds: Vec<_> = lines.lines().map(|l| &l[17..29]).collect();
        assert_eq!(seconds, ["00.999999999", "01.000000000", "00.999999999"]);
    }
}
