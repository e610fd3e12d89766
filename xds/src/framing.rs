//! A gRPC stream cut into the fields of its messages while the bytes arrive.
//!
//! The control plane sends its whole state as one message of any size. Taking that message field by field keeps no more of it in
//! memory than one resource and what the network delivered at once, and decoding overlaps with receiving.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::wire::{HEAD, Head, Malformed};

/// Bytes that are no gRPC stream of protobuf messages, or one that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FramingError {
    /// A compressed message, which was not asked for.
    #[error("a message has compression flag {0}, and no compression was agreed on")]
    Compressed(u8),
    /// A message whose fields cannot be told apart.
    #[error("a message cannot be read: {0}")]
    Malformed(#[from] Malformed),
    /// A field longer than the rest of its message.
    #[error("a field is longer than its message")]
    Overlong,
    /// A resource that is too large to hold.
    #[error("one field is {size} bytes long, at most {limit} are accepted")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
}

/// What a stream consists of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A length-delimited field of the present message.
    Field(u32, Bytes),
    /// The end of a message, and its size in bytes.
    End(usize),
}

/// Takes chunks of any size, gives the parts in them.
#[derive(Debug)]
pub(crate) struct Framing {
    chunks: VecDeque<Bytes>,
    held: usize,
    /// Bytes left of the present message, and its size; `None` before the header of the next.
    message: Option<(usize, usize)>,
    limit: usize,
}

/// The header of a gRPC message: a flag and the length.
const HEADER: usize = 5;

impl Framing {
    /// Starts at the beginning of a stream; `limit` is the size of the largest field to accept, in bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { chunks: VecDeque::new(), held: 0, message: None, limit }
    }

    /// Adds what came from the network.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.held += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// Returns the next part, or `None` until more bytes have come. After an error the stream is of no use.
    pub(crate) fn next(&mut self) -> Result<Option<Part>, FramingError> {
        loop {
            match self.message {
                None => {
                    let Some(header) = self.take(HEADER) else { return Ok(None) };
                    if header[0] != 0 {
                        return Err(FramingError::Compressed(header[0]));
                    }
                    let size = (&header[1..]).get_u32() as usize;
                    self.message = Some((size, size));
                }
                Some((0, size)) => {
                    self.message = None;
                    return Ok(Some(Part::End(size)));
                }
                Some((left, size)) => match self.field(left, size)? {
                    Field::Delimited(number, content) => return Ok(Some(Part::Field(number, content))),
                    Field::Skipped => {}
                    Field::Unfinished => return Ok(None),
                },
            }
        }
    }

    fn field(&mut self, left: usize, size: usize) -> Result<Field, FramingError> {
        let (start, seen) = self.peek();
        let Head { number, delimited, head, content } = match Head::read(&start[..seen.min(left)]) {
            Ok(field) => field,
            Err(Malformed::Short) if seen < left.min(HEAD) => return Ok(Field::Unfinished),
            Err(error) => return Err(error.into()),
        };
        let length = head.checked_add(content).filter(|length| *length <= left).ok_or(FramingError::Overlong)?;
        if content > self.limit {
            return Err(FramingError::TooLarge { size: content, limit: self.limit });
        }
        let Some(mut field) = self.take(length) else { return Ok(Field::Unfinished) };
        self.message = Some((left - length, size));
        field.advance(head);
        Ok(if delimited { Field::Delimited(number, field) } else { Field::Skipped })
    }

    /// Copies the first bytes held, as many as a field's head can need.
    fn peek(&self) -> ([u8; HEAD], usize) {
        let (mut start, mut seen) = ([0; HEAD], 0);
        for chunk in &self.chunks {
            let count = chunk.len().min(HEAD - seen);
            start[seen..seen + count].copy_from_slice(&chunk[..count]);
            seen += count;
            if seen == HEAD {
                break;
            }
        }
        (start, seen)
    }

    /// Takes `count` bytes if so many are held; copies only what is spread over several chunks.
    fn take(&mut self, count: usize) -> Option<Bytes> {
        if self.held < count {
            return None;
        }
        self.held -= count;
        let first = self.chunks.front_mut().map_or(0, |chunk| chunk.len());
        if first > count {
            return self.chunks.front_mut().map(|chunk| chunk.split_to(count));
        }
        if first == count {
            return Some(self.chunks.pop_front().unwrap_or_default());
        }
        let mut whole = BytesMut::with_capacity(count);
        while whole.len() < count {
            let mut chunk = self.chunks.pop_front()?;
            let missing = count - whole.len();
            whole.extend_from_slice(&chunk[..missing.min(chunk.len())]);
            if chunk.len() > missing {
                chunk.advance(missing);
                self.chunks.push_front(chunk);
            }
        }
        Some(whole.freeze())
    }
}

enum Field {
    Delimited(u32, Bytes),
    Skipped,
    Unfinished,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
    }

    fn parts(framing: &mut Framing) -> Vec<Part> {
        std::iter::from_fn(|| framing.next().unwrap()).collect()
    }

    #[test]
    fn parts_do_not_depend_on_how_the_bytes_are_cut() {
        let stream = [framed(b"\x0a\x02hi\x10\x05\x12\x00"), framed(b""), framed(b"\x22\x03abc")].concat();
        let expected = vec![
            Part::Field(1, Bytes::from_static(b"hi")),
            Part::Field(2, Bytes::new()),
            Part::End(8),
            Part::End(0),
            Part::Field(4, Bytes::from_static(b"abc")),
            Part::End(5),
        ];
        for size in 1..=stream.len() {
            let mut framing = Framing::new(100);
            let mut seen = Vec::new();
            for chunk in stream.chunks(size) {
                framing.push(Bytes::copy_from_slice(chunk));
                seen.extend(parts(&mut framing));
            }
            assert_eq!(seen, expected, "in chunks of {size}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_before_it_is_held() {
        let mut framing = Framing::new(10);
        framing.push(framed(b"\x0a\x0b01234567890")[..8].to_vec().into());
        assert_eq!(framing.next(), Err(FramingError::TooLarge { size: 11, limit: 10 }));
        let mut framing = Framing::new(10);
        framing.push(framed(b"\x0a\x05hi").into());
        assert_eq!(framing.next(), Err(FramingError::Overlong));
        let mut framing = Framing::new(10);
        framing.push(framed(b"\x0a").into());
        assert_eq!(framing.next(), Err(FramingError::Malformed(Malformed::Short)));
        let mut framing = Framing::new(10);
        framing.push(Bytes::from_static(b"HTTP/1.1 400"));
        assert_eq!(framing.next(), Err(FramingError::Compressed(b'H')));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..16)) {
            let mut framing = Framing::new(1 << 20);
            for chunk in chunks {
                framing.push(chunk.into());
                while let Ok(Some(_)) = framing.next() {}
            }
        }
    }
}
