//! Values on the command line that are more than one word of the API.

use std::collections::BTreeMap;
use std::time::Duration;

use model::Timestamp;
use model::access::Rule;
use model::labels::Labels;
use model::permission::Pattern;
use model::tenancy::Environment;

/// Reads `2s`, `1h30m`, `500ms`, `30d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    const WRONG: &str = "write a duration as 500ms, 2s, 1h30m or 30d";
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(WRONG.to_owned());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|letter: char| !letter.is_ascii_digit())
            .ok_or(WRONG)?;
        let (amount, after) = rest.split_at(digits);
        let amount: u64 = amount.parse().map_err(|_| WRONG)?;
        let unit = after
            .find(|letter: char| letter.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(WRONG.to_owned()),
        };
        let part = amount.checked_mul(millis).map(Duration::from_millis);
        total = part
            .and_then(|part| total.checked_add(part))
            .ok_or("the duration is too long")?;
        rest = after;
    }
    Ok(total)
}

/// Reads a size of memory: `512M`, `2G`, `1048576`.
pub fn bytes(text: &str) -> Result<u64, String> {
    const WRONG: &str = "write a size as 512M or 2G: K, M, G and T are powers of 1024";
    let digits = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (amount, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "K" | "k" | "KiB" => 10,
        "M" | "m" | "MiB" => 20,
        "G" | "g" | "GiB" => 30,
        "T" | "t" | "TiB" => 40,
        _ => return Err(WRONG.to_owned()),
    };
    let amount: u64 = amount.parse().map_err(|_| WRONG)?;
    amount
        .checked_mul(1 << shift)
        .ok_or_else(|| "the size is too large".to_owned())
}

/// Reads processors, `2` or `0.5`, as thousandths.
pub fn cpus(text: &str) -> Result<u32, String> {
    const WRONG: &str = "write processors as 2 or 0.5, at least 0.01";
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !(digits(whole) && digits(part) && (1..=3).contains(&part.len())) {
        return Err(WRONG.to_owned());
    }
    let whole: u32 = whole.parse().map_err(|_| WRONG)?;
    let part: u32 = format!("{part:0<3}").parse().map_err(|_| WRONG)?;
    whole
        .checked_mul(1000)
        .and_then(|millis| millis.checked_add(part))
        .filter(|millis| *millis >= 10)
        .ok_or_else(|| WRONG.to_owned())
}

/// Reads a number of hosts or a share of them, `3` or `10%`; sent as it is written.
pub fn size(text: &str) -> Result<String, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let most = if number.len() < text.len() {
        100
    } else {
        u32::MAX
    };
    match number.parse::<u32>() {
        Ok(value) if value <= most && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok(text.to_owned())
        }
        _ => Err("write a number of hosts or a share of them: 3 or 10%".to_owned()),
    }
}

/// An instant, or so long from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At this time.
    At(Timestamp),
    /// So long from now.
    In(Duration),
}

impl When {
    /// The instant meant.
    pub fn from(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::In(duration) => now.saturating_add(duration),
        }
    }
}

/// Reads `30d` or `2026-01-31T12:00:00Z`.
pub fn when(text: &str) -> Result<When, String> {
    if let Ok(duration) = duration(text) {
        return Ok(When::In(duration));
    }
    text.parse()
        .map(When::At)
        .map_err(|_| "write a time as 30d or 2026-01-31T12:00:00Z".to_owned())
}

/// Reads `project.workspace.host@staging,development`: what is allowed, and in
/// which environments where not in all.
pub fn rule(text: &str) -> Result<Rule, String> {
    let (pattern, environments) = text
        .split_once('@')
        .map_or((text, None), |(pattern, rest)| (pattern, Some(rest)));
    let allow = pattern
        .parse::<Pattern>()
        .map_err(|error| error.to_string())?;
    let environments = environments.map_or(Ok(Vec::new()), |list| {
        list.split(',').map(environment).collect()
    });
    Ok(Rule {
        allow,
        environments: environments?,
    })
}

/// `PATTERN@env,env` of a rule.
pub fn rule_text(rule: &Rule) -> String {
    let environments: Vec<_> = rule
        .environments
        .iter()
        .map(|environment| environment.as_str())
        .collect();
    if environments.is_empty() {
        rule.allow.to_string()
    } else {
        format!("{}@{}", rule.allow, environments.join(","))
    }
}

/// Reads `production`, `staging` or `development`.
pub fn environment(text: &str) -> Result<Environment, String> {
    let found = Environment::ALL
        .into_iter()
        .find(|environment| environment.as_str() == text);
    found.ok_or_else(|| "an environment is production, staging or development".to_owned())
}

/// Reads a word of the API's own vocabulary, and names all words otherwise.
pub fn word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|error| error.to_string())
}

/// Reads `key=value`.
pub fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = Labels::parse_pair(text).map_err(|error| error.to_string())?;
    Labels::new(BTreeMap::from([(key.clone(), value.clone())]))
        .map_err(|error| error.to_string())?;
    Ok((key, value))
}

/// Reads `key=value` to set and `key-` to take away.
pub fn label_change(text: &str) -> Result<(String, Option<String>), String> {
    match text.strip_suffix('-').filter(|_| !text.contains('=')) {
        Some(key) => label(&format!("{key}=")).map(|(key, _)| (key, None)),
        None if text.contains('=') => label(text).map(|(key, value)| (key, Some(value))),
        None => Err("write key=value to set a label, key- to take it away".to_owned()),
    }
}

/// The labels of these pairs.
pub fn labels(pairs: &[(String, String)]) -> Result<Labels, crate::failure::Failure> {
    Labels::new(pairs.iter().cloned().collect())
        .map_err(|error| crate::failure::Failure::Usage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::host::Summary;
    use proptest::prelude::*;

    #[test]
    fn durations_add_up() {
        for (text, millis) in [
            ("500ms", 500),
            ("2s", 2000),
            ("1h30m", 5_400_000),
            ("30d", 2_592_000_000),
            ("1w", 604_800_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in [
            "",
            "2",
            "s",
            "2 s",
            "-1s",
            "1y",
            "99999999999999999999s",
            "18446744073709551615w",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_processors_and_shares_are_read_or_refused() {
        assert_eq!(bytes("512M"), Ok(512 << 20));
        assert_eq!(bytes("2GiB"), Ok(2 << 30));
        assert_eq!(bytes("4096"), Ok(4096));
        for bad in ["", "M", "1.5G", "-1", "1X", "99999999999T"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(
            (cpus("2"), cpus("0.5"), cpus("1.25")),
            (Ok(2000), Ok(500), Ok(1250))
        );
        for bad in ["", ".", "0", "1.", "-1", "1.2345", "+1", "9999999999"] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
        for good in ["3", "10%", "100%"] {
            assert_eq!(size(good).as_deref(), Ok(good));
        }
        for bad in ["", "%", "101%", "-1", "+1", "1.5", "a"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_instants_or_distances() {
        let now = Timestamp::from_millis(1000);
        assert_eq!(when("2s").unwrap().from(now), Timestamp::from_millis(3000));
        assert_eq!(
            when("1970-01-01T00:00:05Z").unwrap().from(now),
            Timestamp::from_millis(5000)
        );
        assert!(when("tomorrow").is_err());
    }

    #[test]
    fn rules_print_as_they_are_read() {
        for text in [
            "self",
            "project.workspace.host@staging,development",
            "deployment.audit@production",
        ] {
            assert_eq!(rule_text(&rule(text).unwrap()), text);
        }
        for bad in [
            "",
            "host",
            "self@",
            "self@prod",
            "project.workspace.host.fly",
        ] {
            assert!(rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_are_set_with_equals_and_taken_away_with_minus() {
        assert_eq!(
            label_change("role=web"),
            Ok(("role".to_owned(), Some("web".to_owned())))
        );
        assert_eq!(
            label_change("role="),
            Ok(("role".to_owned(), Some(String::new())))
        );
        assert_eq!(label_change("role-"), Ok(("role".to_owned(), None)));
        assert_eq!(
            label_change("role=web-"),
            Ok(("role".to_owned(), Some("web-".to_owned())))
        );
        for bad in ["role", "-", "", "ro le=x", "role=a b"] {
            assert!(label_change(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn wrong_words_name_the_right_ones() {
        assert_eq!(word::<Summary>("late"), Ok(Summary::Late));
        let error = word::<Summary>("gone").unwrap_err();
        assert!(
            error.contains("`connected`") && error.contains("`retired`"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,20}") {
            let _ = (duration(&text), when(&text), rule(&text), label_change(&text));
        }
    }
}
