//! Lines that plugins write, in a ring per plugin.
//!
//! Lines have sequence numbers, so a reader that comes back sees what it missed: a gap between
//! numbers is what fell out of the ring, `dropped` is what never came in. What a plugin writes is
//! data: it cannot drive a terminal, and what it may write in a call and in a second is bounded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use model::Timestamp;
use model::names::clean;
use serde::{Deserialize, Serialize};

/// Lines that are kept.
const KEEP_LINES: usize = 1_000;
/// Bytes that are kept.
const KEEP_BYTES: usize = 512 << 10;
/// Lines per second that a plugin may write for long; ten times that at once.
const LINES_PER_SECOND: f64 = 50.0;
const BURST: f64 = 500.0;
/// Of one line.
const MESSAGE_CHARS: usize = 4_096;
const FIELDS: usize = 16;
const FIELD_NAME_CHARS: usize = 64;
const FIELD_CHARS: usize = 1_024;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Every step.
    Trace,
    /// What a developer wants; also what the plugin wrote to its standard output.
    Debug,
    /// Worth knowing.
    Info,
    /// Odd; also what the plugin wrote to its standard error.
    Warn,
    /// Wrong.
    Error,
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Grows by one with each line of the plugin.
    pub sequence: u64,
    /// When it was written.
    pub time: Timestamp,
    /// In which call.
    pub call: String,
    /// How much it matters.
    pub level: Level,
    /// What it says.
    pub message: String,
    /// For programs.
    pub fields: Vec<(String, String)>,
}

impl LogLine {
    fn bytes(&self) -> usize {
        let fields = self.fields.iter().map(|(k, v)| k.len() + v.len());
        64 + self.message.len() + fields.sum::<usize>()
    }
}

/// Some lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPage {
    /// Oldest first.
    pub lines: Vec<LogLine>,
    /// The number of the oldest line that is still kept.
    pub oldest: u64,
    /// Lines that were written too fast or too much in one call, ever.
    pub dropped: u64,
}

/// The lines of one plugin.
#[derive(Default)]
pub(crate) struct Ring(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    lines: VecDeque<LogLine>,
    bytes: usize,
    written: u64,
    dropped: u64,
    bucket: Option<(f64, Instant)>,
}

impl Kept {
    fn allows(&mut self, now: Instant) -> bool {
        let (level, since) = self.bucket.unwrap_or((BURST, now));
        let gained = now.saturating_duration_since(since).as_secs_f64() * LINES_PER_SECOND;
        let level = (level + gained).min(BURST);
        let allowed = level >= 1.0;
        self.bucket = Some((if allowed { level - 1.0 } else { level }, now));
        allowed
    }
}

impl Ring {
    /// Takes a line, unless there are too many. Answers whether it did.
    pub(crate) fn push(
        &self,
        now: Instant,
        call: &str,
        level: Level,
        message: &str,
        fields: &[(String, String)],
    ) -> bool {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.allows(now) {
            kept.dropped += 1;
            return false;
        }
        kept.written += 1;
        let line = LogLine {
            sequence: kept.written,
            time: Timestamp::from_millis(
                i64::try_from(crate::surroundings::now_ms()).unwrap_or(i64::MAX),
            ),
            call: call.to_owned(),
            level,
            message: clean(message, MESSAGE_CHARS),
            fields: fields
                .iter()
                .take(FIELDS)
                .map(|(name, value)| (clean(name, FIELD_NAME_CHARS), clean(value, FIELD_CHARS)))
                .collect(),
        };
        kept.bytes += line.bytes();
        kept.lines.push_back(line);
        while kept.lines.len() > KEEP_LINES || kept.bytes > KEEP_BYTES {
            let Some(oldest) = kept.lines.pop_front() else {
                break;
            };
            kept.bytes -= oldest.bytes();
        }
        true
    }

    /// Counts a line that was not even looked at.
    pub(crate) fn drop_one(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .dropped += 1;
    }

    /// At most `limit` lines with a number above `after`.
    pub(crate) fn page(&self, after: u64, limit: usize) -> LogPage {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        LogPage {
            lines: kept
                .lines
                .iter()
                .filter(|line| line.sequence > after)
                .take(limit)
                .cloned()
                .collect(),
            oldest: kept
                .lines
                .front()
                .map_or(kept.written + 1, |line| line.sequence),
            dropped: kept.dropped,
        }
    }
}

/// A ring that calls share.
pub(crate) type SharedRing = Arc<Ring>;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_dropped_and_counted_and_time_heals() {
        let ring = Ring::default();
        let start = Instant::now();
        let taken = (0..2_000)
            .filter(|_| ring.push(start, "call_1", Level::Info, "x", &[]))
            .count();
        assert_eq!(taken, 500);
        assert_eq!(ring.page(0, 10).dropped, 1_500);
        let later = start + Duration::from_secs(1);
        assert!(ring.push(later, "call_1", Level::Info, "y", &[]));
        let page = ring.page(500, 10);
        assert_eq!(page.lines.len(), 1);
        assert_eq!(page.lines[0].sequence, 501);
    }

    #[test]
    fn a_line_cannot_drive_a_terminal_and_is_bounded() {
        let ring = Ring::default();
        let fields = vec![("k\n".to_owned(), "v\u{202e}".to_owned()); 40];
        let message = format!("\x1b[2J{}", "m".repeat(10_000));
        ring.push(Instant::now(), "call_1", Level::Warn, &message, &fields);
        let line = ring.page(0, 1).lines.remove(0);
        assert!(line.message.starts_with('\u{fffd}'));
        assert_eq!(line.message.chars().count(), MESSAGE_CHARS);
        assert_eq!(line.fields.len(), FIELDS);
        assert_eq!(line.fields[0], ("k\u{fffd}".into(), "v\u{fffd}".into()));
    }

    #[test]
    fn old_lines_fall_out_and_their_numbers_tell() {
        let ring = Ring::default();
        let mut now = Instant::now();
        for _ in 0..KEEP_LINES + 5 {
            now += Duration::from_secs(1);
            ring.push(now, "call_1", Level::Info, "x", &[]);
        }
        let page = ring.page(0, usize::MAX);
        assert_eq!(page.lines.len(), KEEP_LINES);
        assert_eq!(page.oldest, 6);
    }
}
