//! What is said in a conversation, step by step.

use std::time::Duration;

use fastrand::Rng;

/// An end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// It has connected.
    Client,
    /// It has accepted.
    Server,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Bytes from one end to the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    pub(super) bytes: u64,
    /// Most bytes of one write.
    pub(super) piece: u64,
    /// Most bytes of one read.
    pub(super) ear: u64,
    /// How late the other end begins to read.
    pub(super) late: Duration,
}

impl Words {
    pub(super) const FEW: Self = Self { bytes: 5, piece: 5, ear: 5, late: Duration::ZERO };

    /// Up to so many bytes, small numbers as likely as large ones.
    fn new(rng: &mut Rng, most: u64) -> Self {
        let magnitude = rng.u32(..=most.ilog2());
        let bytes = 1 + rng.u64(..1 << magnitude);
        let piece = |rng: &mut Rng| [bytes, 100, 1448, 4096, 65536, 262_144][rng.usize(..6)].max(bytes / 512).max(1);
        let (piece, ear) = (piece(rng), piece(rng).min(1 << 20));
        // Now and then what comes has to wait unread.
        let late = if rng.u8(..50) == 0 { Duration::from_millis(rng.u64(..150)) } else { Duration::ZERO };
        Self { bytes, piece, ear, late }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// One end sends, the other reads.
    Say(Side, Words),
    /// Both send at once: the client the first.
    Both([Words; 2]),
    /// Neither does anything.
    Rest(Duration),
}

#[derive(Clone, Debug)]
pub(super) enum Ending {
    /// One end ends its writing half; the other has more to say before it ends.
    Finish { first: Side, more: Words },
    /// One end resets.
    Reset { by: Side },
}

#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) steps: Vec<Step>,
    pub(super) ending: Ending,
}

/// Exchanges after which a connection is taken for a long one, and the rest in which it then is not busy.
const LONG: u32 = 60;
const REST: Duration = Duration::from_millis(300);

impl Script {
    /// Writes the script of a number.
    pub(super) fn new(number: u64) -> Self {
        let mut rng = Rng::with_seed(number);
        let rng = &mut rng;
        let mut steps = Vec::new();
        match rng.u8(..100) {
            // Short: one or a few requests with their answers.
            0..80 => exchange(rng, &mut steps, 1..4, 20_000),
            // Long: many, and a rest now and then, in which it may come to be redirected or not to be any more.
            80..93 => {
                for _ in 0..rng.u32(1..4) {
                    exchange(rng, &mut steps, LONG..2 * LONG, 1000);
                    steps.push(Step::Rest(REST));
                    talk(rng, &mut steps, 1..30, 300_000);
                }
            }
            // Bulk, with and without a beginning as long ones have it.
            _ => {
                if rng.bool() {
                    exchange(rng, &mut steps, LONG..2 * LONG, 1000);
                    steps.push(Step::Rest(REST));
                }
                talk(rng, &mut steps, 1..4, 32 << 20);
            }
        }
        let side = side(rng);
        let ending = match rng.u8(..4) {
            0 => Ending::Reset { by: side },
            _ => Ending::Finish { first: side, more: Words::new(rng, 100_000) },
        };
        Self { steps, ending }
    }

    /// Returns how many bytes are said, both ways.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        let said = |step: &Step| match step {
            Step::Say(_, words) => words.bytes,
            Step::Both(words) => words[0].bytes + words[1].bytes,
            Step::Rest(_) => 0,
        };
        self.steps.iter().map(said).sum()
    }
}

/// Requests and answers.
fn exchange(rng: &mut Rng, steps: &mut Vec<Step>, times: std::ops::Range<u32>, most: u64) {
    for _ in 0..rng.u32(times) {
        steps.push(Step::Say(Side::Client, Words::new(rng, most)));
        steps.push(Step::Say(Side::Server, Words::new(rng, most)));
    }
}

/// Either says something, or both at once.
fn talk(rng: &mut Rng, steps: &mut Vec<Step>, times: std::ops::Range<u32>, most: u64) {
    for _ in 0..rng.u32(times) {
        steps.push(match rng.u8(..3) {
            0 => Step::Both([Words::new(rng, most), Words::new(rng, most)]),
            _ => Step::Say(side(rng), Words::new(rng, most)),
        });
    }
}

fn side(rng: &mut Rng) -> Side {
    if rng.bool() { Side::Client } else { Side::Server }
}
