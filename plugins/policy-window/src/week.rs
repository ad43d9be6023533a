//! A week of minutes: which are open, and when that changes next.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};

const DAY: u32 = 24 * 60;
const WEEK: u32 = 7 * DAY;
const MINUTE_MS: u64 = 60_000;

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl Day {
    pub(crate) const ALL: [Self; 7] = [
        Self::Mon,
        Self::Tue,
        Self::Wed,
        Self::Thu,
        Self::Fri,
        Self::Sat,
        Self::Sun,
    ];
}

/// Minutes after midnight, at most 24:00.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimeOfDay(u32);

/// Minutes east of UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offset(i32);

impl<'de> Deserialize<'de> for TimeOfDay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = clock(&text).filter(|minutes| *minutes <= DAY);
        time.map(Self)
            .ok_or_else(|| D::Error::custom("a time of day is HH:MM, from 00:00 to 24:00"))
    }
}

impl<'de> Deserialize<'de> for Offset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let signed = |text: &str| {
            let minutes = i32::try_from(clock(text)?).ok()?;
            (minutes <= 14 * 60).then_some(minutes)
        };
        let offset = match text.as_bytes().first() {
            _ if text == "UTC" => Some(0),
            Some(b'+') => signed(&text[1..]),
            Some(b'-') => signed(&text[1..]).map(|minutes| -minutes),
            _ => None,
        };
        offset
            .map(Self)
            .ok_or_else(|| D::Error::custom("an offset is `UTC`, or as in `+02:00`, at most 14:00"))
    }
}

fn clock(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |part: &str| {
        (part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| part.parse::<u32>().ok())?
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (minutes < 60).then_some(hours * 60 + minutes)
}

impl JsonSchema for TimeOfDay {
    fn schema_name() -> Cow<'static, str> {
        "TimeOfDay".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$" })
    }
}

impl JsonSchema for Offset {
    fn schema_name() -> Cow<'static, str> {
        "Offset".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(UTC|[+-](0[0-9]|1[0-4]):[0-5][0-9])$" })
    }
}

impl Offset {
    /// A time as people read it, as in `Mon 2026-11-30 09:00 +02:00`.
    pub(crate) fn show(self, at_ms: u64) -> String {
        let minutes = local_minutes(at_ms, self);
        let (days, of_day) = (minutes / i64::from(DAY), minutes % i64::from(DAY));
        let (year, month, day) = date(days);
        // 1970 began with a Thursday.
        let name = Day::ALL[usize::try_from((days + 3) % 7).unwrap_or_default()];
        format!(
            "{name:?} {year:04}-{month:02}-{day:02} {:02}:{:02} {self}",
            of_day / 60,
            of_day % 60
        )
    }
}

impl std::fmt::Display for Offset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == 0 {
            return f.write_str("UTC");
        }
        let sign = if self.0 < 0 { '-' } else { '+' };
        let minutes = self.0.unsigned_abs();
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

/// Minutes since 1970 on the clock of the offset; what lies before is its beginning.
fn local_minutes(at_ms: u64, offset: Offset) -> i64 {
    let minutes = i64::try_from(at_ms / MINUTE_MS).unwrap_or(i64::MAX / 2);
    (minutes + i64::from(offset.0)).max(0)
}

/// Year, month and day of a day since 1970.
fn date(days: i64) -> (i64, i64, i64) {
    // Years begin in March, so that the leap day is the last of one; 400 of them are an era.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let of_era_year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * of_era_year + of_era_year / 4 - of_era_year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = of_era_year + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

/// What holds at a moment. Times are milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// A window is open and none of them ever closes.
    Always,
    /// A window is open, or several that follow one another, until then.
    OpenUntil(u64),
    /// No window is open, and the next opens then.
    ClosedUntil(Option<u64>),
}

/// Spans of minutes since Monday 00:00, none of which touches another. The last may reach into
/// the next week.
#[derive(Debug)]
pub(crate) struct Week(Vec<(u32, u32)>);

impl Week {
    /// From spans that begin on a day. A span whose end is not after its beginning ends on the
    /// next day.
    pub(crate) fn new(spans: impl IntoIterator<Item = (Day, TimeOfDay, TimeOfDay)>) -> Self {
        let mut open = vec![false; WEEK as usize];
        for (day, from, to) in spans {
            let midnight = day as u32 * DAY;
            let end = if to > from { to.0 } else { to.0 + DAY };
            for minute in midnight + from.0..midnight + end {
                open[(minute % WEEK) as usize] = true;
            }
        }
        if open.iter().all(|minute| *minute) {
            return Self(vec![(0, WEEK)]);
        }
        // Begins where it is closed, so that no span is cut in two.
        let first = (0..WEEK)
            .find(|minute| !open[*minute as usize])
            .unwrap_or(0);
        let mut spans: Vec<(u32, u32)> = Vec::new();
        for minute in first..first + WEEK {
            if open[(minute % WEEK) as usize] {
                match spans.last_mut() {
                    Some((_, end)) if *end == minute => *end += 1,
                    _ => spans.push((minute, minute + 1)),
                }
            }
        }
        Self(spans)
    }

    pub(crate) fn always_open(&self) -> bool {
        self.0.iter().any(|(from, to)| to - from >= WEEK)
    }

    pub(crate) fn at(&self, now_ms: u64, offset: Offset) -> State {
        if self.always_open() {
            return State::Always;
        }
        // 1970 began with a Thursday.
        let local = local_minutes(now_ms, offset) + i64::from(3 * DAY);
        let minute = u32::try_from(local % i64::from(WEEK)).unwrap_or(0);
        let begin_ms = now_ms - now_ms % MINUTE_MS;
        let then = |later: u32| begin_ms.saturating_add(u64::from(later) * MINUTE_MS);
        // Seen from this week and from the one before, in which the span may have begun.
        let open = self.0.iter().find_map(|&(from, to)| {
            [minute, minute + WEEK]
                .into_iter()
                .find(|now| (from..to).contains(now))
                .map(|now| to - now)
        });
        if let Some(left) = open {
            return State::OpenUntil(then(left));
        }
        let next = self
            .0
            .iter()
            .map(|(from, _)| (from + WEEK - minute) % WEEK)
            .min();
        State::ClosedUntil(next.map(then))
    }
}
