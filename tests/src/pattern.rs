//! Bytes of which each place in a stream has its own, so that what is lost, doubled, changed or in another order is seen.

use std::sync::LazyLock;

use anyhow::{Result, bail};

/// A prime, so that pieces of usual sizes do not fall on places of equal bytes.
const LENGTH: usize = 1_048_573;

static BLOCK: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut rng = fastrand::Rng::with_seed(LENGTH as u64);
    (0..LENGTH).map(|_| rng.u8(..)).collect()
});

/// A stream of bytes that a number determines; either end goes through it by itself.
#[derive(Clone, Debug)]
pub struct Pattern {
    first: u64,
    passed: u64,
}

impl Pattern {
    /// Begins the stream of a number.
    pub fn new(number: u64) -> Self {
        Self { first: number % LENGTH as u64, passed: 0 }
    }

    /// Writes what comes next.
    pub fn fill(&mut self, mut buffer: &mut [u8]) {
        while !buffer.is_empty() {
            let next = self.next(buffer.len());
            let (now, later) = buffer.split_at_mut(next.len());
            now.copy_from_slice(next);
            buffer = later;
        }
    }

    /// Says whether this is what comes next.
    pub fn check(&mut self, mut buffer: &[u8]) -> Result<()> {
        while !buffer.is_empty() {
            let at = self.passed;
            let next = self.next(buffer.len());
            let (now, later) = buffer.split_at(next.len());
            if now != next {
                let right = now.iter().zip(next).take_while(|(is, should)| is == should).count();
                bail!("other bytes than were sent, from byte {} on", at + right as u64);
            }
            buffer = later;
        }
        Ok(())
    }

    /// Returns how many bytes were written or checked.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Passes over the longest piece of at most so many bytes that stands in one place.
    fn next(&mut self, most: usize) -> &'static [u8] {
        let begin = ((self.first + self.passed) % LENGTH as u64) as usize;
        let end = LENGTH.min(begin + most);
        self.passed += (end - begin) as u64;
        &BLOCK[begin..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_known_again_in_other_pieces_and_not_in_another_order() {
        let mut sent = vec![0; 3 << 20];
        Pattern::new(7).fill(&mut sent);
        let mut received = Pattern::new(7);
        for piece in sent.chunks(777_777) {
            received.check(piece).unwrap();
        }
        assert_eq!(received.passed(), 3 << 20);
        let (first, second) = (sent[..65536].to_vec(), sent[65536..131_072].to_vec());
        sent[..65536].copy_from_slice(&second);
        sent[65536..131_072].copy_from_slice(&first);
        let error = Pattern::new(7).check(&sent).unwrap_err();
        assert!(error.to_string().starts_with("other bytes than were sent, from byte 0 on"), "{error}");
        assert!(Pattern::new(8).check(&sent).is_err());
    }
}
