//! Names as they stand in a line, and numbers.

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
};

/// Bytes of a name beyond which it is cut and ends with `\\...`.
const LONGEST: usize = 1024;

/// Appends a name to a text line: `-` where it is empty.
///
/// Printable ASCII stands for itself, but for the four characters that a line is made of: a space, `,`, `=`, and `\` itself.
/// Those and all else are written as `\u{hex}`, and so is a name that is just `-`. So a value never holds a separator, a
/// quote that opens something, a control or a direction mark, and reads back to one name only.
pub(super) fn text_name(out: &mut Vec<u8>, name: &str) {
    match name {
        "" => out.push(b'-'),
        "-" => spelled_out(out, '-'),
        plain if plain.len() <= LONGEST && plain.bytes().all(stands_in_text) => out.extend_from_slice(plain.as_bytes()),
        _ => {
            let kept = &name[..name.floor_char_boundary(LONGEST)];
            for c in kept.chars() {
                match u8::try_from(c) {
                    Ok(byte) if stands_in_text(byte) => out.push(byte),
                    _ => spelled_out(out, c),
                }
            }
            if kept.len() < name.len() {
                out.extend_from_slice(b"\\...");
            }
        }
    }
}

fn stands_in_text(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b',' | b'=' | b'\\' | b'"')
}

fn spelled_out(out: &mut Vec<u8>, c: char) {
    write!(out, "\\u{{{:x}}}", u32::from(c)).expect("a vector takes every write");
}

/// Appends a JSON string, ASCII alone: what is not printable ASCII is `\uXXXX`, in pairs where it must be, and what is cut
/// ends with `...`.
pub(super) fn json_string(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    let kept = &value[..value.floor_char_boundary(LONGEST)];
    for c in kept.chars() {
        match c {
            '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
            ' '..='~' => out.push(c as u8),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}").expect("a vector takes every write");
                }
            }
        }
    }
    if kept.len() < value.len() {
        out.extend_from_slice(b"...");
    }
    out.push(b'"');
}

pub(super) fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends ms in plain decimal, with as many of six digits after the point as say something.
pub(super) fn milliseconds(out: &mut Vec<u8>, ns: u64) {
    number(out, ns / 1_000_000);
    let mut rest = ns % 1_000_000;
    if rest == 0 {
        return;
    }
    out.push(b'.');
    let mut unit = 100_000;
    while rest > 0 {
        out.push(b'0' + (rest / unit) as u8);
        rest %= unit;
        unit /= 10;
    }
}

/// Appends `ip:port`, or `[ip]:port` for IPv6.
pub(super) fn address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            for (octet, after) in [(a, b'.'), (b, b'.'), (c, b'.'), (d, b':')] {
                number(out, octet.into());
                out.push(after);
            }
        }
        IpAddr::V6(ip) => write!(out, "[{ip}]:").expect("a vector takes every write"),
    }
    number(out, address.port().into());
}
