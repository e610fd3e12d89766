//! The protobuf wire format, read in place: fields of a message one after the other, without copying.

/// Bytes that are no protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// The message ends in the middle of a field.
    #[error("the message is cut short")]
    Short,
    /// A number of more than ten bytes.
    #[error("a number is too long")]
    Varint,
    /// A field number of 0 or beyond 2^29 - 1.
    #[error("a field has no valid number")]
    Number,
    /// A wire type that proto3 does not use.
    #[error("a field has wire type {0}")]
    Type(u8),
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    Text,
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A number.
    Varint(u64),
    /// A string, bytes or a message.
    Bytes(&'a [u8]),
    /// Four or eight bytes, which none of the messages here use.
    Fixed,
}

/// The start of a field: what it is, and how many bytes up to its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Field number.
    pub(crate) number: u32,
    /// A length-delimited one, with content.
    pub(crate) delimited: bool,
    /// Bytes of key and length (and of the number itself for one that is not length-delimited).
    pub(crate) head: usize,
    /// Bytes of content.
    pub(crate) content: usize,
}

/// The most bytes that [`Head::read`] needs to see: a key and a number or length.
pub(crate) const HEAD: usize = 20;

impl Head {
    /// Reads the start of a field; [`Malformed::Short`] if `bytes` do not hold it whole.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let (key, first) = varint(bytes)?;
        let number = u32::try_from(key >> 3).ok().filter(|n| (1..1 << 29).contains(n)).ok_or(Malformed::Number)?;
        let plain = |head| Ok(Self { number, delimited: false, head, content: 0 });
        match (key & 7) as u8 {
            0 => plain(first + varint(&bytes[first..])?.1),
            1 => plain(first + 8),
            2 => {
                let (length, second) = varint(&bytes[first..])?;
                let content = usize::try_from(length).map_err(|_| Malformed::Varint)?;
                Ok(Self { number, delimited: true, head: first + second, content })
            }
            5 => plain(first + 4),
            other => Err(Malformed::Type(other)),
        }
    }
}

/// Iterates over the fields of a message; ends after the first error.
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let Head { number, delimited, head, content } = Head::read(self.0)?;
        let (start, rest) = self.0.split_at_checked(head).ok_or(Malformed::Short)?;
        let (bytes, rest) = rest.split_at_checked(content).ok_or(Malformed::Short)?;
        self.0 = rest;
        let value = match start[0] & 7 {
            0 => Value::Varint(varint(&start[varint(start)?.1..])?.0),
            _ if delimited => Value::Bytes(bytes),
            _ => Value::Fixed,
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Reads bytes as a string.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed::Text)
}

/// Reads a number, and how many bytes it took.
fn varint(bytes: &[u8]) -> Result<(u64, usize), Malformed> {
    if let Some(&byte) = bytes.first().filter(|byte| **byte < 0x80) {
        return Ok((byte.into(), 1));
    }
    let mut value = 0_u64;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        let part = u64::from(byte & 0x7f);
        if i == 9 && part > 1 {
            return Err(Malformed::Varint);
        }
        value |= part << (7 * i);
        if byte & 0x80 == 0 {
            return Ok((value, i + 1));
        }
    }
    Err(if bytes.len() < 10 { Malformed::Short } else { Malformed::Varint })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_order_with_their_values() {
        let message = [0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i', 0x1d, 1, 2, 3, 4, 0x19, 1, 2, 3, 4, 5, 6, 7, 8];
        let fields: Result<Vec<_>, _> = Fields::new(&message).collect();
        let expected = vec![(1, Value::Varint(150)), (2, Value::Bytes(b"hi")), (3, Value::Fixed), (3, Value::Fixed)];
        assert_eq!(fields, Ok(expected));
    }

    #[test]
    fn every_cut_of_a_message_is_short_and_nothing_follows() {
        let message = [0x12, 0x02, b'h', b'i', 0x08, 0x96, 0x01];
        for cut in [1, 2, 3, 5, 6] {
            let fields: Vec<_> = Fields::new(&message[..cut]).collect();
            assert_eq!(fields.last(), Some(&Err(Malformed::Short)), "cut at {cut}");
        }
    }

    #[test]
    fn groups_bad_numbers_and_endless_varints_are_refused() {
        let first = |bytes: &'static [u8]| Fields::new(bytes).next();
        assert_eq!(first(&[0x0b]), Some(Err(Malformed::Type(3))));
        assert_eq!(first(&[0x02, 0x00]), Some(Err(Malformed::Number)));
        assert_eq!(first(&[0x80; 11]), Some(Err(Malformed::Varint)));
        assert_eq!(
            first(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            Some(Err(Malformed::Short))
        );
    }
}
