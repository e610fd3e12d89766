//! Lines stay lines: whatever a name from outside holds, it cannot break or forge one.

use std::io::{self, Write};

/// Writes each buffer as one line, with every control character but the last newline escaped.
///
/// `tracing_subscriber` hands over one whole event a call.
pub(super) struct Escaped<W>(pub(super) W);

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (line, end) = text.strip_suffix('\n').map_or((&*text, ""), |line| (line, "\n"));
        if line.chars().any(char::is_control) {
            let mut clean = String::with_capacity(event.len() + 16);
            for c in line.chars() {
                if c.is_control() { clean.extend(c.escape_default()) } else { clean.push(c) }
            }
            clean.push_str(end);
            self.0.write_all(clean.as_bytes())?;
        } else {
            self.0.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::Escaped;

    #[test]
    fn a_newline_or_escape_inside_an_event_is_escaped_and_the_last_newline_stays() {
        let mut out = Vec::new();
        Escaped(&mut out).write_all("name=a\nERROR forged\u{1b}[2J\u{85} é\n".as_bytes()).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "name=a\\nERROR forged\\u{1b}[2J\\u{85} é\n");
    }
}
