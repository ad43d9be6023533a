//! Durations as people write them: `10s`, `90d`, `1h30m`, `500ms`.
//!
//! A bare number is refused: it is the classic way to turn seconds into
//! milliseconds. Months and years are left out because nobody agrees how long
//! they are.

use std::time::Duration;

use serde::{Deserializer, Serializer, de};

/// Unit and milliseconds, longest first.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// The text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration; write it as 500ms, 10s, 5m, 1h30m or 90d")]
pub struct NotADuration(String);

/// Reads a duration.
pub fn parse(text: &str) -> Result<Duration, NotADuration> {
    let refuse = || NotADuration(text.to_owned());
    let mut rest = text;
    let mut millis = 0u64;
    let mut longest_left = UNITS.len() + 1;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .ok_or_else(refuse)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let place = UNITS
            .iter()
            .position(|(name, _)| *name == unit)
            .ok_or_else(refuse)?;
        // Each unit once and in order, so that `1m1h` and `5s5s` are the slips they are.
        if UNITS.len() - place >= longest_left {
            return Err(refuse());
        }
        longest_left = UNITS.len() - place;
        let number: u64 = number.parse().map_err(|_| refuse())?;
        millis = number
            .checked_mul(UNITS[place].1)
            .and_then(|part| millis.checked_add(part))
            .ok_or_else(refuse)?;
        rest = tail;
    }
    if text.is_empty() {
        Err(refuse())
    } else {
        Ok(Duration::from_millis(millis))
    }
}

/// The shortest text that reads as `duration`, to the millisecond.
pub fn format(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, size) in UNITS {
        let count = millis / size;
        millis %= size;
        if count > 0 {
            text.push_str(&count.to_string());
            text.push_str(unit);
        }
    }
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&format(*value))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    struct Text;
    impl de::Visitor<'_> for Text {
        type Value = Duration;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a duration in quotes, such as \"10s\", \"1h30m\" or \"90d\"")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            parse(text).map_err(E::custom)
        }
    }
    from.deserialize_str(Text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn people_write_durations_like_this() {
        for (text, millis) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("1h30m", 5_400_000),
            ("90d", 7_776_000_000),
            ("0s", 0),
            ("1d2h3m4s5ms", 93_784_005),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "10",
            "s",
            "10 s",
            "-1s",
            "1.5h",
            "1y",
            "1m1h",
            "5s5s",
            "1S",
            "99999999999999d",
            "１s",
        ] {
            assert!(parse(text).is_err(), "{text} was accepted");
        }
    }

    proptest! {
        #[test]
        fn every_duration_survives_its_text(millis: u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = parse(&text);
        }
    }
}
