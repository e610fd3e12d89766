//! Label text: escaping that both text formats understand.

use std::{
    fmt::Write,
    hash::{DefaultHasher, Hash, Hasher},
};

/// Bytes of a value beyond which it is cut and marked.
pub(crate) const LONGEST_VALUE: usize = 1024;

/// Writing of labels into a string.
pub(crate) trait Render {
    /// Appends `<prefix><name>="<value>",`, an empty value as `-`.
    fn label(&mut self, prefix: &str, name: &str, value: &str);

    /// Appends a value as it stands between quotes: `\`, `"` and newline escaped, other control characters and line
    /// separators spelled out (`\u{1b}`), and what is longer than 1 KiB cut, marked and told apart by a hash.
    fn value(&mut self, value: &str);
}

impl Render for String {
    fn label(&mut self, prefix: &str, name: &str, value: &str) {
        self.push_str(prefix);
        self.push_str(name);
        self.push_str("=\"");
        self.value(if value.is_empty() { "-" } else { value });
        self.push_str("\",");
    }

    fn value(&mut self, value: &str) {
        let kept = &value[..value.floor_char_boundary(LONGEST_VALUE)];
        for c in kept.chars() {
            match c {
                '\\' => self.push_str("\\\\"),
                '"' => self.push_str("\\\""),
                '\n' => self.push_str("\\n"),
                c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => spell_out(self, c),
                c => self.push(c),
            }
        }
        if kept.len() < value.len() {
            let mut hasher = DefaultHasher::new();
            value.hash(&mut hasher);
            write!(self, "...#{:016x}", hasher.finish()).expect("writing to a string does not fail");
        }
    }
}

fn spell_out(out: &mut String, c: char) {
    write!(out, "\\\\u{{{:x}}}", u32::from(c)).expect("writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> String {
        let mut out = String::new();
        out.label("", "x", value);
        out
    }

    #[test]
    fn quotes_backslashes_and_newlines_are_escaped() {
        assert_eq!(shown("a\"b\\c\nd"), r#"x="a\"b\\c\nd","#);
        assert_eq!(shown("plain é 漢"), "x=\"plain é 漢\",");
        assert_eq!(shown(""), "x=\"-\",");
    }

    #[test]
    fn control_characters_are_spelled_out() {
        assert_eq!(shown("a\rb\u{1b}c\0\u{85}\u{2028}"), r#"x="a\\u{d}b\\u{1b}c\\u{0}\\u{85}\\u{2028}","#);
    }

    #[test]
    fn long_values_are_cut_at_a_character_and_stay_distinct() {
        let (a, b) = ("é".repeat(2000) + "a", "é".repeat(2000) + "b");
        let (shown_a, shown_b) = (shown(&a), shown(&b));
        assert!(shown_a.len() < LONGEST_VALUE + 40 && shown_a.contains("...#"));
        assert_ne!(shown_a, shown_b);
        assert_eq!(shown(&"a".repeat(LONGEST_VALUE)), format!("x=\"{}\",", "a".repeat(LONGEST_VALUE)));
    }
}
