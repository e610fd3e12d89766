//! Which format and encoding a client gets (RFC 9110, 12.5).

use crate::encode::Format;

/// How a response body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// `gzip`.
    Gzip,
}

/// What a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The format, whose content type is [`Format::content_type`].
    pub format: Format,
    /// The content encoding.
    pub encoding: Encoding,
}

/// Chooses by the `Accept` and `Accept-Encoding` headers; empty where the client sent none.
///
/// OpenMetrics is given to those who name it (version 1.0.0, 0.0.1 or none) and do not prefer text; everybody else gets
/// text, also where nothing fits, as a scrape in the wrong format tells more than none.
pub fn negotiate(accept: &str, accept_encoding: &str) -> Negotiated {
    let (mut text, mut open) = (0.0_f32, 0.0_f32);
    for range in accept.split(',').map(Range::parse) {
        let weight = range.weight;
        match range.name.as_str() {
            "application/openmetrics-text" if matches!(range.version, "" | "1.0.0" | "0.0.1") => {
                open = open.max(weight)
            }
            "text/plain" if matches!(range.version, "" | "0.0.4") => text = text.max(weight),
            "text/*" | "*/*" => text = text.max(weight),
            _ => {}
        }
    }
    let format = if open > 0.0 && open >= text { Format::OpenMetrics } else { Format::Text };

    let (mut gzip, mut any) = (None, None);
    for range in accept_encoding.split(',').map(Range::parse) {
        match range.name.as_str() {
            "gzip" | "x-gzip" => gzip = Some(range.weight),
            "*" => any = Some(range.weight),
            _ => {}
        }
    }
    let encoding = if gzip.or(any).is_some_and(|weight| weight > 0.0) { Encoding::Gzip } else { Encoding::Identity };
    Negotiated { format, encoding }
}

/// One element of a header that ranks what a client takes.
struct Range<'a> {
    name: String,
    version: &'a str,
    weight: f32,
}

impl<'a> Range<'a> {
    fn parse(element: &'a str) -> Self {
        let mut parts = element.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let mut range = Self { name, version: "", weight: 1.0 };
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "q" => range.weight = value.parse().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0),
                "version" => range.version = value,
                _ => {}
            }
        }
        range
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(accept: &str) -> Format {
        negotiate(accept, "").format
    }

    #[test]
    fn who_names_openmetrics_gets_it_unless_text_ranks_higher() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.2";
        assert_eq!(format(prometheus), Format::OpenMetrics);
        assert_eq!(format("application/openmetrics-text"), Format::OpenMetrics);
        assert_eq!(format("Application/OpenMetrics-Text; Version=\"0.0.1\""), Format::OpenMetrics);
        assert_eq!(format("application/openmetrics-text;q=0.3, text/plain"), Format::Text);
        assert_eq!(format("application/openmetrics-text;q=0"), Format::Text);
        assert_eq!(format("application/openmetrics-text;version=2.0.0,text/plain;q=0.1"), Format::Text);
    }

    #[test]
    fn everybody_else_gets_text() {
        for accept in ["", "*/*", "text/plain", "text/html", "nonsense;;q=,", "application/json;q=9"] {
            assert_eq!(format(accept), Format::Text, "{accept}");
        }
    }

    #[test]
    fn gzip_is_given_where_it_is_taken() {
        let encoding = |accept| negotiate("", accept).encoding;
        for accept in ["gzip", "deflate, GZIP;q=0.5", "*", "x-gzip", "br, *;q=0.1"] {
            assert_eq!(encoding(accept), Encoding::Gzip, "{accept}");
        }
        for accept in ["", "identity", "gzip;q=0", "gzip;q=0, *", "br", "gzip;q=x"] {
            assert_eq!(encoding(accept), Encoding::Identity, "{accept}");
        }
    }
}
