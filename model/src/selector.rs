//! Label selectors: `role=web,env!=dev,tier in (a, b),!legacy`.
//!
//! Terms joined by commas, all of which must hold. `key=value` (or `==`),
//! `key!=value` (also true where the label is missing), `key in (a, b)`,
//! `key notin (a, b)`, `key` (present), `!key` (absent). The same forms as
//! Kubernetes equality and set selectors, so that nobody learns a new language.

use std::fmt;
use std::str::FromStr;

use crate::labels::{Labels, valid_key, valid_value};

/// Which labels a thing must have. The empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Present(String),
    Absent(String),
}

/// Why a text is not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot read selector term {place} (`{term}`): {why}; examples: role=web, env!=dev, tier in (a,b), !legacy"
)]
pub struct BadSelector {
    place: usize,
    term: String,
    why: &'static str,
}

/// Longest selector text, in bytes.
const MAX_LEN: usize = 4096;
const MAX_TERMS: usize = 32;

impl Selector {
    /// Whether `labels` satisfy every term.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|term| match term {
            Term::In(key, values) => labels
                .value(key)
                .is_some_and(|have| values.iter().any(|v| v == have)),
            Term::NotIn(key, values) => !labels
                .value(key)
                .is_some_and(|have| values.iter().any(|v| v == have)),
            Term::Present(key) => labels.value(key).is_some(),
            Term::Absent(key) => labels.value(key).is_none(),
        })
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Selector {
    type Err = BadSelector;

    fn from_str(text: &str) -> Result<Self, BadSelector> {
        let fail = |place: usize, term: &str, why| BadSelector {
            place,
            term: crate::names::clean(term, 80),
            why,
        };
        if text.len() > MAX_LEN {
            return Err(fail(1, text, "the selector is longer than 4096 bytes"));
        }
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let parts = split_terms(text);
        if parts.len() > MAX_TERMS {
            return Err(fail(MAX_TERMS + 1, "…", "more than 32 terms"));
        }
        let terms = parts.iter().enumerate().map(|(place, part)| {
            parse_term(part.trim()).map_err(|why| fail(place + 1, part.trim(), why))
        });
        Ok(Self(terms.collect::<Result<_, _>>()?))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, term) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            match term {
                Term::In(key, values) if values.len() == 1 => write!(f, "{key}={}", values[0])?,
                Term::In(key, values) => write!(f, "{key} in ({})", values.join(","))?,
                Term::NotIn(key, values) if values.len() == 1 => write!(f, "{key}!={}", values[0])?,
                Term::NotIn(key, values) => write!(f, "{key} notin ({})", values.join(","))?,
                Term::Present(key) => f.write_str(key)?,
                Term::Absent(key) => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

/// Splits at commas outside parentheses.
fn split_terms(text: &str) -> Vec<&str> {
    let mut depth = 0usize;
    text.split(|letter| {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    })
    .collect()
}

fn parse_term(term: &str) -> Result<Term, &'static str> {
    if let Some((key, value)) = term.split_once("!=") {
        return Ok(Term::NotIn(key_of(key)?, vec![value_of(value)?]));
    }
    if let Some((key, value)) = term.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return Ok(Term::In(key_of(key)?, vec![value_of(value)?]));
    }
    if let Some(key) = term.strip_prefix('!') {
        return Ok(Term::Absent(key_of(key)?));
    }
    if let Some((head, list)) = term.split_once('(') {
        let list = list.strip_suffix(')').ok_or("the list is not closed")?;
        let values = list
            .split(',')
            .map(value_of)
            .collect::<Result<Vec<_>, _>>()?;
        let (key, operator) = head
            .trim()
            .split_once(char::is_whitespace)
            .ok_or("`in` or `notin` is missing")?;
        return match operator.trim() {
            "in" => Ok(Term::In(key_of(key)?, values)),
            "notin" => Ok(Term::NotIn(key_of(key)?, values)),
            _ => Err("the operator must be `in` or `notin`"),
        };
    }
    Ok(Term::Present(key_of(term)?))
}

fn key_of(text: &str) -> Result<String, &'static str> {
    let key = text.trim();
    if valid_key(key) {
        Ok(key.to_owned())
    } else {
        Err("the label key is outside its alphabet")
    }
}

fn value_of(text: &str) -> Result<String, &'static str> {
    let value = text.trim();
    if valid_value(value) {
        Ok(value.to_owned())
    } else {
        Err("the value is outside its alphabet")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let pairs = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Labels::new(pairs.collect::<BTreeMap<_, _>>()).unwrap()
    }

    #[test]
    fn every_term_must_hold() {
        let web = labels(&[("role", "web"), ("tier", "a")]);
        for (text, expected) in [
            ("", true),
            ("role=web", true),
            ("role==web,tier in (a, b)", true),
            ("role!=web", false),
            ("env!=dev", true),
            ("tier notin (a)", false),
            ("role", true),
            ("!role", false),
            ("!legacy,role=web", true),
        ] {
            assert_eq!(
                text.parse::<Selector>().unwrap().matches(&web),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn errors_name_the_term() {
        for text in [
            "role=we b",
            "=x",
            "tier in (a",
            "tier on (a)",
            ",",
            "a,,b",
            "x'=1",
        ] {
            let error = text.parse::<Selector>().unwrap_err().to_string();
            assert!(error.contains("selector term"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_and_prints_to_itself(text in "[a-c!=, ()in]{0,24}") {
            if let Ok(selector) = text.parse::<Selector>() {
                prop_assert_eq!(selector.to_string().parse::<Selector>().unwrap(), selector);
            }
        }
    }
}
