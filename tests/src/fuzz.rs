//! Fuzzers: a property that holds for whatever is put in, tried for some seconds from a seed that is always the same and from a new one.

use std::{
    env,
    hash::{BuildHasher as _, RandomState},
    str::FromStr,
    time::{Duration, Instant},
};

use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngSeed, TestCaseError, TestRunner},
};

/// How long each fuzzer runs unless `FUZZ_SECONDS` says otherwise.
const SECONDS: u64 = 4;
/// The seed that is always the same.
const SEED: u64 = 1;
/// Inputs that come of one seed; the next ones come of the next seed.
const BATCH: u32 = 64;
/// How long what fails is made smaller, ms.
const SHRINKING_MS: u32 = 30_000;

/// Tries a property, half of `FUZZ_SECONDS` from a fixed seed and half from `FUZZ_SEED`, or a random one; prints both.
///
/// # Panics
/// The property does not hold: with the smallest input that was found, and the seed that leads there.
pub fn fuzz<S: Strategy>(name: &str, strategy: &S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let time = Duration::from_secs(variable("FUZZ_SECONDS").unwrap_or(SECONDS)) / 2;
    let fresh = variable("FUZZ_SEED").unwrap_or_else(|| RandomState::new().hash_one(name) >> 16);
    for seed in [SEED, fresh] {
        eprintln!("fuzz {name}: from seed {seed}");
        let begin = Instant::now();
        let mut seeds = 0;
        while seeds == 0 || begin.elapsed() < time {
            let seed = seed.wrapping_add(seeds);
            let config = Config {
                cases: BATCH,
                rng_seed: RngSeed::Fixed(seed),
                failure_persistence: None,
                max_shrink_time: SHRINKING_MS,
                max_shrink_iters: 100_000,
                ..Config::default()
            };
            if let Err(failure) = TestRunner::new(config).run(strategy, &property) {
                panic!("fuzz {name}: FUZZ_SEED={seed} leads to {failure}");
            }
            seeds += 1;
        }
        eprintln!("fuzz {name}: {} inputs hold", seeds * u64::from(BATCH));
    }
}

fn variable(name: &str) -> Option<u64> {
    let text = env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(u64::from_str(&text).unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
