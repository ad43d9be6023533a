//! The list of cases, as `docs/abuse.md` has it.
//!
//! The document is for people; this reads the little of it that a program needs: `## A. Group`,
//! `12. **Title.** …` and the `*Not yet:* …` or `*In part not yet:* …` that ends a case.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};

/// One case.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// Its number, from 1.
    pub(crate) number: u8,
    /// Its group: `A. Identity and access`.
    pub(crate) group: String,
    /// What somebody does.
    pub(crate) title: String,
    /// What cannot be tested because it does not exist.
    pub(crate) not_yet: Option<NotYet>,
}

/// What a case waits for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotYet {
    /// All of it does.
    All(String),
    /// Part of it does; the rest must be covered.
    Part(String),
}

impl fmt::Display for NotYet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(reason) => write!(f, "not yet: {reason}"),
            Self::Part(reason) => write!(f, "in part not yet: {reason}"),
        }
    }
}

/// Reads the cases, which must be numbered from 1 without a gap.
pub(crate) fn parse(text: &str) -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    let mut group = None;
    // Paragraphs of a case are lines that follow it, indented.
    let mut body = String::new();
    for line in text.lines().chain(["## end"]) {
        if let Some(more) = line.strip_prefix("   ")
            && !body.is_empty()
        {
            body.push(' ');
            body.push_str(more.trim());
            continue;
        }
        if !body.is_empty() {
            let group: &String = group.as_ref().context("a case stands before any group")?;
            cases.push(case(&body, group)?);
            body.clear();
        }
        if let Some(heading) = line.strip_prefix("## ") {
            group = Some(heading.to_owned());
        } else if line.starts_with(|first: char| first.is_ascii_digit()) {
            line.clone_into(&mut body);
        }
    }
    for (expected, case) in (1..).zip(&cases) {
        ensure!(
            case.number == expected,
            "case {} stands where {expected} should",
            case.number
        );
    }
    Ok(cases)
}

fn case(body: &str, group: &str) -> Result<Case> {
    let (number, rest) = body
        .split_once(". **")
        .with_context(|| format!("not a case: {body}"))?;
    let Some((title, rest)) = rest.split_once("**") else {
        bail!("the title of case {number} does not end");
    };
    let after = |mark| {
        let (_, reason) = rest.split_once(mark)?;
        Some(reason.trim().trim_end_matches('.').to_owned())
    };
    let not_yet = after("*Not yet:*")
        .map(NotYet::All)
        .or_else(|| after("*In part not yet:*").map(NotYet::Part));
    Ok(Case {
        number: number.parse().with_context(|| format!("case {number}"))?,
        group: group.to_owned(),
        title: title.trim_end_matches(['.', ':']).to_owned(),
        not_yet,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Cases\n\nProse.\n\n## A. Doors\n\n1. **Nobody knocks.** All is\n   quiet.\n\
        2. **All knock:** they wait.\n   *Not yet:* the bell\n   is missing.\n\n## B. Windows\n\n3. **Wind.** Shut.\n   *In part not yet:* glass.\n";

    #[test]
    fn titles_groups_and_what_is_not_built_are_read() {
        let cases = parse(TEXT).unwrap();
        let short: Vec<_> = cases
            .iter()
            .map(|case| {
                (
                    case.number,
                    &*case.group,
                    &*case.title,
                    case.not_yet.as_ref().map(NotYet::to_string),
                )
            })
            .collect();
        assert_eq!(
            short,
            [
                (1, "A. Doors", "Nobody knocks", None),
                (
                    2,
                    "A. Doors",
                    "All knock",
                    Some("not yet: the bell is missing".into())
                ),
                (
                    3,
                    "B. Windows",
                    "Wind",
                    Some("in part not yet: glass".into())
                ),
            ]
        );
    }

    #[test]
    fn a_lost_case_is_noticed() {
        let error = parse(&TEXT.replace("2. **", "4. **")).unwrap_err();
        assert_eq!(error.to_string(), "case 4 stands where 2 should");
    }
}
