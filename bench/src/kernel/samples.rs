//! What was measured round by round, in modes that took turns.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::figure::{Figures, Number, Target, median};

/// Values by what they are and in which mode, one a round.
#[derive(Debug)]
pub struct Samples<M> {
    values: BTreeMap<(&'static str, M), Vec<f64>>,
}

impl<M> Default for Samples<M> {
    fn default() -> Self {
        Self { values: BTreeMap::new() }
    }
}

impl<M: Copy + Ord> Samples<M> {
    /// Adds what one round came to.
    pub fn push(&mut self, what: &'static str, mode: M, value: f64) {
        self.values.entry((what, mode)).or_default().push(value);
    }

    /// Adds the median of the ratios of single rounds as a figure, if both modes were measured.
    pub fn compare(&self, figures: &mut Figures, what: &'static str, (mode, base): (M, M), name: &str, target: Target) {
        let (Some(values), Some(bases)) = (self.values.get(&(what, mode)), self.values.get(&(what, base))) else {
            return;
        };
        let mut ratios: Vec<_> = values.iter().zip(bases).map(|(value, base)| value / base).collect();
        ratios.sort_by(f64::total_cmp);
        let note = format!(
            "{} / {}; single rounds {:.3} to {:.3}",
            Number(median(values)),
            Number(median(bases)),
            ratios[0],
            ratios[ratios.len() - 1]
        );
        figures.add(&format!("{what}: {name}"), target, median(&ratios), "", note);
    }

    /// Returns a table of medians: what was measured, by mode; modes that were not measured are left out.
    pub fn table(&self, modes: &[(M, &str)]) -> String {
        let measured = |mode: M| self.values.keys().any(|(_, of)| *of == mode);
        let modes: Vec<_> = modes.iter().filter(|(mode, _)| measured(*mode)).collect();
        let mut table = modes.iter().fold("| medians |".to_owned(), |head, (_, name)| head + &format!(" {name} |"));
        table += &format!("\n|{}\n", "---|".repeat(modes.len() + 1));
        let mut rows: Vec<_> = self.values.keys().map(|(what, _)| *what).collect();
        rows.dedup();
        for what in rows {
            // Writing to a string does not fail.
            let _ = write!(table, "| {what} |");
            for (mode, _) in &modes {
                let value = self.values.get(&(what, *mode)).map_or(String::new(), |v| Number(median(v)).to_string());
                let _ = write!(table, " {value} |");
            }
            table.push('\n');
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_single_rounds() {
        let mut samples = Samples::default();
        for (on, off) in [(1.0, 2.0), (9.0, 10.0), (60.0, 100.0)] {
            samples.push("time", true, on);
            samples.push("time", false, off);
        }
        let mut figures = Figures::default();
        samples.compare(&mut figures, "time", (true, false), "on / off", Target::AtMost(0.6));
        samples.compare(&mut figures, "rate", (true, false), "on / off", Target::AtMost(0.6));
        assert!(figures.missed().is_empty());
        let shown = figures.to_string();
        assert!(
            shown.contains("| time: on / off | ≤ 0.6 | 0.600  | 9.00 / 10.0; single rounds 0.500 to 0.900 |"),
            "{shown}"
        );
        assert!(samples.table(&[(false, "off"), (true, "on")]).ends_with("| time | 10.0 | 9.00 |\n"));
    }
}
