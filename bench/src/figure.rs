//! Measured figures beside what they have to reach, as the table that `README.md` shows.

use std::fmt;

/// What a figure has to reach.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
    /// Nothing: shown to explain the others.
    None,
}

/// One figure.
#[derive(Debug)]
pub struct Figure {
    name: String,
    target: Target,
    measured: f64,
    unit: &'static str,
    note: String,
}

/// The figures of a run, printed as a table.
#[derive(Debug, Default)]
pub struct Figures(Vec<Figure>);

impl Figures {
    /// Adds a figure. `note` says what else a reader should know: absolute values, the spread.
    pub fn add(&mut self, name: &str, target: Target, measured: f64, unit: &'static str, note: impl Into<String>) {
        self.0.push(Figure { name: name.to_owned(), target, measured, unit, note: note.into() });
    }

    /// Returns the names of the figures that missed their target.
    pub fn missed(&self) -> Vec<&str> {
        self.0.iter().filter(|f| !f.reached()).map(|f| f.name.as_str()).collect()
    }
}

impl Figure {
    fn reached(&self) -> bool {
        match self.target {
            Target::AtLeast(least) => self.measured >= least,
            Target::AtMost(most) => self.measured <= most,
            Target::None => true,
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| figure | target | measured | |\n|---|---|---|---|")?;
        self.0.iter().try_for_each(|figure| writeln!(f, "{figure}"))
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, target, measured, unit, note } = self;
        let missed = if self.reached() { "" } else { "**missed** " };
        write!(f, "| {name} | {target} | {missed}{} {unit} | {note} |", Number(*measured))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "≥ {least}"),
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::None => Ok(()),
        }
    }
}

/// A number with three digits that mean something, or all of its integer part.
#[derive(Clone, Copy, Debug)]
pub struct Number(pub f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.abs() {
            0.0 => write!(f, "0"),
            n if n < 1.0 => write!(f, "{:.3}", self.0),
            n if n < 10.0 => write!(f, "{:.2}", self.0),
            n if n < 100.0 => write!(f, "{:.1}", self.0),
            _ => write!(f, "{:.0}", self.0),
        }
    }
}

/// Returns the median; of an even number the mean of the two in the middle. None has one is a bug of the caller.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

#[cfg(test)]
mod tests {
    use super::{Figures, Target, median};

    #[test]
    fn median_takes_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn a_missed_target_is_named() {
        let mut figures = Figures::default();
        figures.add("rate", Target::AtLeast(0.9), 0.89, "", "");
        figures.add("time", Target::AtMost(3.5), 2.8, "us", "");
        assert_eq!(figures.missed(), ["rate"]);
        assert!(figures.to_string().contains("| time | ≤ 3.5 | 2.80 us |  |"));
    }
}
