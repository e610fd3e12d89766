//! What a scrape gets: the families, then the process's own metrics, in the format it asked for.

mod negotiate;
mod standing;
#[cfg(test)]
mod tests;

pub use negotiate::{Encoding, Negotiated, negotiate};

use std::{
    io::{self, Write},
    time::Instant,
};

use flate2::{Compression, write::GzEncoder};
use prometheus::{Histogram, Registry};

pub use crate::encode::Format;
use crate::{
    encode::Encoder,
    families::{CONNECTION, Reader, SERVICE, WORKLOAD},
};

/// What scrapes read; shared by all of them, and none waits for another or makes the record thread wait.
#[derive(Debug)]
pub struct Exposition {
    families: Reader,
    registry: Registry,
    duration: Histogram,
}

impl Exposition {
    /// Makes an exposition of the families and of a registry; `duration` takes the seconds that each scrape took.
    pub fn new(families: Reader, registry: Registry, duration: Histogram) -> Self {
        Self { families, registry, duration }
    }

    /// Returns the registry of the process's own metrics.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Writes everything, in pieces of 64 KiB.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn encode(&self, format: Format, out: &mut dyn Write) -> io::Result<()> {
        let begin = Instant::now();
        let (service, workload, connection) = self.families.load();
        let mut encoder = Encoder::new(format, out);
        encoder.family(SERVICE, || service.rows())?;
        encoder.family(WORKLOAD, || workload.rows())?;
        encoder.family(CONNECTION, || connection.rows())?;
        standing::encode(&mut encoder, &service.standing, &workload.standing, &connection.standing)?;
        encoder.gathered(&self.registry.gather())?;
        encoder.finish()?;
        self.duration.observe(begin.elapsed().as_secs_f64());
        Ok(())
    }

    /// Writes everything as a client asked for it.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn scrape(&self, asked: Negotiated, out: &mut dyn Write) -> io::Result<()> {
        match asked.encoding {
            Encoding::Identity => self.encode(asked.format, out),
            Encoding::Gzip => {
                let mut gzip = GzEncoder::new(out, Compression::fast());
                self.encode(asked.format, &mut gzip)?;
                gzip.finish().map(drop)
            }
        }
    }
}
