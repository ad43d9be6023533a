//! Times, sizes and foreign text in the form people read.

use std::time::Duration;

use model::Timestamp;

/// `text` with everything that could drive a terminal written out as an escape.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if drives_terminal(letter) {
            out.extend(letter.escape_default());
        } else {
            out.push(letter);
        }
    }
    out
}

/// Whether a terminal may do anything else than show this letter where it stands.
pub fn drives_terminal(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// How long ago: `3m`, `2d`; what lies ahead is `in 3m`. Less than a second
/// ahead is now: clocks differ by that much.
pub fn age(now: Timestamp, at: Timestamp) -> String {
    if ahead(now, at) {
        format!("in {}", coarse(at.since(now)))
    } else {
        coarse(now.since(at))
    }
}

/// The instant in UTC and how far away it is.
pub fn time_text(now: Timestamp, at: Timestamp) -> String {
    let away = if ahead(now, at) {
        age(now, at)
    } else {
        format!("{} ago", age(now, at))
    };
    format!("{at} ({away})")
}

fn ahead(now: Timestamp, at: Timestamp) -> bool {
    at.since(now) >= Duration::from_secs(1)
}

/// The two largest units: `1h30m`, `2.5s`, `250ms`.
pub fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    if millis < 60_000 {
        let tenths = millis % 1000 / 100;
        let seconds = millis / 1000;
        return if tenths == 0 {
            format!("{seconds}s")
        } else {
            format!("{seconds}.{tenths}s")
        };
    }
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let mut rest = duration.as_secs();
    let mut parts = String::new();
    let mut count = 0;
    for (size, unit) in units {
        let amount = rest / size;
        rest %= size;
        if amount > 0 && count < 2 {
            parts.push_str(&format!("{amount}{unit}"));
        }
        count += usize::from(amount > 0 || count > 0);
    }
    parts
}

/// `1.5 GiB`.
pub fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    if tenths % 10 == 0 || unit == 0 {
        format!("{} {}", tenths / 10, UNITS[unit])
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

/// The largest unit alone.
fn coarse(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ ..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abuse_28_foreign_text_cannot_drive_a_terminal() {
        assert_eq!(
            printable("a\x1b]0;x\x07\n\u{202e}ü"),
            "a\\u{1b}]0;x\\u{7}\\n\\u{202e}ü"
        );
    }

    #[test]
    fn ages_are_coarse_and_know_the_future() {
        let at = Timestamp::from_millis(1_800_000_000_000);
        let later = |secs| at.saturating_add(Duration::from_secs(secs));
        for (secs, expected) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7199, "119m"),
            (7200, "2h"),
            (200_000, "2d"),
        ] {
            assert_eq!(age(later(secs), at), expected);
        }
        assert_eq!(age(at, later(300)), "in 5m");
        assert_eq!(age(at, at.saturating_add(Duration::from_millis(999))), "0s");
        assert_eq!(
            time_text(later(60), at),
            "2027-01-15T08:00:00.000Z (60s ago)"
        );
    }

    #[test]
    fn durations_and_sizes_are_short() {
        let text = |millis| duration_text(Duration::from_millis(millis));
        for (millis, expected) in [
            (0, "0ms"),
            (250, "250ms"),
            (2000, "2s"),
            (1500, "1.5s"),
            (5_400_000, "1h30m"),
            (86_400_000 * 30, "30d"),
            (3_601_000, "1h"),
        ] {
            assert_eq!(text(millis), expected);
        }
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (8 << 30, "8 GiB"),
        ] {
            assert_eq!(bytes_text(bytes), expected);
        }
    }
}
