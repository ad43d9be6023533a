//! Prometheus' text form, 0.0.4.
//!
//! A family is written as a whole: its head, then its samples. The form demands that
//! (a second head of the same name makes the whole text invalid), and here it cannot be
//! done otherwise. A family without samples leaves nothing.

use std::fmt::{Display, Write as _};

/// A text in the making.
#[derive(Debug, Default)]
pub(super) struct Text(String);

/// What kind of values a family has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Untyped,
}

/// A family being written.
#[derive(Debug)]
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
    help: &'a str,
    kind: Kind,
    begun: bool,
}

impl Text {
    pub(super) fn family<'a>(&'a mut self, name: &'a str, help: &'a str, kind: Kind) -> Family<'a> {
        Family {
            text: &mut self.0,
            name,
            help,
            kind,
            begun: false,
        }
    }

    /// A family of one sample without labels.
    pub(super) fn one(&mut self, name: &str, help: &str, kind: Kind, value: impl Display) {
        self.family(name, help, kind).sample(&[], value);
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// One sample. `value` must print as a number.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let name = self.name;
        if !self.begun {
            self.begun = true;
            let kind = match self.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Untyped => "untyped",
            };
            let help = self.help.replace('\\', "\\\\").replace('\n', "\\n");
            // Writing to a String cannot fail.
            let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
        self.text.push_str(name);
        for (place, (label, value)) in labels.iter().enumerate() {
            self.text.push(if place == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{label}=\"");
            escape(self.text, value);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// Mount points and unit names are anybody's text.
fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

/// `numerator / denominator` as a decimal: exact, where a float would lose the last
/// digits of a counter.
pub(super) fn ratio(numerator: u64, denominator: u64) -> String {
    let denominator = denominator.max(1);
    let (whole, rest) = (numerator / denominator, numerator % denominator);
    if rest == 0 {
        return whole.to_string();
    }
    let micros = u128::from(rest) * 1_000_000 / u128::from(denominator);
    let text = format!("{whole}.{micros:06}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
